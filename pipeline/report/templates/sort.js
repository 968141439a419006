// Sorting by a click on a column's head; without it the table reads in anatomical order.
for (const table of document.querySelectorAll("table.sortable")) {
  const bodies = [...table.tBodies];
  const original = bodies.map((body) => [...body.rows]);
  const number = (cell) => {
    const found = cell.querySelector("data");
    return found ? Number(found.value) : null;
  };
  const sorted = (column, ascending) => {
    const groups = [];
    for (const row of original.flat()) {
      if (row.classList.contains("why")) groups.at(-1).push(row);
      else if (!row.classList.contains("section")) groups.push([row]);
    }
    const key = (group) => {
      const cell = group[0].cells[column];
      const value = number(cell);
      if (value !== null) return Math.abs(value);
      return cell.querySelector(".none") ? null : cell.textContent.trim();
    };
    const keyed = groups.map((group) => [key(group), group]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
      return ascending ? order : -order;
    });
    return keyed.flatMap(([, group]) => group);
  };
  for (const head of table.querySelectorAll("th[data-column]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const column = Number(head.dataset.column);
    const text = "text" in head.dataset;
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const steps = text ? [null, "ascending", "descending"] : [null, "descending", "ascending"];
      const next = steps[(steps.indexOf(now) + 1) % 3];
      for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
      if (next === null) return original.forEach((rows, i) => bodies[i].append(...rows));
      head.setAttribute("aria-sort", next);
      bodies[0].append(...sorted(column, next === "ascending"));
    });
  }
}
