"""Print the data card of a set in Markdown: counts, classes, lengths, licence, leaks, duplicates, difficulty.

    python scripts/data_card.py laptop14
    python scripts/data_card.py laptop-sample --run outputs/laptop-sample/reviewlm/seed0

Difficulty is what a bag of words reaches (scikit-learn's CountVectorizer of sentence and aspect, logistic
regression with its default settings, fitted on the training file), and with --run what the methods of that
run reached on the set.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from absa_edit.data.card import data_card
from absa_edit.data.settings import DataSettings
from absa_edit.data.sources import load_pair
from absa_edit.errors import AbsaEditError, DataError
from absa_edit.records import Dataset
from absa_edit.results import RunRecord
from absa_edit.storage import load
from absa_edit.table import pipe_table

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a set known by name, such as laptop14, me_absc_rest, laptop-sample")
    parser.add_argument("--path", help="data folder (default: $ABSA_EDIT_DATA, data/, the hub)")
    parser.add_argument("--run", type=Path, help="run folder whose scores on the set are added")
    arguments = parser.parse_args()
    try:
        settings = DataSettings(name=arguments.name, path=arguments.path)
        train, test = load_pair(settings, root=ROOT, environ=os.environ)
        rows = [bag_of_words(train, test), *(scores(arguments.run, test.name) if arguments.run else ())]
    except AbsaEditError as error:
        sys.exit(f"error: {error}")
    print(data_card(train, test))
    print("\nDifficulty: scores on n aspects of the test split, in percent\n")
    print("\n".join(pipe_table(("", "n", "accuracy", "macro-F1"), rows)))


def bag_of_words(train: Dataset, test: Dataset) -> tuple[str, str, str, str]:
    """The row of a classifier that sees which words there are and nothing else."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score

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


if __name__ == "__main__":
    main()
