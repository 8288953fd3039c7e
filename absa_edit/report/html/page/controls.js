// The small parts that every figure is made of: elements, choices, tips, movement by arrow keys, sorting.

// An element; strings among the children become text, so nothing from the data is ever read as HTML.
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

let groups = 0;

// Radio buttons side by side; `options` are strings or nodes, `change` gets the number of the chosen one.
function choice(title, options, change) {
  const name = `choice-${groups++}`;
  const labels = options.map((option, i) =>
    make("label", {}, make("input", { type: "radio", name, checked: i === 0, onchange: () => change(i) }), option),
  );
  return make("fieldset", {}, make("legend", {}, title), make("div", { class: "options" }, ...labels));
}

// A list to select from; `change` gets the number of the chosen option.
function picker(title, options, change) {
  const items = options.map((option, i) => make("option", { value: i }, option));
  const select = make("select", { onchange: (event) => change(Number(event.target.value)) }, ...items);
  return make("label", {}, title, select);
}

// Buttons for few options, a list for many; nothing where there is no choice.
function oneOf(title, options, change) {
  if (options.length < 2) return "";
  return (options.length <= 4 ? choice : picker)(title, options, change);
}

// Calls `draw` with the width of `node` now and whenever it changes.
function onWidth(node, draw) {
  let last = 0;
  new ResizeObserver(() => {
    const width = Math.floor(node.clientWidth);
    if (width && width !== last) draw((last = width));
  }).observe(node);
}

// Shows the `data-tip` of what the pointer or the focus is on; Escape puts it away.
function showTips(tip) {
  let target = null;
  const hide = () => (tip.hidden = true);
  const place = () => {
    const [at, size] = [target.getBoundingClientRect(), tip.getBoundingClientRect()];
    const left = at.left + at.width / 2 - size.width / 2;
    const above = at.top - size.height - 8;
    tip.style.left = `${Math.max(6, Math.min(left, document.documentElement.clientWidth - size.width - 6))}px`;
    tip.style.top = `${above > 6 ? above : at.bottom + 8}px`;
  };
  const show = (event) => {
    target = event.target.closest?.("[data-tip]");
    if (!target) return hide();
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    place();
  };
  for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, show);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", () => tip.hidden || place(), { passive: true, capture: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}

// Makes the cells of a table one tab stop, moved through by arrow keys, Home and End.
function moveByArrows(table) {
  table.setAttribute("role", "grid");
  const rows = [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("[data-tip]")]);
  const cells = rows.flat();
  for (const cell of cells) {
    cell.tabIndex = -1;
    cell.setAttribute("role", "gridcell");
    cell.setAttribute("aria-label", cell.dataset.tip.replaceAll("\n", ", "));
  }
  if (cells.length) cells[0].tabIndex = 0;
  table.addEventListener("focusin", (event) => {
    for (const cell of cells) cell.tabIndex = cell === event.target ? 0 : -1;
  });
  table.addEventListener("keydown", (event) => {
    const y = rows.findIndex((row) => row.includes(event.target));
    const x = rows[y]?.indexOf(event.target);
    const to = {
      ArrowLeft: [y, x - 1],
      ArrowRight: [y, x + 1],
      ArrowUp: [y - 1, x],
      ArrowDown: [y + 1, x],
      Home: [y, 0],
      End: [y, rows[y]?.length - 1],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    rows[to[0]]?.[to[1]]?.focus();
  });
}

// Puts a choice above blocks of which one is shown at a time.
function chooseAmong(container) {
  const blocks = [...container.children];
  const show = (chosen) => blocks.forEach((block, i) => (block.hidden = i !== chosen));
  const control = oneOf(
    container.dataset.choose,
    blocks.map((block) => block.dataset.choice),
    show,
  );
  container.prepend(make("div", { class: "controls" }, control));
  show(0);
}

// Turns the headings of a table into buttons that sort its body by `data-value`, largest first.
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const first = column === 0 ? "ascending" : "descending";
      const other = { ascending: "descending", descending: "ascending" };
      const order = other[head.getAttribute("aria-sort")] ?? first;
      for (const one of heads) one.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const value = (row) => Number(row.cells[column].dataset.value ?? NaN);
      const sign = order === "ascending" ? 1 : -1;
      const missing = (row) => Number.isNaN(value(row));
      const rows = [...body.rows].sort((a, b) => missing(a) - missing(b) || sign * (value(a) - value(b)) || 0);
      body.append(...rows);
    });
  });
}
