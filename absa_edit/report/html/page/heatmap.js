// The trace: a table of cells by row (role, head or token) and layer, coloured by indirect effect.

const MINUS = "\u2212";
const NUMBERED = 48; // with more layers the cells are too narrow for their values
const LOW = 16; // with more rows they are drawn less high

function signed(points) {
  return `${points < 0 ? MINUS : "+"}${Math.abs(points).toFixed(1)}`;
}

// A sentence with the aspect marked, if it has one; offsets count characters, which an emoji is one of.
function marked(text, start, end) {
  if (start === end) return [text];
  const letters = [...text];
  const part = (from, to) => letters.slice(from, to).join("");
  return [part(0, start), make("mark", {}, part(start, end)), part(end)];
}

function heatmap(map, view) {
  const layers = view.effect[0]?.length ?? 0;
  const most = Math.max(...view.rows.map((row) => row.n ?? 0));
  const planned = new Set(
    map.planned.flatMap(([row, layer]) => (row < 0 ? view.rows.map((_, y) => `${y},${layer}`) : [`${row},${layer}`])),
  );
  const dense = layers > NUMBERED;
  const numbers = Array.from({ length: layers }, (_, x) =>
    make("th", { scope: "col", class: map.layers.includes(x) && "planned" }, dense && x % 5 ? "" : String(x)),
  );
  const rows = view.rows.map((row, y) => {
    const name = [row.name, row.n === undefined || row.n === most ? "" : make("small", {}, ` n\u00a0=\u00a0${row.n}`)];
    const cells = view.effect[y].map((_, x) => cell(map, view, y, x, planned));
    return make("tr", {}, make("th", { scope: "row" }, ...name), ...cells);
  });
  const table = make(
    "table",
    {
      class: `map layers ${dense ? "dense" : ""} ${view.rows.length > LOW ? "low" : ""}`,
      "--columns": layers,
      "aria-label": `indirect effect of ${map.name}, by row and layer`,
    },
    make("colgroup", {}, make("col", { class: "names" }), make("col", { span: layers })),
    make("thead", {}, make("tr", {}, make("td"), ...numbers)),
    make("tbody", {}, ...rows),
    make("tfoot", {}, make("tr", {}, make("td"), make("td", { class: "axis", colspan: layers }, "layer"))),
  );
  moveByArrows(table);
  return make("div", { class: "scroll" }, table);
}

function cell(map, view, y, x, planned) {
  const effect = view.effect[y][x];
  if (effect === null) return make("td", { class: "cell none" });
  const share = Math.min(Math.abs(effect) / map.largest, 1);
  const [low, high] = [view.low?.[y][x], view.high?.[y][x]];
  const interval = view.low ? ` [${signed(low)}, ${signed(high)}]` : "";
  const n = view.rows[y].n;
  const where = `${map.name}${view.name && `, ${view.name}`}, ${view.rows[y].name}, layer ${x}`;
  const lines = [where, `${signed(effect)} points${interval}`];
  if (n !== undefined) lines.push(`n = ${n}`);
  const kinds = ["cell"];
  if (effect < 0) kinds.push("below");
  if (view.unsure?.[y][x]) kinds.push("unsure");
  if (planned.has(`${y},${x}`)) {
    lines.push("the plan edits here");
    const beside = { top: [y - 1, x], bottom: [y + 1, x], left: [y, x - 1], right: [y, x + 1] };
    for (const [side, at] of Object.entries(beside)) if (!planned.has(at.join())) kinds.push(`edge-${side}`);
  }
  const text = map.largest < 9.5 ? shortest(effect) : String(Math.round(effect)).replace("-", MINUS);
  return make(
    "td",
    { class: kinds.join(" "), "--share": `${(100 * share).toFixed(1)}%`, "data-tip": lines.join("\n") },
    text,
  );
}

function shortest(points) {
  return points
    .toFixed(1)
    .replace(/^(-?)0(?=\.)/, "$1")
    .replace(/^-?\.0$/, "0")
    .replace("-", MINUS);
}

// The colour scale of a map from its smallest to its largest effect.
function scale(map) {
  const values = map.views.flatMap((view) => view.effect.flat()).filter((value) => value !== null);
  const [low, high] = [Math.min(0, ...values), Math.max(0.1, ...values)];
  const bar = make("i", {
    "--least": `${(100 * -low) / map.largest}%`,
    "--zero": `${(100 * -low) / (high - low)}%`,
  });
  return make(
    "div",
    { class: "scale", "aria-hidden": "true" },
    low < 0 ? signed(low) : "0",
    bar,
    `${signed(high)} points of p(gold)`,
  );
}

function traceFigure(container, maps) {
  const place = make("div");
  const second = make("span");
  const show = (map) => {
    const draw = (view) => place.replaceChildren(heatmap(map, map.views[view]), scale(map));
    second.replaceChildren(
      map.views.length < 2
        ? ""
        : picker(
            "role",
            map.views.map((view) => view.name),
            draw,
          ),
    );
    draw(0);
  };
  container.append(
    make(
      "div",
      { class: "controls" },
      oneOf(
        "restored",
        maps.map((m) => m.name),
        (i) => show(maps[i]),
      ),
      second,
    ),
    place,
  );
  show(maps[0]);
}

function examplesFigure(container, examples) {
  const place = make("div");
  let [example, part] = [0, 0];
  const draw = () => {
    const map = examples[example].maps[part];
    place.replaceChildren(heatmap(map, map.views[0]), scale(map));
  };
  const options = examples.map((one) =>
    make(
      "span",
      {},
      ...marked(one.text, one.start, one.end),
      make("small", {}, `${one.gold}: ${one.clean.toFixed(1)} % clean, ${one.corrupted.toFixed(1)} % corrupted`),
    ),
  );
  const parts = oneOf(
    "restored",
    examples[0].maps.map((map) => map.name),
    (i) => {
      part = i;
      draw();
    },
  );
  const list = choice("example", options, (i) => {
    example = i;
    draw();
  });
  list.classList.add("pick", "controls");
  container.append(
    make("div", { class: "examples" }, list, make("div", {}, make("div", { class: "controls" }, parts), place)),
  );
  draw();
}
