// Charts by Observable Plot: score against budget, and learning curves.

const METRICS = { macro_f1: "macro-F1", accuracy: "accuracy" };
const LOOK = { background: "none", color: "inherit", fontFamily: "inherit", fontSize: "12px", overflow: "visible" };

const distinct = (points, key) => [...new Set(points.map((point) => point[key]))];

// The points with the colour and symbol of their method.
function dressed(points, methods) {
  const numbers = new Map(methods.map((method, i) => [method.name, i]));
  return points.map((point) => {
    const i = numbers.get(point.method);
    return { ...point, colour: `var(--method-${i})`, symbol: methods[i].symbol, trains: methods[i].share };
  });
}

function budgetFigure(container, points, methods) {
  const tests = distinct(points, "test");
  const metrics = Object.keys(METRICS);
  const costs = { trainable: "trainable parameters", seconds: "seconds of training" };
  const chosen = { test: tests[0], metric: metrics[0], cost: "trainable" };
  const chart = make("div", { class: "chart" });
  const draw = () => budgetChart(chart, dressed(points, methods), chosen, costs[chosen.cost]);
  const set = (key, values) => (i) => {
    chosen[key] = values[i];
    draw();
  };
  container.append(
    make(
      "div",
      { class: "controls" },
      oneOf("test set", tests, set("test", tests)),
      oneOf(
        "score",
        metrics.map((metric) => METRICS[metric]),
        set("metric", metrics),
      ),
      oneOf("against", Object.values(costs), set("cost", Object.keys(costs))),
    ),
    chart,
  );
  onWidth(chart, draw);
}

function budgetChart(chart, points, { test, metric, cost }, label) {
  const shown = points.filter((point) => point.test === test).map((point) => ({ ...point, ...point[metric] }));
  const free = shown.filter((point) => !point.trainable);
  const trained = shown.filter((point) => point.trainable).sort((a, b) => a[cost] - b[cost]);
  const [least, largest] = [trained[0][cost], trained.at(-1)[cost]];
  const type = least && largest / least > 20 ? "log" : "linear";
  const room = Math.max(4, 1.8 * (largest / least) ** 0.13);
  const domain = type === "log" ? [least / room, largest * room] : [0, largest * 1.2];
  const at = sideBySide(
    trained.map((point) => point[cost]),
    type,
    domain,
  );
  trained.forEach((point, i) => (point.at = at[i]));
  const tip = (point) =>
    [
      `${point.method} on ${test}`,
      `${METRICS[metric]} ${point.value.toFixed(1)} [${point.low.toFixed(1)}, ${point.high.toFixed(1)}], n = ${point.n}`,
      `${point.trainable.toLocaleString("en")} parameters (${point.trains})` +
        (point.seconds === null ? "" : `, ${Math.round(point.seconds)} s`),
    ].join("\n");
  const width = chart.clientWidth;
  const svg = Plot.plot({
    width,
    height: Math.max(300, Math.min(430, width * 0.5)),
    marginLeft: 44,
    marginBottom: 44,
    style: LOOK,
    ariaLabel: `${METRICS[metric]} on ${test} against ${label}`,
    x: { type, domain, label, labelAnchor: "center", labelArrow: "none", ticks: 5, tickFormat: "~s" },
    y: { label: `${METRICS[metric]} (%)`, labelArrow: "none", grid: true, nice: true, ticks: 6 },
    marks: [
      Plot.rect(free, { x1: domain[0], x2: domain[1], y1: "low", y2: "high", fill: "colour", fillOpacity: 0.12 }),
      Plot.ruleY(free, { y: "value", stroke: "colour", strokeDasharray: "6,4", strokeWidth: 1.5 }),
      Plot.ruleX(trained, { x: "at", y1: "low", y2: "high", stroke: "colour", strokeWidth: 2.5, strokeOpacity: 0.55 }),
      Plot.dot(trained, { x: "at", y: "value", fill: "colour", symbol: "symbol", r: 6, ariaLabel: tip }),
    ],
  });
  chart.replaceChildren(svg);
  reachable(svg);
  nameBudgets(svg, width, trained, free);
}

// Writes the names of the trained methods beside their marks, of the others along their line.
function nameBudgets(svg, width, trained, free) {
  const x = (point) => svg.scale("x").apply(point.at);
  const y = (value) => svg.scale("y").apply(value);
  const bars = trained.map((point) => {
    return { x: x(point) - 7, y: y(point.high), width: 14, height: y(point.low) - y(point.high) };
  });
  const beside = trained.map((point) => ({
    ...point,
    places: [
      ...around(x(point), y(point.value)),
      [x(point), y(point.high) - 12, "middle"],
      [x(point), y(point.low) + 12, "middle"],
    ],
  }));
  const along = [
    [width - 24, "end"],
    [50, "start"],
    [width * 0.75, "end"],
    [width * 0.5, "end"],
  ];
  const onLines = free.map((point) => ({
    ...point,
    places: along.flatMap(([at, anchor]) => [-10, 12].map((dy) => [at, y(point.value) + dy, anchor])),
  }));
  writeNames(svg, width, [...beside, ...onLines], bars);
}

