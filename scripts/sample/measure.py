"""Print the figures of the sample's data card.

    python scripts/sample/measure.py [--folder absa_edit/assets/sample] [--domains laptop ...]

Counts, sentence lengths, the share of sentences with mixed polarity, the accuracy of a bag-of-words
logistic regression (trained on the training file), and of `reviewlm` without any training.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import NamedTuple
from xml.etree import ElementTree

LABELS = ("positive", "negative", "neutral")
ASSETS = Path(__file__).resolve().parents[2] / "absa_edit" / "assets"
PROMPT = "Given the sentence: '{sentence}', what is the sentiment polarity of the aspect term {aspect} ?"


class Row(NamedTuple):
    """An aspect in its sentence."""

    sentence: str
    aspect: str
    polarity: str
    twin: str | None


def read(path: Path) -> list[Row]:
    """The aspects of a file."""
    return [
        Row(sentence.findtext("text", ""), term.get("term", ""), term.get("polarity", ""), term.get("twin"))
        for sentence in ElementTree.parse(path).getroot()
        for term in sentence.iter("aspectTerm")
    ]


def counts(rows: list[Row]) -> str:
    """One Markdown row: sentences, aspects, classes, mixed share, twins, words a sentence."""
    by_text: dict[str, list[Row]] = {}
    for row in rows:
        by_text.setdefault(row.sentence, []).append(row)
    classes = Counter(row.polarity for row in rows)
    mixed = mean(len({row.polarity for row in group}) > 1 for group in by_text.values())
    lengths = sorted(len(text.split()) for text in by_text)
    several = sum(" " in row.aspect for row in rows) / len(rows)
    return (
        f"{len(by_text)} | {len(rows)} | {' / '.join(str(classes[label]) for label in LABELS)} | "
        f"{classes['neutral'] / len(rows):.1%} | {mixed:.1%} | {several:.1%} | "
        f"{sum(row.twin is not None for row in rows)} | "
        f"{lengths[0]} / {lengths[len(lengths) // 2]} / {lengths[-1]}"
    )


def bag_of_words(train: list[Row], test: list[Row]) -> tuple[float, float]:
    """Accuracy and macro-F1 on test of a logistic regression over word counts."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score

    words = CountVectorizer()
    features = words.fit_transform(f"{row.sentence} {row.aspect}" for row in train)
    model = LogisticRegression(max_iter=2000).fit(features, [row.polarity for row in train])
    guess = model.predict(words.transform(f"{row.sentence} {row.aspect}" for row in test))
    gold = [row.polarity for row in test]
    return accuracy_score(gold, guess), f1_score(gold, guess, average="macro")


def zero_shot(model_folder: Path, test: list[Row], joint: str) -> tuple[float, float]:
    """Accuracy and macro-F1 of the label whose whole token sequence after prompt + `joint` has the
    highest log-probability (float32)."""
    import torch
    from sklearn.metrics import accuracy_score, f1_score
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    endings = [tokenizer(joint + label, add_special_tokens=False).input_ids for label in LABELS]
    guess = []
    with torch.inference_mode():
        for row in test:
            prompt = tokenizer(PROMPT.format(sentence=row.sentence, aspect=row.aspect)).input_ids
            scores = []
            for ending in endings:
                logits = model(torch.tensor([prompt + ending])).logits[0].log_softmax(-1)
                at = range(len(prompt) - 1, len(prompt) + len(ending) - 1)
                scores.append(sum(logits[i, t].item() for i, t in zip(at, ending, strict=True)))
            guess.append(LABELS[scores.index(max(scores))])
    gold = [row.polarity for row in test]
    return accuracy_score(gold, guess), f1_score(gold, guess, average="macro")


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ASSETS / "sample")
    parser.add_argument("--model", type=Path, default=ASSETS / "reviewlm")
    parser.add_argument("--domains", nargs="+", default=["laptop", "restaurant", "device", "service"])
    args = parser.parse_args()
    print(
        "| file | sentences | aspects | positive / negative / neutral | neutral | mixed sentences "
        "| multi-word aspects | twins | words a sentence, least / median / most |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for domain in args.domains:
        for split in ("train", "test"):
            print(f"| {domain}_{split} | {counts(read(args.folder / f'{domain}_{split}.xml'))} |")
    print(
        "\n| test file | majority | bag of words: accuracy / macro-F1 "
        "| `reviewlm`, label appended | `reviewlm`, label after a space |"
    )
    print("|---|---|---|---|---|")
    for domain in args.domains:
        train, test = (read(args.folder / f"{domain}_{s}.xml") for s in ("train", "test"))
        most = max(Counter(row.polarity for row in test).values()) / len(test)
        scores = [bag_of_words(train, test), *(zero_shot(args.model, test, j) for j in ("", " "))]
        shown = " | ".join(f"{100 * a:.1f} / {100 * f:.1f}" for a, f in scores)
        print(f"| {domain} | {100 * most:.1f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
