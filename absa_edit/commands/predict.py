"""Ask an exported model: about one sentence (and aspect, where its task is about aspects), a file, or a stream.

    absa-edit predict outputs/laptop14/reviewlm/seed0 --sentence "The fan never stops." --aspect fan --explain
    absa-edit predict outputs/laptop14/reviewlm/seed0 --file pairs.csv > answers.jsonl
    head -1000 pairs.jsonl | absa-edit predict outputs/laptop14/reviewlm/seed0 > answers.jsonl

The folder is a run, an adapter, a representation edit or a merged checkpoint. Files are JSON lines, CSV (columns
sentence, aspect; or text, span, ordinal) or SemEval XML, with or without labels. Each row comes back as one JSON
object a line: the row as it was, `predicted`, and `probabilities` of the labels. --explain shows which
tokens and layers carried one answer: how much of it comes back when noise has drowned the sentence and the
model's own state after that layer at that token is put back.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from io import BufferedIOBase, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from absa_edit.errors import DataError, ModelError

if TYPE_CHECKING:
    from absa_edit import Classifier
    from absa_edit.data.readers.unlabelled import Pair
    from absa_edit.records import Example

Ask = Callable[[Sequence["Example"]], list[dict[str, float]]]
"""What gives the labels' probabilities for each example."""
TOGETHER = 1024
"""Pairs that are read, sorted by length and answered before their answers are written."""


def main(arguments: Sequence[str], _: Path) -> None:
    parser = argparse.ArgumentParser(
        "absa-edit predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="run folder, adapter or merged checkpoint")
    parser.add_argument("--sentence")
    parser.add_argument("--aspect", help="as it is written in the sentence, where the model is asked about aspects")
    parser.add_argument("--explain", action="store_true", help="of one pair, draw what carried the answer")
    parser.add_argument("--file", help="JSON lines, CSV or SemEval XML; - or nothing at all is standard input")
    parser.add_argument("--format", choices=["jsonl", "csv", "xml"], help="default: the file's suffix, else jsonl")
    parser.add_argument("--base", help="base model, where it is not the one that the adapter names")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--fitted-temperature", action="store_true", help="probabilities as they fit the development data best"
    )
    parser.add_argument("--batch-tokens", type=int, help="tokens in a batch, padding included (default: by device)")
    chosen = parser.parse_args(arguments)
    single_pair = chosen.sentence is not None or chosen.aspect is not None
    if single_pair and (chosen.file or not chosen.sentence or chosen.aspect == ""):
        parser.error("give --sentence (and --aspect), or --file")
    if chosen.explain and not single_pair:
        parser.error("--explain goes with --sentence (and --aspect)")
    (answer_one if single_pair else answer_many)(chosen)


def load(chosen: argparse.Namespace) -> Classifier:
    from transformers.utils.logging import disable_progress_bar  # torch takes seconds: a typo should not wait for it

    import absa_edit

    disable_progress_bar()
    return absa_edit.load(chosen.folder, device=chosen.device, base=chosen.base)


def answer_one(chosen: argparse.Namespace) -> None:
    classifier, console = load(chosen), Console(highlight=False)
    if (chosen.aspect is None) == classifier.task.asks_aspect:
        raise DataError(
            f"{chosen.folder} is asked about aspects: give --aspect too, as it is written in the sentence"
            if classifier.task.asks_aspect
            else f"{chosen.folder} is asked about whole sentences: leave out --aspect"
        )
    (probabilities,) = classifier.predict(
        [chosen.sentence], chosen.aspect and [chosen.aspect], fitted_temperature=chosen.fitted_temperature
    )
    console.print(bars(chosen.aspect or chosen.sentence, probabilities))
    if chosen.explain:
        explain_one(classifier, chosen, console)


