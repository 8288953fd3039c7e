"""Average runs that differ only by the seed, and compare their methods.

    absa-edit compare outputs/laptop14/reviewlm
    absa-edit compare outputs --against lora --markdown compare.md --json compare.json
    absa-edit compare outputs/laptop14 --latex compare.tex --csv compare.csv

Finds every results.json below the folders. Runs that differ in anything but the seed get tables of their own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from absa_edit.leaderboard.collect import Group


def main(arguments: Sequence[str], _: Path) -> None:
    parser = argparse.ArgumentParser(
        "absa-edit compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="folders with finished runs somewhere below")
    parser.add_argument("--against", metavar="METHOD", help="method set against all others (edit where there is one)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap and permutation draws")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--latex", type=Path, metavar="FILE")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="the scores, a line for each test set and method")
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(arguments)
    if chosen.resamples < 1:
        parser.error("--resamples: expected 1 or more")
    from absa_edit.leaderboard.collect import compared, read

    try:
        write(compared(read(chosen.folders), chosen.against, chosen.resamples), chosen)
    except OSError as error:
        sys.exit(f"error: {error}")


def write(groups: Sequence[Group], chosen: argparse.Namespace) -> None:
    """Print the tables, and write the files that were asked for."""
    from absa_edit.leaderboard.tables import latex, markdown, scores_csv, show
    from absa_edit.storage import atomic, write_json

    console = Console(width=None if sys.stdout.isatty() else 120)
    for group in groups:
        show(group, console)
    texts = {
        chosen.markdown: (line for group in groups for line in markdown(group)),
        chosen.latex: (line for group in groups for line in latex(group)),
        chosen.csv: scores_csv(groups),
    }
    for path, lines in texts.items():
        if path:
            with atomic(path) as temporary:
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if chosen.json:
        plain = {"resamples": chosen.resamples, "groups": [group_json(group) for group in groups]}
        write_json(plain, chosen.json)


def group_json(group: Group) -> dict[str, Any]:
    """A group as JSON values; `is_own_test` of a line is `own` there."""
    from absa_edit.storage import to_json

    plain: dict[str, Any] = to_json(group)
    lines = [{"own" if key == "is_own_test" else key: value for key, value in line.items()} for line in plain["lines"]]
    return {**plain, "lines": lines}