// Values moved apart where their marks would cover each other.
function sideBySide(values, type, domain) {
  const [to, from] = type === "log" ? [Math.log10, (t) => 10 ** t] : [(v) => v, (t) => t];
  const gap = 0.022 * (to(domain[1]) - to(domain[0]));
  let last = -Infinity;
  return values.map((value) => from((last = Math.max(to(value), last + gap))));
}

function learningFigure(container, points, methods) {
  const measures = { macro_f1: "macro-F1 (%)", accuracy: "accuracy (%)", loss: "training loss" };
  if (points.every((point) => "log_loss" in point)) measures.log_loss = "log-loss";
  const keys = Object.keys(measures);
  let measure = keys[0];
  const chart = make("div", { class: "chart" });
  const draw = () => learningChart(chart, dressed(points, methods), measure, measures[measure]);
  const control = oneOf("measure", Object.values(measures), (i) => {
    measure = keys[i];
    draw();
  });
  container.append(make("div", { class: "controls" }, control), chart);
  onWidth(chart, draw);
}

function learningChart(chart, points, measure, label) {
  const epochs = distinct(points, "epoch").sort((a, b) => a - b);
  const tip = (point) =>
    `${point.method}, epoch ${point.epoch}${point.kept ? " (kept)" : ""}\n${label} ${point[measure]}`;
  const width = chart.clientWidth;
  const svg = Plot.plot({
    width,
    height: Math.max(280, Math.min(400, width * 0.45)),
    marginLeft: 44,
    marginRight: Math.min(110, width * 0.22),
    marginBottom: 44,
    style: LOOK,
    ariaLabel: `${label} by epoch`,
    x: {
      domain: [epochs[0] - 0.15, epochs.at(-1) + 0.15],
      ticks: epochs.length > 12 ? 10 : epochs,
      tickFormat: "d",
      label: "epoch",
      labelAnchor: "center",
      labelArrow: "none",
    },
    y: { label, labelArrow: "none", grid: true, nice: true, ticks: 6 },
    marks: [
      Plot.line(points, { x: "epoch", y: measure, z: "method", stroke: "colour", strokeWidth: 2 }),
      Plot.dot(
        points.filter((point) => point.kept),
        { x: "epoch", y: measure, stroke: "colour", r: 9 },
      ),
      Plot.dot(points, { x: "epoch", y: measure, fill: "colour", symbol: "symbol", r: 4.5, ariaLabel: tip }),
    ],
  });
  chart.replaceChildren(svg);
  reachable(svg);
  const last = distinct(points, "method").map((method) => points.findLast((point) => point.method === method));
  const names = last.map((point) => {
    const y = svg.scale("y").apply(point[measure]);
    return { ...point, places: around(svg.scale("x").apply(point.epoch), y) };
  });
  writeNames(svg, width, names, []);
}

// Gives the marks that have a tip a place in the order of the Tab key.
function reachable(svg) {
  for (const group of [svg, ...svg.querySelectorAll("g[aria-label]")]) group.setAttribute("role", "group");
  for (const mark of svg.querySelectorAll("[aria-label='dot'] > [aria-label]")) {
    mark.dataset.tip = mark.getAttribute("aria-label");
    mark.setAttribute("aria-label", mark.dataset.tip.replaceAll("\n", ", "));
    mark.setAttribute("role", "img");
    mark.setAttribute("tabindex", "0");
  }
}

// Places for a name beside a mark at (x, y), the nearest first: [x, y, anchor].
function around(x, y) {
  const steps = [0, 15, -15, 30, -30, 45, -45, 60, -60];
  return [
    [14, "start"],
    [-14, "end"],
  ].flatMap(([dx, anchor]) => steps.map((dy) => [x + dx, y + dy, anchor]));
}

// Writes each name at the first of its places where it is whole and covers nothing taken.
function writeNames(svg, width, names, taken) {
  const used = [...taken];
  for (const { method, colour, places } of names) {
    const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
    text.textContent = method;
    for (const [key, value] of Object.entries({ class: "label", fill: colour, "dominant-baseline": "middle" })) {
      text.setAttribute(key, value);
    }
    svg.append(text);
    const fits = ([x, y, anchor]) => {
      for (const [key, value] of Object.entries({ x, y, "text-anchor": anchor })) text.setAttribute(key, value);
      const box = text.getBBox();
      return box.x >= 0 && box.x + box.width <= width && !used.some((other) => overlap(box, other));
    };
    if (!places.some(fits)) fits(places[0]);
    used.push(text.getBBox());
  }
}

function overlap(a, b) {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}