def explain_one(classifier: Classifier, chosen: argparse.Namespace, console: Console) -> None:
    from absa_edit.inference.classifier import example
    from absa_edit.inference.explain import explain
    from absa_edit.records import Example
    from absa_edit.report.token_grid import token_grid

    sentence, aspect = chosen.sentence, chosen.aspect
    single_example = (
        example(sentence, aspect, "pair") if aspect else Example("pair", "pair", sentence, "", 0, 0, "", "")
    )
    with console.status("tracing"):
        explanation = explain(classifier, single_example)
    total = explanation.clean - explanation.corrupted
    console.print(
        f"p({explanation.answer}) is {explanation.clean:.3f}, with noise on the sentence {explanation.corrupted:.3f}. "
        "Put back after a layer (across), at a token (down), the model's own state brings back:"
    )
    console.print(token_grid(explanation.tokens, explanation.effects, full=max(abs(total), 0.01)))
    if total < 0.05:
        console.print(Text("The noise hardly changes this answer: the grid says little.", style="yellow"))


def answer_many(chosen: argparse.Namespace) -> None:
    path = None if chosen.file in (None, "-") else Path(chosen.file)
    if path is None and (sys.stdin is None or sys.stdin.isatty()):
        raise DataError("nothing to answer: give --sentence (and --aspect), --file, or pipe JSON lines in")
    if path and (path.is_dir() or not path.exists()):
        raise DataError(f"{path}: no such file; expected JSON lines, CSV or SemEval XML")
    kind = chosen.format or (path and path.suffix.lstrip(".").lower()) or "jsonl"
    from absa_edit.data.readers.unlabelled import pairs
    from absa_edit.report.terminal import bar

    logging.basicConfig(format="%(message)s")
    logging.getLogger("absa_edit").setLevel(logging.INFO)  # how far it is
    if isinstance(sys.stdout, TextIOWrapper):  # half a character in a row stays what it was: JSON's escape is Python's
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    with path.open("rb") if path else nullcontext(sys.stdin.buffer) as file:
        classifier, origin = load(chosen), str(path or "standard input")
        all_pairs = pairs(cast(BufferedIOBase, file), "jsonl" if kind == "json" else kind, origin, classifier.task)
        ask = partial(classifier.answer, fitted_temperature=chosen.fitted_temperature, batch_tokens=chosen.batch_tokens)
        count = write(ask, bar(all_pairs, "pairs", unit="pair"))
    if not count:
        aspect = " and aspect" if classifier.task.asks_aspect else ""
        raise DataError(f"{origin}: no pairs in it; expected rows with sentence{aspect}")


def write(ask: Ask, pairs: Iterable[Pair]) -> int:
    """Answer pairs in the order they come, one JSON object a line; their number."""
    count = 0
    for some, error in chunks(pairs):
        for pair, p in answered(ask, some):
            row = {**pair.row, "predicted": max(p, key=p.__getitem__), "probabilities": p}
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        count += len(some)
        if error:
            raise error
    return count


def chunks(pairs: Iterable[Pair]) -> Iterator[tuple[list[Pair], DataError | None]]:
    """`TOGETHER` pairs at a time; with the last ones the error that ended the reading, if one did."""
    some: list[Pair] = []
    try:
        for pair in pairs:
            some.append(pair)
            if len(some) == TOGETHER:
                yield some, None
                some = []
    except DataError as error:
        yield some, error
    else:
        yield some, None


def answered(ask: Ask, some: list[Pair]) -> Iterator[tuple[Pair, dict[str, float]]]:
    """Each pair with its probabilities; one that cannot be asked is an error only after those before it."""
    try:
        answers = ask([pair.example for pair in some])
    except ModelError:
        if len(some) == 1:
            raise
        half = len(some) // 2
        yield from answered(ask, some[:half])
        yield from answered(ask, some[half:])
    else:
        yield from zip(some, answers, strict=True)


def bars(aspect: str, probabilities: dict[str, float]) -> Table:
    table = Table(title=Text(repr(aspect)), show_header=False, title_justify="left")
    best = max(probabilities, key=probabilities.__getitem__)
    for label, p in probabilities.items():
        table.add_row(label, f"{p:.3f}", "█" * round(30 * p), style="bold" if label == best else "")
    return table
