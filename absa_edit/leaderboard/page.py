"""The page of a benchmark: tables as Markdown, CSV and LaTeX, and figures, all made of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from absa_edit.leaderboard.benchmark import Benchmark
from absa_edit.leaderboard.pooled import VALUES, Contrast, Pool, Scope
from absa_edit.leaderboard.rows import Results, Row
from absa_edit.report import formatting
from absa_edit.report.lookup import LEVEL, METRICS
from absa_edit.report.plots.benchmark import BenchmarkPoint, Panel, learning_by_size, score_against
from absa_edit.report.plots.heatmap import trace_heatmap
from absa_edit.storage import atomic
from absa_edit.table import Table, csv_lines, latex, markdown

DRAWS = 2000
WRITTEN: dict[str, str] = {str(name): text for name, text in METRICS.items()}


def write_page(results: Results, benchmark: Benchmark, *, draws: int = DRAWS) -> list[Path]:
    """Write `<name>.md`, `<name>.csv`, `<name>.tex` and the figures beside the results; the paths of all."""
    folder, name = results.path.parent, benchmark.name
    groups = list(_groups(results, benchmark, draws))
    lines, tables = _opening(results, benchmark), []
    written = []
    for group in groups:
        lines += ["", f"## {group.title}", ""]
        for table in group.tables(benchmark):
            tables.append((f"{group.title}: {table.caption}", table))
            lines += [*markdown(table), ""]
        for path in (*group.figures(results.folder), *group.heatmaps(results)):
            written.append(path)
            lines.append(f"![{group.title}]({path.relative_to(folder).as_posix()})")
        lines += group.traces()
    for model in benchmark.models:
        of_model = [group for group in groups if group.model == model]
        if len(of_model) > 1:
            written.append(_curves(of_model, results.folder))
            lines += ["", f"![{model} by number of examples]({written[-1].relative_to(folder).as_posix()})"]
    texts = {
        ".md": "\n".join(lines).rstrip() + "\n",
        ".csv": "\n".join(_csv(groups)) + "\n",
        ".tex": "\n".join(line for caption, table in tables for line in latex(table, caption)) + "\n",
    }
    for suffix, text in texts.items():
        written.append(folder / f"{name}{suffix}")
        with atomic(written[-1]) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return written


class Group:
    """The runs on one model with one number of training examples."""

    def __init__(self, model: str, size: int | str, rows: Sequence[Row], pool: Pool) -> None:
        self.model, self.size, self.rows, self.pool = model, size, rows, pool
        self.title = f"{model}, {'all training examples' if size == 'all' else f'{size} training examples'}"
        self.arms = list(dict.fromkeys(row.arm for row in rows))
        self.scores = {
            (arm, scope, metric): score
            for arm in self.arms
            for scope in Scope
            for metric in VALUES
            if (score := pool.score(arm, scope, metric))
        }

    def tables(self, benchmark: Benchmark) -> Iterator[Table]:
        """Scores with costs, then the contrasts, where there are some."""
        yield self._score_table()
        contrasts = self.pool.contrasts(benchmark.contrasts)
        if contrasts:
            yield _contrast_table(contrasts)

    def figures(self, folder: Path) -> Iterator[Path]:
        """Macro-F1 against each cost, in domain and out of it."""
        points = {
            (scope, cost): tuple(point for arm in self.arms if (point := self._point(arm, scope, cost)))
            for scope in Scope
            for cost in COSTS
        }
        scopes = [scope for scope in Scope if any(points[scope, cost] for cost in COSTS)]
        costs = [cost for cost in COSTS if all(points[scope, cost] for scope in scopes)]
        if scopes and costs:
            path = folder / f"{self.model}-{self.size}.png"
            rows = [[Panel(str(s), COSTS[c], "macro-F1 (%)", points[s, c]) for c in costs] for s in scopes]
            score_against(rows, path, title=self.title)
            yield path

    def heatmaps(self, results: Results) -> Iterator[Path]:
        """The averaged trace of the first seed, for each training set."""
        drawn = set()
        for row in self.rows:
            if row.effects and row.method and row.train not in drawn:
                drawn.add(row.train)
                path = results.folder / f"{self.model}-{self.size}-{row.train}-trace.png"
                name = f"{self.model} ({'adapted' if row.adaptation and row.adaptation.adapted else 'base'})"
                effects, plan = results.effects(row.effects), row.method.plan
                trace_heatmap(effects, path, model=name, data=row.trained_on, plan=plan, trace=row.trace)
                yield path

    def of(self, arm: str) -> list[Row]:
        return [row for row in self.rows if row.arm == arm]

    def traces(self) -> Iterator[str]:
        """Where the traces of each seed peak, once a training set."""
        seen = set()
        for row in self.rows:
            if row.trace is None or (row.train, row.seed) in seen or row.method is None or row.method.plan is None:
                continue
            seen.add((row.train, row.seed))
            trace, peak, layers = row.trace, row.trace.peak, row.method.plan.layers()
            which = "adapted" if row.adaptation and row.adaptation.adapted else "base"
            depths = "; ".join(
                f"{part} peak at {depth.peak_layer.percent()} % of the depth" for part, depth in trace.depth.items()
            )
            yield (
                f"- {row.train}, seed {row.seed}: {which} model traced, {trace.counts.kept} of {trace.counts.seen} "
                f"examples kept, total effect {trace.total_effect.percent()} points; peak {peak.part.value}, layer "
                f"{peak.layer}, `{peak.role.value}`, {peak.effect.percent()} points; {depths}. Plan: layers "
                f"{min(layers)} to {max(layers)}."
            )

    def _score_table(self) -> Table:
        names = [f"{scope}, {WRITTEN[metric]}" for scope in Scope for metric in VALUES]
        heads = ("method", "trains", "share", "rate", "fit", *names, "perplexity", "runs")
        rows = []
        for arm in self.arms:
            methods = [row.method for row in self.of(arm) if row.method]
            cells = [
                formatting.score(metric, pooled.score) if (pooled := self.scores.get((arm, scope, metric))) else "-"
                for scope in Scope
                for metric in VALUES
            ]
            seconds = [m.fit.seconds for m in methods if m.fit]
            perplexities = [value for row in self.of(arm) if (value := _cost(row, "perplexity"))]
            rows.append(
                (
                    arm,
                    formatting.short(max(m.trainable for m in methods)),
                    formatting.percent(max(m.share for m in methods)),
                    ", ".join(sorted({f"{m.lr:g}" for m in methods if m.lr})) or "-",
                    formatting.duration(float(np.mean(seconds))) if seconds else "-",
                    *cells,
                    f"{np.mean(perplexities):.1f}" if perplexities else "-",
                    str(len(methods)),
                )
            )
        caption = (
            "Scores by method; log-loss in nats (lower is better), the others in percent; 95 % intervals over "
            "sentences and seeds; fit and perplexity on neutral text are means over runs."
        )
        return Table(heads, tuple(rows), caption)

    def _point(self, arm: str, scope: Scope, cost: str) -> BenchmarkPoint | None:
        score = self.scores.get((arm, scope, "macro_f1"))
        values = [value for row in self.of(arm) if (value := _cost(row, cost))]
        return BenchmarkPoint(arm, float(np.mean(values)), score.score) if score and values else None


COSTS = {
    "parameters": "trainable parameters",
    "seconds": "seconds of the fit",
    "perplexity": "perplexity on neutral text",
}
"""What macro-F1 is drawn against, and how the axis is called."""


def _cost(row: Row, cost: str) -> float | None:
    if row.method is None:
        return None
    fit, retention = row.method.fit, row.method.retention
    return {
        "parameters": float(row.method.trainable),
        "seconds": fit.seconds if fit else None,
        "perplexity": retention.perplexity.value if retention and retention.perplexity else None,
    }[cost]


def _groups(results: Results, benchmark: Benchmark, draws: int) -> Iterator[Group]:
    for model in benchmark.models:
        for size in benchmark.sizes:
            rows = [
                row
                for row in results.rows.values()
                if (row.model, row.size, row.tuning) == (model, size, False) and row.arm in benchmark.arms
            ]
            order = list(benchmark.arms)
            scored = sorted((row for row in rows if row.answers), key=lambda r: (order.index(r.arm), r.train, r.seed))
            if scored:
                yield Group(model, size, scored, Pool(results, scored, draws=draws))


def _opening(results: Results, benchmark: Benchmark) -> list[str]:
    rows = list(results.rows.values())
    scored, failed = [row for row in rows if row.answers], [row for row in rows if row.failed]
    machines = sorted({" ".join(row.meta_info.system_info.values()) for row in scored if row.meta_info})
    lines = [
        f"# {benchmark.name}",
        "",
        f"Written by `absa-edit benchmark benchmarks/{benchmark.name}.yaml --collect` from {len(scored)} scored runs; "
        f"`{benchmark.name}.json` has a row for each, with costs, development scores by epoch, plans and traces. "
        f"Machines: {'; '.join(machines) or 'none yet'}.",
    ]
    if benchmark.tuning:
        tuning = benchmark.tuning
        lines += [
            "",
            f"Learning rates: of {', '.join(f'{rate:g}' for rate in tuning.rates)}, the lowest development log-loss on "
            f"{tuning.train} ({tuning.size} examples, seed {tuning.seed}), by model and method.",
        ]
    if failed:
        lines += ["", "Runs that ended with an error:", ""]
        lines += [f"- {row.model}, {row.job.name}, seed {row.seed}: {row.run_info.error_msg}" for row in failed]
    return lines


def _contrast_table(contrasts: Iterable[Contrast]) -> Table:
    heads = ("question", "a - b", "where", "metric", "difference", "p", "p corrected", "pairs", "seeds")
    rows = []
    for c in contrasts:
        d = c.difference
        significant = c.p_corrected < LEVEL and not d.low <= 0 <= d.high
        rows.append(
            (
                c.question,
                f"{c.a} - {c.b}",
                str(c.scope),
                WRITTEN[c.metric],
                f"{formatting.change(c.metric, d.value)} {formatting.changes(c.metric, d.low, d.high)}",
                f"{c.p:.4f}",
                f"{c.p_corrected:.4f}{' *' * significant}",
                str(c.pairs),
                str(c.seeds),
            )
        )
    caption = (
        "Contrasts that the benchmark names: mean differences over pairs of training and test set; p by permutation of "
        "sentences within test sets, corrected within each question; * where that is below 0.05 and the interval "
        "leaves out 0."
    )
    return Table(heads, tuple(rows), caption)


def _curves(groups: Sequence[Group], folder: Path) -> Path:
    """Macro-F1 in domain by number of training examples."""
    lines: dict[str, list[BenchmarkPoint]] = {}
    for group in groups:
        for arm in group.arms:
            if score := group.scores.get((arm, Scope.inside, "macro_f1")):
                counts = [r.meta_info.dataset_info["train"]["n"] for r in group.of(arm) if r.meta_info]
                lines.setdefault(arm, []).append(BenchmarkPoint(arm, float(np.mean(counts)), score.score))
    path = folder / f"{groups[0].model}-sizes.png"
    learning_by_size(lines, path, title=f"{groups[0].model} by number of training examples")
    return path


def _csv(groups: Iterable[Group]) -> Iterator[str]:
    """One line a group, arm, scope and metric."""
    yield from csv_lines([("model", "size", "arm", "scope", "metric", "value", "low", "high", "n", "pairs", "seeds")])
    for group in groups:
        for (arm, scope, metric), pooled in group.scores.items():
            s = pooled.score
            figures = (f"{s.value:.6g}", f"{s.low:.6g}", f"{s.high:.6g}", s.n, pooled.pairs, pooled.seeds)
            yield from csv_lines([(group.model, group.size, arm, scope, metric, *figures)])
