"use strict";
// Sorting and filtering of tables that have more than a few rows. Everything can be read without.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  if (rows.length < 3) continue;
  const heads = [...table.tHead.rows[0].cells];
  if (rows.length > 7) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    const count = document.createElement("output");
    label.className = "filter";
    box.type = "search";
    box.autocomplete = "off";
    label.append("Rows that hold", box, count);
    table.parentNode.before(label);
    box.addEventListener("input", () => {
      const wanted = box.value.toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        shown += !row.hidden;
      }
      count.value = wanted ? `${shown} of ${rows.length}` : "";
    });
  }
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim().replace(/,(?=\d{3}\b)/g, "");
    const order = new Intl.Collator("en", { numeric: true });
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((one, other) => order.compare(key(one), key(other)) * (down ? -1 : 1));
      body.append(...rows);
    });
  });
}
