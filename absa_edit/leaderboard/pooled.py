"""Scores of a benchmark pooled over training sets, test sets and seeds, and differences between arms.

A score is the mean over pairs of a training and a test set, each the mean over seeds, so that a large test set counts
no more than a small one. A resample draws the sentences of each test set once for all runs, and seeds once for all
pairs: runs answer the same sentences, so their luck does not average out. The permutation swaps the answers of two
arms in whole sentences within each test set (its strata), alike in all runs.
Source: Owen 2007, "The pigeonhole bootstrap"; Yeh 2000; (hits + 1) / (draws + 1) as in Phipson and Smyth 2010.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from jaxtyping import Float

from absa_edit.data.public_sets import PUBLIC, sample_domain
from absa_edit.leaderboard.rows import Results, Row
from absa_edit.resampling import METRICS, confusions, corrected, percentile_interval
from absa_edit.results import Interval

Statistics = Float[np.ndarray, "*draw statistic"]
"""Sums over examples: the confusions, gold by predicted, then -log p(gold)."""


class Scope(StrEnum):
    """Which pairs of a training and a test set are pooled."""

    inside = "in domain"
    """The test set that goes with the training set."""
    outside = "out of domain"
    """Test sets of other domains."""


@dataclass(frozen=True)
class Pooled:
    """A score of one arm on one model and size."""

    arm: str
    scope: Scope
    metric: str
    score: Interval
    pairs: int
    seeds: int


@dataclass(frozen=True)
class Contrast:
    """The difference a - b of two arms, over the pairs and seeds that both have."""

    question: str
    a: str
    b: str
    scope: Scope
    metric: str
    difference: Interval
    p: float
    p_corrected: float
    """Benjamini-Hochberg over the question's family: its pairs of arms, scopes and metrics on one model and size."""
    pairs: int
    seeds: int


def _log_loss(sums: Statistics) -> Float[np.ndarray, "*draw"]:
    examples = sums[..., :-1].sum(-1)
    return METRICS["log_loss"].value(np.stack([sums[..., -1], examples], axis=-1))


VALUES: dict[str, Callable[[Statistics], Float[np.ndarray, "*draw"]]] = {
    "log_loss": _log_loss,
    "macro_f1": lambda sums: METRICS["macro_f1"].value(sums[..., :-1]),
    "accuracy": lambda sums: METRICS["accuracy"].value(sums[..., :-1]),
}
"""The metrics, of these statistics."""

Place = tuple[str, str, int]
"""Training set, test set with the hash of its examples, and seed."""


