// The explorer of test predictions: filters, and rows that are made only when they are shown.

const AT_ONCE = 20;

function explorerFigure(container, data) {
  const { methods, labels, tests, examples, answers } = data;
  const pairs = methods.flatMap((_, a) => methods.slice(a + 1).map((_, b) => [a, a + 1 + b]));
  const chosen = { test: 0, gold: 0, wrong: 0, differ: 0, words: "" };
  const gold = (i) => examples[i][4];
  const given = (i, method) => answers[method].labels[i];
  const wrong = [
    () => true,
    (i) => methods.some((_, m) => given(i, m) !== gold(i)),
    (i) => methods.every((_, m) => given(i, m) !== gold(i)),
    ...methods.map((_, m) => (i) => given(i, m) !== gold(i)),
  ];
  const differ = [
    () => true,
    (i) => methods.some((_, m) => given(i, m) !== given(i, 0)),
    ...pairs.map(
      ([a, b]) =>
        (i) =>
          given(i, a) !== given(i, b),
    ),
  ];
  const lower = data.sentences.map((text) => text.toLowerCase());
  const passes = (i) =>
    (!chosen.test || examples[i][0] === chosen.test - 1) &&
    (!chosen.gold || gold(i) === chosen.gold - 1) &&
    wrong[chosen.wrong](i) &&
    differ[chosen.differ](i) &&
    lower[examples[i][1]].includes(chosen.words);

  const count = make("p", { class: "count", role: "status" });
  const list = make("ol", { class: "rows" });
  const more = make("button", { type: "button", onclick: () => showMore(true) }, "Show more");
  let matches = [];
  const showMore = (moveFocus) => {
    const next = matches.slice(list.children.length, list.children.length + AT_ONCE);
    const rows = next.map((i) => predictionRow(data, i));
    list.append(...rows);
    more.hidden = list.children.length >= matches.length;
    if (moveFocus && rows.length) {
      rows[0].tabIndex = -1;
      rows[0].focus({ preventScroll: true });
    }
  };
  const filter = () => {
    matches = Array.from(examples.keys()).filter(passes);
    const total = data.total.toLocaleString("en");
    const thinned = data.step > 1 ? `; this file has one in ${data.step} of the ${total} in predictions.jsonl` : "";
    const [some, all] = [matches.length, examples.length].map((n) => n.toLocaleString("en"));
    count.textContent = `${some} of ${all} test examples${thinned}`;
    list.replaceChildren();
    showMore(false);
  };
  const set = (key) => (value) => {
    chosen[key] = value;
    filter();
  };
  const several = methods.length > 1;
  const search = make("input", { type: "search", oninput: (event) => set("words")(event.target.value.toLowerCase()) });
  container.append(
    make(
      "div",
      { class: "controls" },
      tests.length > 1 ? picker("test set", ["all", ...tests], set("test")) : "",
      picker("gold label", ["all", ...labels], set("gold")),
      picker("wrong", ["right or wrong", "by any method", "by every method", ...methods], set("wrong")),
      several
        ? picker(
            "disagreement",
            ["agreed or not", "any two methods", ...pairs.map(([a, b]) => `${methods[a]} and ${methods[b]}`)],
            set("differ"),
          )
        : "",
      make("label", {}, "sentence contains", search),
    ),
    make(
      "p",
      { class: "note" },
      ...labels.map((label, k) => make("span", { class: "key" }, make("i", { "--colour": `var(--label-${k})` }), label)),
      "probabilities in this order",
    ),
    count,
    list,
    more,
  );
  filter();
}

function predictionRow(data, i) {
  const { labels } = data;
  const [test, sentence, start, end, gold] = data.examples[i];
  const answers = data.methods.map((method, m) => {
    const label = data.answers[m].labels[i];
    const from = labels.length * i;
    const shares = data.answers[m].thousandths.slice(from, from + labels.length).map((n) => n / 1000);
    const spoken = labels.map((name, k) => `${name} ${shares[k].toFixed(3)}`).join(", ");
    return make(
      "div",
      {},
      make("span", {}, method),
      make(
        "span",
        { class: label === gold ? "right" : "wrong" },
        `${label === gold ? "\u2713" : "\u2717"} ${labels[label]}`,
      ),
      make("span", { "aria-hidden": "true" }, shares.map((share) => share.toFixed(3)).join(" ")),
      make(
        "span",
        { class: "stack", role: "img", "aria-label": spoken },
        ...shares.map((share, k) => make("i", { "--colour": `var(--label-${k})`, "--share": 100 * share })),
      ),
    );
  });
  return make(
    "li",
    {},
    make("p", {}, ...marked(data.sentences[sentence], start, end)),
    make("p", { class: "about" }, "gold ", make("b", {}, labels[gold]), ` · ${data.tests[test]} · ${data.ids[i]}`),
    make("div", { class: "answers" }, ...answers),
  );
}
