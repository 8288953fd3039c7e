"""Fetch public data sets, counted and checked, or print the card of one.

    absa-edit data fetch laptop14 restaurant14                       # from the hub, into data/
    absa-edit data fetch mams                                        # from its authors' site
    absa-edit data fetch laptop14 --from Train_v2.zip Gold_Test.zip  # from what you downloaded
    absa-edit data fetch me_absc_device --from ME-ABSC/data --out ~/absa
    absa-edit data card laptop14
    absa-edit data card laptop-sample --run outputs/laptop-sample/reviewlm/seed0

Runs find the sets in data/ by themselves; for another folder set data.path or ABSA_EDIT_DATA. A card tells counts,
classes, lengths, licence, leaks, duplicates and difficulty: what a bag of words reaches (scikit-learn's CountVectorizer
of sentence and aspect, logistic regression with its default settings, fitted on the training file), and with --run what
the methods of that run reached on the set.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absa_edit.data.public_sets import PUBLIC, public_set
from absa_edit.data.settings import DataSettings
from absa_edit.errors import DataError
from absa_edit.records import Dataset
from absa_edit.results import RunRecord
from absa_edit.storage import load
from absa_edit.table import pipe_table


def main(arguments: Sequence[str], root: Path) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("absa-edit data", description=__doc__, formatter_class=raw)
    actions = parser.add_subparsers(metavar="fetch|card", required=True)
    fetching = actions.add_parser("fetch", help="bring sets into a data folder")
    fetching.add_argument("names", nargs="+", metavar="name", help=", ".join(PUBLIC))
    fetching.add_argument("--from", nargs="+", type=Path, default=[], dest="sources", help="folders or zip files")
    fetching.add_argument("--out", type=Path, default=root / "data", help="data folder (default: data/)")
    fetching.set_defaults(act=fetch_sets)
    card = actions.add_parser("card", help="print the card of a set, in Markdown")
    card.add_argument("name", help="a set known by name, such as laptop14, me_absc_rest, laptop-sample")
    card.add_argument("--path", help="data folder (default: $ABSA_EDIT_DATA, data/, the hub)")
    card.add_argument("--run", type=Path, help="run folder whose scores on the set are added")
    card.set_defaults(act=print_card)
    chosen = parser.parse_args(arguments)
    act: Callable[[argparse.Namespace, Path], None] = chosen.act
    act(chosen, root)


def fetch_sets(chosen: argparse.Namespace, _: Path) -> None:
    from absa_edit.data.fetch import fetch

    for public in [public_set(name, "name") for name in chosen.names]:
        for file in fetch(public, chosen.out.expanduser(), chosen.sources):
            positive, negative, neutral = file.counts
            counts = f"{sum(file.counts)} aspects, {positive} positive, {negative} negative, {neutral} neutral"
            sys.stdout.write(f"{file.path}: {counts}; sha256 {file.sha256}; from {file.origin}\n")
            if file.known is False:
                sys.stdout.write("  counts are right; the bytes differ from the copy that was tested with\n")
        sys.stdout.write(f"licence of {public.name}: {public.licence}\n")


def print_card(chosen: argparse.Namespace, root: Path) -> None:
    from absa_edit.data.card import data_card
    from absa_edit.data.sources import load_pair

    settings = DataSettings(name=chosen.name, path=chosen.path)
    train, test = load_pair(settings, root=root, environ=os.environ)
    rows = [bag_of_words(train, test), *(scores(chosen.run, test.name) if chosen.run else ())]
    lines = [
        data_card(train, test),
        "\nDifficulty: scores on n aspects of the test split, in percent\n",
        *pipe_table(("", "n", "accuracy", "macro-F1"), rows),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def bag_of_words(train: Dataset, test: Dataset) -> tuple[str, str, str, str]:
    """The row of a classifier that sees which words there are and nothing else."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import accuracy_score, f1_score
    except ImportError:
        raise DataError("a data card needs scikit-learn, which is not installed: `pip install scikit-learn`") from None

    words = CountVectorizer()
    counts = words.fit_transform(f"{e.text} {e.aspect}" for e in train.examples)
    model = LogisticRegression(max_iter=2000).fit(counts, [e.label for e in train.examples])
    guess = model.predict(words.transform(f"{e.text} {e.aspect}" for e in test.examples))
    gold = [e.label for e in test.examples]
    f1 = f1_score(gold, guess, labels=list(train.labels), average="macro", zero_division=0)  # as everywhere else here
    return "bag of words", f"{len(gold):,}", f"{100 * accuracy_score(gold, guess):.1f}", f"{100 * f1:.1f}"


def scores(folder: Path, test: str) -> Iterator[tuple[str, str, str, str]]:
    """A row for each method of a run, with 95 % intervals."""
    path = folder / "results.json"
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the folder of a finished run")
    record = load(RunRecord, path)
    if f"test/{test}" not in record.data:
        raise DataError(f"{path} has no scores on {test}; it has {', '.join(record.data)}")
    for name, method in record.methods.items():
        score = method.scores[test]
        both = (f"{score.accuracy.n:,}", score.accuracy.percent(), score.macro_f1.percent())
        yield (f"{record.model.name}, {name}, seed {record.seed}", *both)
