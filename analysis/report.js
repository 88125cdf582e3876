"use strict";
// Tables become sortable by their heads; without scripts they are plain tables.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort by this column";
    while (head.firstChild) button.append(head.firstChild);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].textContent.trim().replace(/\u2212/g, "-").replace(/,(?=\d{3})/g, "");
      const units = { M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
      const number = (text) => {
        const found = /^([-+]?\d[\d.]*(?:e[-+]?\d+)?)(?:\s([MGTP])?|$)/i.exec(text);
        return found ? parseFloat(found[1]) * (units[found[2]] || 1) : NaN;
      };
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const [p, q] = [number(x), number(y)];
        if (Number.isNaN(p) !== Number.isNaN(q)) return Number.isNaN(p) ? 1 : -1;
        const order = Number.isNaN(p) ? x.localeCompare(y) : p - q;
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
