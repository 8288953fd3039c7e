"""Pooled scores and contrasts against counts by hand and a full enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from absa_edit.leaderboard.pooled import Pool, Scope, scope_of
from absa_edit.leaderboard.rows import Answers, Examples, Results, Row, RunInfo, TrainInfo

LABELS = ("positive", "negative", "neutral")
EXAMPLES = {
    "laptop14": Examples(LABELS, np.array([0, 1, 2, 0]), np.array([0, 0, 1, 2])),
    "restaurant14": Examples(LABELS, np.array([1, 1, 0]), np.array([0, 1, 2])),
}


class Kept(Results):
    """Results in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, int, str], Answers] = {}

    def add(self, arm: str, train: str, seed: int, test: str, predicted: list[int], losses: list[float]) -> None:
        self.kept[arm, train, seed, test] = Answers(np.array(predicted), np.array(losses))

    def all_rows(self) -> list[Row]:
        runs = dict.fromkeys((arm, train, seed) for arm, train, seed, _ in self.kept)
        return [
            Row(
                1, f"{run}", "m", run[1], "all", run[2], run[0], None, False,
                RunInfo("", 0.0, "", {}), TrainInfo("success"), trained_on=run[1],
                answers={test: test for *other, test in self.kept if tuple(other) == run},
            )
            for run in runs
        ]  # fmt: skip

    def answers(self, row: Row, test: str) -> Answers:
        return self.kept[row.arm, row.train, row.seed, test]

    def examples(self, digest: str) -> Examples:
        return EXAMPLES[digest]


@pytest.fixture
def kept() -> Kept:
    kept = Kept()
    for seed, a, b in ((0, [0, 1, 2, 0], [0, 2, 1, 0]), (1, [0, 1, 1, 0], [1, 1, 0, 0])):
        kept.add("a", "laptop14", seed, "laptop14", a, [0.1, 0.2, 0.9, 0.4])
        kept.add("b", "laptop14", seed, "laptop14", b, [0.5, 0.7, 0.3, 0.4])
    kept.add("a", "laptop14", 0, "restaurant14", [1, 1, 0], [0.1, 0.1, 0.1])
    kept.add("a", "restaurant14", 0, "laptop14", [0, 0, 0, 0], [1.0, 1.0, 1.0, 1.0])
    return kept


def pool(kept: Kept, draws: int = 400) -> Pool:
    return Pool(kept, kept.all_rows(), draws=draws)


def test_a_score_is_the_mean_over_pairs_of_means_over_seeds(kept: Kept) -> None:
    gold = EXAMPLES["laptop14"].gold
    answers = [kept.kept["a", "laptop14", seed, "laptop14"].predicted for seed in (0, 1)]
    by_seed = [f1_score(gold, given, labels=[0, 1, 2], average="macro", zero_division=0) for given in answers]
    score = pool(kept).score("a", Scope.inside, "macro_f1")
    assert score is not None
    assert score.score.value == pytest.approx(np.mean(by_seed))
    assert (score.pairs, score.seeds, score.score.n) == (1, 2, 4)
    assert score.score.low <= score.score.value <= score.score.high
    outside = pool(kept).score("a", Scope.outside, "log_loss")
    assert outside is not None
    assert outside.score.value == pytest.approx((0.1 + 1.0) / 2), "a larger test set counts no more"
    assert (outside.pairs, outside.score.n) == (2, 7)
    assert pool(kept).score("b", Scope.outside, "log_loss") is None


def test_log_loss_is_that_of_scikit_learn() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.3, 0.3, 0.4]])
    gold = EXAMPLES["laptop14"].gold
    kept = Kept()
    losses = list(-np.log(probabilities[np.arange(4), gold]))
    kept.add("a", "laptop14", 0, "laptop14", list(probabilities.argmax(1)), losses)
    score = pool(kept).score("a", Scope.inside, "log_loss")
    assert score is not None
    assert score.score.value == pytest.approx(log_loss(gold, probabilities, labels=[0, 1, 2]))


def test_p_is_that_of_all_swaps_of_sentences(kept: Kept) -> None:
    contrast = pool(kept, draws=20_000).contrast("q", "a", "b", Scope.inside, "accuracy")
    assert contrast is not None
    examples = EXAMPLES["laptop14"]
    right = {
        arm: np.array([kept.kept[arm, "laptop14", s, "laptop14"].predicted == examples.gold for s in (0, 1)], float)
        for arm in ("a", "b")
    }
    observed = (right["a"] - right["b"]).mean()
    gaps = []
    for swap in product((1, -1), repeat=3):  # the same sentences change sides in both seeds
        signs = np.array(swap)[examples.sentence]
        gaps.append((signs * (right["a"] - right["b"])).mean())
    exact = np.mean(np.abs(gaps) >= abs(observed) - 1e-12)
    assert contrast.difference.value == pytest.approx(observed)
    assert contrast.p == pytest.approx(exact, abs=0.01)


def test_alike_answers_do_not_differ(kept: Kept) -> None:
    for seed in (0, 1):
        kept.kept["b", "laptop14", seed, "laptop14"] = kept.kept["a", "laptop14", seed, "laptop14"]
    (contrast, *_) = pool(kept).contrasts({"q": [("a", "b")]})
    assert (contrast.difference.value, contrast.difference.low, contrast.difference.high) == (0, 0, 0)
    assert contrast.p == contrast.p_corrected == 1


def test_arms_are_compared_on_the_runs_that_both_have(kept: Kept) -> None:
    del kept.kept["b", "laptop14", 1, "laptop14"]
    contrast = pool(kept).contrast("q", "a", "b", Scope.inside, "accuracy")
    assert contrast is not None
    assert (contrast.pairs, contrast.seeds) == (1, 1)
    assert contrast.difference.value == pytest.approx(1.0 - 0.5)
    assert pool(kept).contrast("q", "a", "b", Scope.outside, "accuracy") is None


@pytest.mark.parametrize(
    ("train", "test", "scope"),
    [
        ("laptop14", "laptop14", Scope.inside),
        ("laptop14", "restaurant14", Scope.outside),
        ("laptop14", "me_absc_laptop", None),
        ("laptop-sample", "restaurant-sample", Scope.outside),
    ],
)
def test_another_set_of_the_same_domain_is_neither(train: str, test: str, scope: Scope | None) -> None:
    assert scope_of(train, test) is scope
