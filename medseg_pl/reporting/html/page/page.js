// Brings the parts to life.
const data = JSON.parse(document.getElementById("data").textContent);
themeButton(document.getElementById("theme"));
const cases = caseTable(
  document.getElementById("case-table"),
  document.getElementById("filters"),
  document.getElementById("count"),
);
caseViewer(document.getElementById("viewer"), data, cases.order);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
