"""Ask an exported model for the sentiment of an aspect.

    python scripts/predict.py outputs/laptop14/reviewlm/seed0 --sentence "The fan never stops." --aspect fan
    python scripts/predict.py outputs/laptop14/reviewlm/seed0 --file pairs.jsonl > answers.jsonl

A file has one JSON object a line, with `sentence` and `aspect`; each comes back with `polarity` and `probabilities`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from absa_edit.errors import AbsaEditError, DataError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="run folder, exported adapter or merged checkpoint")
    parser.add_argument("--sentence")
    parser.add_argument("--aspect", help="as it is written in the sentence")
    parser.add_argument("--file", type=Path, help="JSON lines with sentence and aspect")
    parser.add_argument("--base", help="base model, where it is not the one that the adapter names")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    one = arguments.sentence is not None or arguments.aspect is not None
    if bool(arguments.file) == one or (one and not (arguments.sentence and arguments.aspect)):
        parser.error("give --sentence and --aspect, or --file")
    try:
        answer(arguments)
    except AbsaEditError as error:
        sys.exit(f"error: {error}")


def answer(arguments: argparse.Namespace) -> None:
    pairs = list(read(arguments.file)) if arguments.file else [(arguments.sentence, arguments.aspect)]
    if not pairs:
        raise DataError(f"{arguments.file}: no pairs in it; expected JSON lines with sentence and aspect")
    from absa_edit import load  # after the arguments are known to be right: torch takes seconds

    classifier = load(arguments.folder, device=arguments.device, base=arguments.base)
    probabilities = classifier.predict(*map(list, zip(*pairs, strict=True)))
    if not arguments.file:
        print_one(pairs[0], probabilities[0])
        return
    for (sentence, aspect), p in zip(pairs, probabilities, strict=True):
        row = {"sentence": sentence, "aspect": aspect, "polarity": max(p, key=p.__getitem__), "probabilities": p}
        print(json.dumps(row, ensure_ascii=False))


def read(path: Path) -> Iterator[tuple[str, str]]:
    """The (sentence, aspect) pairs of a JSON lines file."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected JSON lines with sentence and aspect")
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            pair = (row["sentence"], row["aspect"])
            if not all(isinstance(one, str) for one in pair):
                raise TypeError
            yield pair
        except (json.JSONDecodeError, KeyError, TypeError):
            raise DataError(
                f"{path}, line {number}: expected a JSON object with sentence and aspect, found {line[:80]!r}"
            ) from None


def print_one(pair: tuple[str, str], probabilities: dict[str, float]) -> None:
    table = Table(title=f"{pair[1]!r}", show_header=False, title_justify="left")
    best = max(probabilities, key=probabilities.__getitem__)
    for label, p in probabilities.items():
        style = "bold" if label == best else ""
        table.add_row(label, f"{p:.3f}", "█" * round(30 * p), style=style)
    Console().print(table)


if __name__ == "__main__":
    main()