class Pool:
    """The answers of all arms on one model and number of training examples."""

    def __init__(self, results: Results, rows: Iterable[Row], *, draws: int, seed: int = 0) -> None:
        self.draws, self.seed = draws, seed
        self.statistics: dict[str, dict[Place, Float[np.ndarray, "example statistic"]]] = {}
        self.sentences: dict[str, np.ndarray] = {}
        self._weights: dict[str, Float[np.ndarray, "draw example"]] = {}
        self._scores: dict[tuple[str, Place], dict[str, tuple[float, Float[np.ndarray, " draw"]]]] = {}
        for row in rows:
            for test, digest in row.answers.items():
                examples, answers = results.examples(digest), results.answers(row, test)
                set_of = f"{test} {digest}"  # one name may stand for two sets, where leaks were dropped
                self.sentences[set_of] = examples.sentence
                tables = confusions(examples.gold, answers.predicted, len(examples.labels))
                flat = np.concatenate([tables.reshape(len(tables), -1), answers.log_loss[:, None]], axis=1)
                self.statistics.setdefault(row.arm, {})[row.trained_on, set_of, row.seed] = flat

    def places(self, scope: Scope, *arms: str) -> list[Place]:
        """The pairs and seeds of a scope that all the arms have."""
        common = set.intersection(*(set(self.statistics.get(arm, {})) for arm in arms))
        return sorted(place for place in common if scope_of(place[0], place[1].split(" ")[0]) is scope)

    def score(self, arm: str, scope: Scope, metric: str) -> Pooled | None:
        """Of one arm; None where it has no run in the scope."""
        places = self.places(scope, arm)
        if not places:
            return None
        value, resampled = self._mean(places, {place: self._at(arm, place)[metric] for place in places})
        n = sum(len(self.sentences[test]) for test in {place[1] for place in places})
        interval = percentile_interval(value, resampled, n)
        return Pooled(arm, scope, metric, interval, len({p[:2] for p in places}), len({p[2] for p in places}))

    def contrast(self, question: str, a: str, b: str, scope: Scope, metric: str) -> Contrast | None:
        """Of two arms, `p_corrected` still `p`; None where they have no run in common."""
        places = self.places(scope, a, b)
        if not places:
            return None
        differences = {}
        for place in places:
            (value_a, drawn_a), (value_b, drawn_b) = (self._at(arm, place)[metric] for arm in (a, b))
            differences[place] = value_a - value_b, drawn_a - drawn_b
        value, resampled = self._mean(places, differences)
        permuted = self._permuted(places, a, b, metric)
        p = (int((np.abs(permuted) >= abs(value) - 1e-12).sum()) + 1) / (self.draws + 1)
        n = sum(len(self.sentences[test]) for test in {place[1] for place in places})
        return Contrast(
            question, a, b, scope, metric, percentile_interval(value, resampled, n), p, p,
            len({place[:2] for place in places}), len({place[2] for place in places}),
        )  # fmt: skip

    def contrasts(self, questions: Mapping[str, Sequence[tuple[str, str]]]) -> list[Contrast]:
        """Every contrast in every scope and metric, corrected by question."""
        results = []
        for question, pairs in questions.items():
            family = [
                contrast
                for a, b in pairs
                for scope in Scope
                for metric in VALUES
                if (contrast := self.contrast(question, a, b, scope, metric))
            ]
            adjusted = corrected([contrast.p for contrast in family])
            results += [replace(contrast, p_corrected=p) for contrast, p in zip(family, adjusted, strict=True)]
        return results

    def _at(self, arm: str, place: Place) -> dict[str, tuple[float, Float[np.ndarray, " draw"]]]:
        """Each metric of one run on one test set, and of its resamples."""
        if (arm, place) not in self._scores:
            flat = self.statistics[arm][place]
            resampled = self._weights_of(place[1]) @ flat
            self._scores[arm, place] = {
                name: (float(value_of(flat.sum(0))), value_of(resampled)) for name, value_of in VALUES.items()
            }
        return self._scores[arm, place]

    def _mean(
        self, places: Sequence[Place], values: Mapping[Place, tuple[float, Float[np.ndarray, " draw"]]]
    ) -> tuple[float, Float[np.ndarray, " draw"]]:
        """The mean over pairs of the means over seeds, and in resamples of sentences and seeds."""
        seeds = sorted({seed for _, _, seed in places})
        times = self._rng("seeds").multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=self.draws)
        often = dict(zip(seeds, times.T.astype(np.float64), strict=True))
        means, drawn = [], []
        for pair in dict.fromkeys(place[:2] for place in places):
            of_pair = [place for place in places if place[:2] == pair]
            means.append(np.mean([values[place][0] for place in of_pair]))
            total = sum(often[place[2]] for place in of_pair)
            with np.errstate(invalid="ignore", divide="ignore"):  # a resample without a seed of this pair
                drawn.append(sum(often[place[2]] * values[place][1] for place in of_pair) / total)
        return float(np.mean(means)), np.asarray(np.nanmean(np.stack(drawn), axis=0))

    def _permuted(self, places: Sequence[Place], a: str, b: str, metric: str) -> Float[np.ndarray, " draw"]:
        """The difference where each sentence's answers changed sides or not, by chance."""
        score, swaps = VALUES[metric], {}
        drawn: dict[Place, tuple[float, Float[np.ndarray, " draw"]]] = {}
        for place in places:
            test = place[1]
            sentences = self.sentences[test]
            if test not in swaps:
                count = int(sentences.max()) + 1
                swaps[test] = self._rng(f"swap {test}").integers(0, 2, size=(self.draws, count)).astype(np.float64)
            of_a, of_b = self.statistics[a][place], self.statistics[b][place]
            step = np.zeros((swaps[test].shape[1], of_a.shape[1]))
            np.add.at(step, sentences, of_b - of_a)
            moved = swaps[test] @ step
            drawn[place] = 0.0, score(of_a.sum(0) + moved) - score(of_b.sum(0) - moved)
        pairs: dict[tuple[str, str], list[np.ndarray]] = {}
        for place, (_, values) in drawn.items():
            pairs.setdefault(place[:2], []).append(values)
        return np.asarray(np.mean([np.mean(values, axis=0) for values in pairs.values()], axis=0))

    def _weights_of(self, test: str) -> Float[np.ndarray, "draw example"]:
        if test not in self._weights:
            sentences = self.sentences[test]
            count = int(sentences.max()) + 1
            times = self._rng(f"sentences {test}").multinomial(count, np.full(count, 1 / count), size=self.draws)
            self._weights[test] = times[:, sentences].astype(np.float64)
        return self._weights[test]

    def _rng(self, use: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(use.encode())])


def scope_of(train: str, test: str) -> Scope | None:
    """How a test set stands to the training set; None for another set of the same domain."""
    if train == test:
        return Scope.inside
    domains = [sample_domain(name) or (PUBLIC[name].domain if name in PUBLIC else name) for name in (train, test)]
    return Scope.outside if domains[0] != domains[1] else None
