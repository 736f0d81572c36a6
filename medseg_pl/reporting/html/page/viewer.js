// The window that opens a case: its pictures where the page has them, and its scores.
function caseViewer(dialog, data, order) {
  const part = (name) => dialog.querySelector(`#viewer-${name}`);
  const letter = (run) => String.fromCharCode(65 + run);
  const state = {
    reference: true,
    prediction: true,
    difference: false,
    opacity: 0.4,
    brightness: 1,
    labels: data.labels.map(() => true),
    run: 0,
    slice: 0,
  };
  let current = null; // the place of the case that is shown
  let picture = null; // what is drawn of it
  let canvas = null;

  const element = (name, text, attributes = {}) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  // Scores.
  const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

  const scoreTable = (scores, title) => {
    const table = element("table", undefined, { class: "numbers" });
    const columns = data.columns.filter(([key]) => Object.values(scores).some((row) => typeof row[key] === "number"));
    if (title) table.append(element("caption", title));
    const head = table.createTHead().insertRow();
    const unit = Object.values(scores)[0].unit;
    const names = columns.map(([key, name]) => (data.lengths.includes(key) ? `${name}, ${unit}` : name));
    head.append(...["label", ...names, ""].map((name) => element("th", name, { scope: "col" })));
    const body = table.createTBody();
    for (const label of data.labels.filter((name) => scores[name])) {
      const row = body.insertRow();
      row.append(element("th", label, { scope: "row" }));
      for (const [key, , digits] of columns) row.append(element("td", number(scores[label][key], digits)));
      row.append(element("td", scores[label].status === "ok" ? "" : scores[label].status.replace("_", " ")));
    }
    return table;
  };

  // Controls; each writes into the state, which stays from case to case.
  const check = (title, key, get, set) => {
    const label = element("label");
    const box = element("input", undefined, { type: "checkbox", "data-key": key });
    box.checked = get();
    box.addEventListener("change", () => (set(box.checked), draw()));
    label.append(box, element("span", title), element("kbd", key));
    return label;
  };

  const slide = (name, min, max) => {
    const label = element("label", name);
    const range = element("input", undefined, { type: "range", min, max, step: 0.05, id: `viewer-${name}` });
    range.value = state[name];
    range.addEventListener("input", () => ((state[name] = Number(range.value)), draw()));
    label.append(range);
    return label;
  };

  const group = (title, ...inner) => {
    const made = element("fieldset");
    made.append(element("legend", title), ...inner);
    return made;
  };

  const labelCheck = (name, place) => {
    const made = check(name, place < 9 ? String(place + 1) : "", () => state.labels[place], (on) => (state.labels[place] = on));
    const [red, green, blue] = data.colors[place % data.colors.length];
    made.insertBefore(element("span", "", { class: "swatch", style: `--swatch: rgb(${red} ${green} ${blue})` }), made.children[1]);
    return made;
  };

  const runChoice = () => {
    const choice = element("select", undefined, { id: "viewer-run" });
    data.runs.forEach((title, run) => {
      const option = element("option", `${letter(run)}: ${title}`, { value: run });
      option.disabled = picture.predictions[run] === null;
      choice.append(option);
    });
    choice.value = state.run;
    choice.addEventListener("change", () => ((state.run = Number(choice.value)), draw()));
    return group("Prediction of", choice);
  };

  const controls = () => {
    const legend = element("p", "Difference: ", { class: "quiet" });
    for (const [name, color] of [["missed", MISSED], ["false positive", FALSE_POSITIVE]]) {
      legend.append(element("span", "■ ", { style: `color: rgb(${color.join(" ")})` }), `${name} `);
    }
    return [
      ...(data.runs.length > 1 ? [runChoice()] : []),
      group(
        "Show",
        check("reference, outlined", "r", () => state.reference, (on) => (state.reference = on)),
        check("prediction, filled", "p", () => state.prediction, (on) => (state.prediction = on)),
        check("difference", "d", () => state.difference, (on) => (state.difference = on)),
        slide("opacity", 0, 1),
        slide("brightness", 1, 8),
        legend,
      ),
      group("Labels", ...data.labels.map(labelCheck)),
      element("p", "← → slices · ↑ ↓ cases · r p d 1–9 switches · Esc closes", { class: "quiet keys" }),
    ];
  };

  // Pictures.
  const view = () => {
    const slider = element("input", undefined, { type: "range", min: 0, max: picture.slices.length - 1, id: "viewer-slice" });
    slider.setAttribute("aria-label", "slice");
    slider.addEventListener("input", () => ((state.slice = Number(slider.value)), draw()));
    const line = element("div", undefined, { class: "slice" });
    line.append(slider, element("output", "", { id: "viewer-slice-name" }));
    const notes = picture.left_out ? [element("p", picture.left_out, { class: "quiet" })] : [];
    canvas = element("canvas", undefined, { role: "img", "aria-label": "slice with masks" });
    canvas.style.aspectRatio = String(picture.aspect);
    return picture.slices.length > 1 ? [canvas, line, ...notes] : [canvas, ...notes];
  };

  const draw = () => {
    if (picture === null) return;
    drawCase(canvas, picture, state, data.labels, data.colors, data.overlapping);
    const slider = part("slice");
    if (!slider) return;
    slider.value = state.slice;
    part("slice-name").textContent = `slice ${picture.slices[state.slice] + 1} of ${picture.depth}`;
  };

  const image = (source) =>
    new Promise((resolve, reject) => {
      const made = new Image();
      made.onload = () => resolve(made);
      made.onerror = reject;
      made.src = `data:image/webp;base64,${source}`;
    });

  const load = async (place) => {
    const source = document.getElementById(`pictures-${place}`);
    if (!source) return null;
    const found = JSON.parse(source.textContent);
    const [images, reference, predictions] = await Promise.all([
      Promise.all(found.images.map(image)),
      unpacked(found.reference),
      Promise.all(found.predictions.map((text) => (text === null ? null : unpacked(text)))),
    ]);
    return { ...found, images, reference, predictions };
  };

  const show = async (place) => {
    current = place;
    picture = null;
    const found = data.cases[place];
    const places = order();
    const position = places.indexOf(place);
    part("title").textContent = found.name;
    part("place").textContent = `patient ${found.group}${position < 0 ? "" : `, ${position + 1} of ${places.length}`}`;
    const scored = found.scores.map((scores, run) => [scores, data.runs.length > 1 ? `${letter(run)}: ${data.runs[run]}` : ""]);
    part("scores").replaceChildren(
      ...scored.filter(([scores]) => Object.keys(scores).length).map(([scores, title]) => scoreTable(scores, title)),
    );
    const loaded = await load(place);
    if (current !== place) return; // another case was opened meanwhile
    picture = loaded;
    if (picture === null) {
      part("view").replaceChildren(element("p", "This page holds no pictures of this case.", { class: "missing" }));
      part("controls").replaceChildren();
      return;
    }
    state.slice = picture.telling;
    if (picture.predictions[state.run] === null) state.run = picture.predictions.findIndex((one) => one !== null);
    part("view").replaceChildren(...view());
    part("controls").replaceChildren(...controls());
    draw();
  };

  // Keys and the address.
  const turn = (by) => {
    if (picture === null) return;
    state.slice = Math.min(Math.max(state.slice + by, 0), picture.slices.length - 1);
    draw();
  };

  const step = (by) => {
    const places = order();
    const place = places.indexOf(current) + by;
    if (place < 0 || place >= places.length) return;
    show(places[place]); // now, and not when the address has changed: keys may be pressed faster
    history.replaceState(null, "", `#case-${places[place]}`);
  };

  const press = (key) => {
    const box = dialog.querySelector(`input[data-key="${CSS.escape(key)}"]`);
    if (box) box.click();
    return Boolean(box);
  };

  const close = () => {
    if (dialog.open) dialog.close();
    current = null;
    history.replaceState(null, "", "#cases");
  };

  const follow = () => {
    const found = /^#case-(\d+)$/.exec(location.hash);
    if (!found || !data.cases[Number(found[1])]) return dialog.open && dialog.close();
    show(Number(found[1]));
    if (!dialog.open) dialog.showModal();
  };

  const moves = { ArrowLeft: [turn, -1], ArrowRight: [turn, 1], ArrowUp: [step, -1], ArrowDown: [step, 1] };
  // On the document: a page that was opened at a case has the focus outside of the dialog.
  document.addEventListener("keydown", (event) => {
    if (!dialog.open || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches(".controls [type=range], select") && moves[event.key]) return; // they have these keys themselves
    if (moves[event.key]) moves[event.key][0](moves[event.key][1]);
    else if (!/^[a-z1-9]$/i.test(event.key) || !press(event.key.toLowerCase())) return;
    event.preventDefault();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]")) close();
    const button = event.target.closest("[data-step]");
    if (button) step(Number(button.dataset.step));
  });
  dialog.addEventListener("wheel", (event) => {
    if (event.target !== canvas || picture.slices.length < 2) return;
    event.preventDefault();
    turn(Math.sign(event.deltaY));
  }, { passive: false });
  dialog.addEventListener("cancel", close);
  addEventListener("hashchange", follow);
  follow();
}
