// The table of cases: sorted by a click on a heading, filtered by the form above it.
function caseTable(table, form, count) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const buttons = [...table.tHead.querySelectorAll("button")];

  const value = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };

  // What has no value comes last, whichever way the others go.
  const compare = (a, b, direction) => {
    if (a === b) return 0;
    if (a === null || a === "") return 1;
    if (b === null || b === "") return -1;
    const order = typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
    return order * direction;
  };

  const sort = (column) => {
    const heading = buttons[column].parentElement;
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const button of buttons) button.parentElement.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    rows.sort((a, b) => compare(value(a, column), value(b, column), ascending ? 1 : -1));
    body.append(...rows);
  };

  const passes = (row) => {
    const text = form.elements.text.value.trim().toLowerCase();
    const fault = form.elements.fault.value;
    const most = form.elements.most.value;
    const named = `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase();
    const faults = row.dataset.faults;
    return (
      named.includes(text) &&
      (fault === "" || (fault === "any" ? faults !== "" : faults.includes(`${fault}:`))) &&
      (most === "" || (row.dataset.dice !== "" && Number(row.dataset.dice) <= Number(most)))
    );
  };

  const filter = () => {
    for (const row of rows) row.hidden = !passes(row);
    const shown = rows.filter((row) => !row.hidden).length;
    const total = `${rows.length} ${rows.length === 1 ? "case" : "cases"}`;
    count.textContent = shown === rows.length ? total : `${shown} of ${total}`;
  };

  buttons.forEach((button, column) => button.addEventListener("click", () => sort(column)));
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a")) location.hash = row.id;
  });
  filter();

  // The places of the cases that are shown, in the order of the table.
  return { order: () => rows.filter((row) => !row.hidden).map((row) => Number(row.dataset.case)) };
}
