// Fills the page from the data embedded in it.

const data = JSON.parse(document.getElementById("data").textContent);
const figures = {
  trace: traceFigure,
  examples: examplesFigure,
  budget: budgetFigure,
  learning: learningFigure,
  predictions: explorerFigure,
};
for (const node of document.querySelectorAll("[data-figure]")) {
  figures[node.dataset.figure](node, data[node.dataset.figure], data.methods);
}
document.querySelectorAll("[data-choose]").forEach(chooseAmong);
document.querySelectorAll("[data-sortable]").forEach(sortable);
document.querySelectorAll("[data-grid]").forEach(moveByArrows);
showTips(document.getElementById("tip"));

// The button goes through the system's theme, light and dark; the choice holds for this view of the page.
const themes = ["auto", "light", "dark"];
const button = document.getElementById("theme");
const apply = (theme) => {
  document.documentElement.dataset.theme = theme;
  button.textContent = `Theme: ${theme}`;
};
button.hidden = false;
button.addEventListener("click", () => {
  apply(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length]);
});
apply("auto");
