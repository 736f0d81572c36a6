// The window that opens a case: its scores, and its pictures where the page has them.
function caseViewer(dialog, data, order) {
  const part = (name) => dialog.querySelector(`#viewer-${name}`);
  let current = null;

  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  const text = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

  const scoreTable = (scores, title) => {
    const table = element("table", undefined, { class: "numbers" });
    const columns = data.columns.filter(([key]) => Object.values(scores).some((row) => row[key] !== undefined));
    table.append(element("caption", title));
    const head = table.createTHead().insertRow();
    head.append(...["label", ...columns.map(([, name]) => name), ""].map((name) => element("th", name, { scope: "col" })));
    const body = table.createTBody();
    for (const label of data.labels.filter((name) => scores[name])) {
      const row = body.insertRow();
      row.append(element("th", label, { scope: "row" }));
      for (const [key, , digits] of columns) row.append(element("td", text(scores[label][key], digits)));
      row.append(element("td", scores[label].status === "ok" ? "" : scores[label].status.replace("_", " ")));
    }
    return table;
  };

  const show = (number) => {
    current = number;
    const found = data.cases[number];
    const places = order();
    part("title").textContent = found.name;
    const place = places.indexOf(number);
    part("place").textContent = `patient ${found.group}${place < 0 ? "" : `, ${place + 1} of ${places.length}`}`;
    const scored = found.scores.map((scores, run) => [scores, data.runs.length > 1 ? `${letter(run)}: ${data.runs[run]}` : ""]);
    part("scores").replaceChildren(
      ...scored.filter(([scores]) => Object.keys(scores).length).map(([scores, title]) => scoreTable(scores, title)),
    );
    part("view").replaceChildren(element("p", "This page holds no pictures of this case.", { class: "missing" }));
  };

  const letter = (run) => String.fromCharCode(65 + run);

  const step = (by) => {
    const places = order();
    const place = places.indexOf(current) + by;
    if (place < 0 || place >= places.length) return;
    show(places[place]);  // now, and not when the address has changed: keys may be pressed faster
    history.replaceState(null, "", `#case-${places[place]}`);
  };

  const close = () => {
    if (dialog.open) dialog.close();
    history.replaceState(null, "", "#cases");
  };

  const follow = () => {
    const found = /^#case-(\d+)$/.exec(location.hash);
    if (!found || !data.cases[Number(found[1])]) return dialog.open && dialog.close();
    show(Number(found[1]));
    if (!dialog.open) dialog.showModal();
  };

  const keys = { ArrowUp: () => step(-1), ArrowDown: () => step(1) };
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("[data-close]")) close();
    const button = event.target.closest("[data-step]");
    if (button) step(Number(button.dataset.step));
  });
  dialog.addEventListener("cancel", close);
  addEventListener("hashchange", follow);
  follow();
}
