"""Tables of runs over seeds, for the terminal, as Markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from absa_edit.leaderboard.collect import Group
from absa_edit.report import formatting
from absa_edit.report.lookup import METRICS, differs_significantly
from absa_edit.report.terminal import rich_table
from absa_edit.results import Comparison, Interval, Pooled
from absa_edit.table import Table, csv_lines, pipe_table
from absa_edit.table import latex as table_latex


def show(group: Group, console: Console) -> None:
    """Print a group: scores, then differences."""
    console.print(Text(_title(group), style="bold"))
    for note in _about(group):
        console.print(Text(note, style="dim"))
    for table in _tables(group):
        console.print(rich_table(table))


def markdown(group: Group) -> Iterator[str]:
    """The lines of a group as Markdown."""
    yield from (f"## {_title(group)}", "")
    for note in _about(group):
        yield from (note, "")
    for table in _tables(group):
        yield from (*pipe_table(table.heads, table.rows), "")


def latex(group: Group) -> Iterator[str]:
    """The lines of a group's tables for LaTeX."""
    for table in _tables(group):
        yield from table_latex(table, " ".join([f"{_title(group)}.", *_about(group)]))


def scores_csv(groups: Iterable[Group]) -> Iterator[str]:
    """A line for each group, test set and method; shares from 0 to 1, log-loss in nats."""
    yield from csv_lines([SCORE_HEADS])
    for group in groups:
        about = group.experiment, group.model, " ".join(map(str, group.seeds))
        for line in group.lines:
            intervals: list[Interval] = [getattr(line.score, metric) for metric in METRICS]
            figures = (f"{figure:.6g}" for i in intervals for figure in (i.value, i.low, i.high))
            row = (*about, line.test, line.is_own_test, line.method, line.score.macro_f1.n, max(line.trainable))
            yield from csv_lines([(*row, *figures)])


FIGURES = (f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high"))
SCORE_HEADS = ("experiment", "model", "seeds", "test", "own", "method", "n", "trainable", *FIGURES)
"""The columns of `scores_csv`."""


def _tables(group: Group) -> list[Table]:
    return [table for table in (score_table(group), pooled_table(group), comparison_table(group)) if table.rows]


def _title(group: Group) -> str:
    seeds = f"seed {group.seeds[0]}" if len(group.seeds) == 1 else f"seeds {', '.join(map(str, group.seeds))}"
    return f"{group.experiment} · {group.model} · {seeds}"


def _about(group: Group) -> list[str]:
    """What the figures are, in a few sentences."""
    notes = [group.warning] if group.warning else []
    if group.differs:
        notes.append(f"Not averaged with other runs of this experiment and model: {'; '.join(group.differs)}.")
    if len(group.seeds) == 1:
        notes.append(
            "One seed: percent (log-loss in nats) with plain 95 % intervals over sentences; "
            "the luck of the seed is not in them."
        )
    else:
        notes.append(
            "Percent (log-loss in nats), mean over seeds, with 95 % intervals that resample seeds, then sentences "
            f"(sentences only where a row has one seed). Resampling {len(group.seeds)} seeds shows "
            f"{100 - 100 // len(group.seeds)} % of the variance between seeds."
        )
    if any(line.is_own_test for line in group.lines) and not all(line.is_own_test for line in group.lines):
        notes.append("Own: the test set of the training data; the others are other sets, of its domain or of others.")
    if group.comparisons:
        notes.append(
            "Differences in points (log-loss, where lower is better, in nats); p by permutation of sentences, swapped "
            "alike in all seeds; corrected by Benjamini-Hochberg over a table's rows of one metric on test sets of one "
            "standing; * where that is below 0.05 and the interval leaves out 0."
        )
    return notes


def score_table(group: Group) -> Table:
    """A row for each test set and method, with what was trained."""
    heads = ("test set", "method", *METRICS.values(), "seeds", "n", "trainable", "mean fit")
    rows = []
    for line in group.lines:
        few, many = min(line.trainable), max(line.trainable)
        rows.append(
            (
                f"{line.test} (own)" if line.is_own_test else line.test,
                line.method,
                *(formatting.score(metric, getattr(line.score, metric)) for metric in METRICS),
                str(len(line.score.seeds)),
                f"{line.score.macro_f1.n:,}",
                f"{few:,}" if few == many else f"{few:,}-{many:,}",
                "-" if line.fit_seconds is None else formatting.duration(line.fit_seconds),
            )
        )
    return Table(heads, tuple(rows))


def comparison_table(group: Group) -> Table:
    """Each paired difference, by test set."""
    heads = ("test set", "a - b", "metric", "difference", "p", "p corrected", "seeds", "n")
    order = list(dict.fromkeys(line.test for line in group.lines))
    rows = []
    for c in sorted(group.comparisons, key=lambda c: order.index(c.test)):
        rows.append((c.test, f"{c.a} - {c.b}", *_difference(c), str(len(c.seeds)), f"{c.n:,}"))
    return Table(heads, tuple(rows))


def pooled_table(group: Group) -> Table:
    """Each paired difference over all test sets of a question, where one has several."""
    heads = ("test sets", "a - b", "metric", "difference", "p", "p corrected", "n")
    several = any(len(p.tests) > 1 for p in group.pooled)
    rows = (
        (f"{p.question} ({', '.join(p.tests)})", f"{p.a} - {p.b}", *_difference(p), f"{p.n:,}")
        for p in group.pooled
        if several
    )
    return Table(heads, tuple(rows))


def _difference(c: Comparison | Pooled) -> tuple[str, ...]:
    """Metric, difference with its interval, and both p-values, marked where all say that there is one."""
    significant = differs_significantly(c) and not c.low <= 0 <= c.high
    return (
        METRICS[c.metric],  # type: ignore[index]
        f"{formatting.change(c.metric, c.difference)} {formatting.changes(c.metric, c.low, c.high)}",
        f"{c.p:.4f}",
        f"{c.p_corrected:.4f}{' *' * significant}",
    )
