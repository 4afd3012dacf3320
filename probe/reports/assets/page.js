"use strict";
// Tables sort by a click on a heading; a second click turns the order round. Missing values go last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const numbers = !isNaN(x) && !isNaN(y);
        const order = numbers ? x - y : x.localeCompare(y);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}
// A link to something folded unfolds it.
const unfold = () => {
  const part = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (part instanceof HTMLDetailsElement) part.open = true;
};
addEventListener("hashchange", unfold);
unfold();
// A slider shows one grid of a film; without this script all are there, one below the other.
for (const film of document.querySelectorAll(".film")) {
  const slider = film.querySelector("input");
  const frames = [...film.querySelectorAll("figure")];
  const show = () => frames.forEach((frame, i) => frame.classList.toggle("shown", i === +slider.value));
  slider.addEventListener("input", show);
  slider.hidden = frames.length < 2;
  film.classList.add("plays");
  show();
}
// The page of a run that goes on loads itself again, unless the reader has unfolded or moved something.
if (document.body.dataset.reload) {
  const place = () => [
    ...[...document.querySelectorAll("details")].map((part) => part.open),
    ...[...document.querySelectorAll(".film input")].map((slider) => slider.value),
  ].join();
  const first = place();
  setInterval(() => place() === first && location.reload(), 1000 * document.body.dataset.reload);
}
// What is folded is printed all the same.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) {
    part.open = true;
    part.dataset.closed = "";
  }
});
addEventListener("afterprint", () => {
  for (const part of document.querySelectorAll("details[data-closed]")) {
    part.open = false;
    delete part.dataset.closed;
  }
});
