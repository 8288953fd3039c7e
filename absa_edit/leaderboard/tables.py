"""Tables of runs over seeds, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from absa_edit.leaderboard.collect import Group
from absa_edit.report import formatting
from absa_edit.report.tables import METRICS
from absa_edit.table import pipe_table


def show(one: Group, console: Console) -> None:
    """Print a group: scores, then differences."""
    console.print(Text(_title(one), style="bold"))
    for note in _about(one):
        console.print(Text(note, style="dim"))
    for heads, cells in (_score_cells(one), _comparison_cells(one)):
        if not cells:
            continue
        table = Table(box=box.SIMPLE_HEAD, border_style="dim", pad_edge=False)
        for head in heads:
            table.add_column(head, overflow="fold")
        for before, row in zip([cells[0], *cells], cells, strict=False):
            if row[0] != before[0]:
                table.add_section()
            table.add_row(*map(Text, row))
        console.print(table)


def markdown(one: Group) -> Iterator[str]:
    """The lines of a group as Markdown."""
    yield from (f"## {_title(one)}", "")
    for note in _about(one):
        yield from (note, "")
    for heads, cells in (_score_cells(one), _comparison_cells(one)):
        if cells:
            yield from (*pipe_table(heads, cells), "")


def _title(one: Group) -> str:
    told = f"seed {one.seeds[0]}" if len(one.seeds) == 1 else f"seeds {', '.join(map(str, one.seeds))}"
    return f"{one.experiment} · {one.model} · {told}"


def _about(one: Group) -> list[str]:
    """What the figures are, in a few sentences."""
    notes = [one.warning] if one.warning else []
    if one.differs:
        notes.append(f"Not averaged with other runs of this experiment and model: {'; '.join(one.differs)}.")
    if len(one.seeds) == 1:
        notes.append("One seed: percent with plain 95 % intervals over sentences; the luck of the seed is not in them.")
    else:
        notes.append(
            "Percent, mean over seeds, with 95 % intervals that resample seeds, then sentences (sentences only where "
            f"a row has one seed). Resampling {len(one.seeds)} seeds shows {100 - 100 // len(one.seeds)} % of the "
            "variance between seeds."
        )
    if any(line.own for line in one.lines) and not all(line.own for line in one.lines):
        notes.append("Own: the test set of the training data; the others are other sets, of its domain or of others.")
    if one.comparisons:
        notes.append(
            "Differences in points; p by permutation of sentences, swapped alike in all seeds; corrected by "
            "Benjamini-Hochberg over this table; * where that is below 0.05 and the interval leaves out 0."
        )
    return notes


def _score_cells(one: Group) -> tuple[list[str], list[list[str]]]:
    heads = ["test set", "method", *METRICS.values(), "seeds", "n", "trainable", "mean fit"]
    rows = []
    for line in one.lines:
        few, many = min(line.trainable), max(line.trainable)
        rows.append(
            [
                f"{line.test} (own)" if line.own else line.test,
                line.method,
                line.score.accuracy.percent(),
                line.score.macro_f1.percent(),
                str(len(line.score.seeds)),
                f"{line.score.macro_f1.n:,}",
                f"{few:,}" if few == many else f"{few:,}-{many:,}",
                "-" if line.fit_seconds is None else formatting.duration(line.fit_seconds),
            ]
        )
    return heads, rows


def _comparison_cells(one: Group) -> tuple[list[str], list[list[str]]]:
    heads = ["test set", "a - b", "metric", "difference", "p", "p corrected", "seeds", "n"]
    order = list(dict.fromkeys(line.test for line in one.lines))
    rows = []
    for c in sorted(one.comparisons, key=lambda c: order.index(c.test)):
        told = c.p_corrected < 0.05 and not c.low <= 0 <= c.high
        rows.append(
            [
                c.test,
                f"{c.a} - {c.b}",
                METRICS[c.metric],  # type: ignore[index]
                f"{formatting.points(c.difference)} {formatting.between(c.low, c.high)}",
                f"{c.p:.4f}",
                f"{c.p_corrected:.4f}{' *' * told}",
                str(len(c.seeds)),
                f"{c.n:,}",
            ]
        )
    return heads, rows
