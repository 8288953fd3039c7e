"""Seeds are averaged, their luck widens the intervals, and one seed gives what a run says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from absa_edit.errors import DataError
from absa_edit.evaluation.across_seeds import BySeed, compare_seeds, pool, seed_difference, seed_score
from absa_edit.evaluation.scoring import compare, score
from absa_edit.resampling import METRICS, corrected
from absa_edit.results import Prediction
from absa_edit.tasks.absc import POLARITIES

DRAWS = 400
N = 90


def made_up(method: str, seed: int, right: float, test: str = "laptop", n: int = N) -> tuple[Prediction, ...]:
    """Answers right with the given probability, on the same examples for every method and seed; two a sentence."""
    gold = np.random.default_rng(99).integers(0, 3, n)
    rng = np.random.default_rng([seed, len(method), int(1000 * right)])
    answers = np.where(rng.random(n) < right, gold, rng.integers(0, 3, n))
    shares = [{p: 0.6 if p is given else 0.2 for p in POLARITIES} for given in POLARITIES]
    return tuple(
        Prediction(
            method, test, f"e{i}", f"s{i // 2}", f"text {i // 2}", "fan", POLARITIES[g], POLARITIES[a], shares[a]
        )
        for i, (g, a) in enumerate(zip(gold, answers, strict=True))
    )


def over(method: str, rights: Sequence[float], seeds: Sequence[int] | None = None) -> BySeed:
    return {s: made_up(method, s, right) for s, right in zip(seeds or range(len(rights)), rights, strict=True)}


def test_one_seed_is_the_sentence_bootstrap() -> None:
    rows = made_up("edit", 0, 0.7)
    alone = score(rows, draws=DRAWS, rng=np.random.default_rng(5))
    found = seed_score({3: rows}, draws=DRAWS, rng=np.random.default_rng(5))
    assert (found.accuracy, found.macro_f1, found.log_loss) == (alone.accuracy, alone.macro_f1, alone.log_loss)
    assert found.seeds == (3,)


def test_one_seed_is_the_comparison_of_a_run() -> None:
    plain = {m: {"laptop": made_up(m, 0, right)} for m, right in (("edit", 0.8), ("lora", 0.7), ("full", 0.4))}
    pairs = [("edit", "lora"), ("edit", "full")]
    expected = compare(pairs, plain, {}, draws=DRAWS, rng=np.random.default_rng(2))
    rows = {m: {test: {0: found} for test, found in tests.items()} for m, tests in plain.items()}
    for mine, theirs in zip(
        compare_seeds(pairs, rows, {}, draws=DRAWS, rng=np.random.default_rng(2)), expected, strict=True
    ):
        assert all(getattr(mine, name) == getattr(theirs, name) for name in theirs.__slots__)


def test_means_are_scikit_learns() -> None:
    rows = over("edit", [0.8, 0.6, 0.7])
    found = seed_score(rows, draws=10, rng=np.random.default_rng(0))
    truth = [([r.gold for r in rows[s]], [r.predicted for r in rows[s]]) for s in found.seeds]
    labels = [p.value for p in POLARITIES]
    accuracy = [accuracy_score(*pair) for pair in truth]
    macro = [f1_score(*pair, labels=labels, average="macro", zero_division=0) for pair in truth]
    assert found.per_seed["accuracy"] == pytest.approx(accuracy)
    assert found.per_seed["macro_f1"] == pytest.approx(macro)
    assert found.accuracy.value == pytest.approx(np.mean(accuracy))
    assert found.macro_f1.value == pytest.approx(np.mean(macro))
    assert found.macro_f1.n == N


def test_copies_of_one_seed_add_no_certainty() -> None:
    rows = made_up("zero_shot", 0, 0.7)
    alone = seed_score({0: rows}, draws=DRAWS, rng=np.random.default_rng(1))
    five = seed_score(dict.fromkeys(range(5), rows), draws=DRAWS, rng=np.random.default_rng(1))
    for metric in METRICS:
        a, b = getattr(alone, metric), getattr(five, metric)
        assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high))


def test_seeds_that_disagree_widen_the_interval() -> None:
    near = seed_score(over("edit", [0.7, 0.7, 0.7, 0.7]), draws=DRAWS, rng=np.random.default_rng(1))
    far = seed_score(over("edit", [0.1, 0.95, 0.1, 0.95]), draws=DRAWS, rng=np.random.default_rng(1))
    assert far.accuracy.high - far.accuracy.low > 1.5 * (near.accuracy.high - near.accuracy.low)
    assert min(far.per_seed["accuracy"]) < far.accuracy.low < far.accuracy.high < max(far.per_seed["accuracy"])


def test_the_interval_covers_the_truth() -> None:
    """Eight seeds of a known spread: about 95 % of the intervals hold the true accuracy."""
    n, seeds, hits, tries = 60, 8, 0, 100
    rng = np.random.default_rng(8)
    share = dict.fromkeys(POLARITIES, 1 / 3)
    right, wrong = POLARITIES[:2]
    for _ in range(tries):
        # a sentence's difficulty is shared by all seeds, a seed's luck by all sentences
        chance = 0.6 + rng.uniform(-0.3, 0.3, n)[:, None] + rng.uniform(-0.1, 0.1, seeds)[None, :]
        answers = rng.random((n, seeds)) < chance
        rows = {
            s: tuple(
                Prediction("edit", "t", f"{i}", f"{i}", "x", "x", right, right if ok else wrong, share)
                for i, ok in enumerate(answers[:, s])
            )
            for s in range(seeds)
        }
        found = seed_score(rows, draws=200, rng=rng).accuracy
        hits += found.low <= 0.6 <= found.high
    assert hits / tries > 0.9


def test_differences_are_antisymmetric() -> None:
    a, b = over("edit", [0.8, 0.7, 0.75]), over("lora", [0.6, 0.65, 0.7])
    for metric in METRICS:
        one = seed_difference(metric, a, b, draws=DRAWS, rng=np.random.default_rng(4))
        other = seed_difference(metric, b, a, draws=DRAWS, rng=np.random.default_rng(4))
        assert (one.a, one.b) == (other.b, other.a) == ("edit", "lora")
        assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
        assert one.p == other.p
        assert one.per_seed == pytest.approx([-d for d in other.per_seed])


def test_a_difference_is_that_of_the_means() -> None:
    a, b = over("edit", [0.9, 0.8]), over("lora", [0.3, 0.4])
    found = seed_difference("macro_f1", a, b, draws=DRAWS, rng=np.random.default_rng(0))
    means = [seed_score(rows, draws=2, rng=np.random.default_rng(0)).macro_f1.value for rows in (a, b)]
    assert found.difference == pytest.approx(means[0] - means[1])
    assert found.p < 0.01 and found.low > 0


def test_a_method_against_itself_differs_by_nothing() -> None:
    a = over("edit", [0.9, 0.8])
    found = seed_difference("accuracy", a, a, draws=DRAWS, rng=np.random.default_rng(0))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_one_swap_for_all_seeds_keeps_copies_from_adding_evidence() -> None:
    a, b = made_up("edit", 0, 0.75), made_up("lora", 1, 0.6)
    one = seed_difference("accuracy", {0: a}, {0: b}, draws=DRAWS, rng=np.random.default_rng(4))
    copies = [dict.fromkeys(range(6), rows) for rows in (a, b)]
    six = seed_difference("accuracy", *copies, draws=DRAWS, rng=np.random.default_rng(4))
    assert six.p == one.p
    assert (six.low, six.high) == pytest.approx((one.low, one.high))


def test_pairs_are_compared_on_the_seeds_of_both() -> None:
    rows = {
        "edit": {"laptop": over("edit", [0.8, 0.8, 0.8])},
        "lora": {"laptop": over("lora", [0.7, 0.7], seeds=(2, 1))},
        "full": {"laptop": over("full", [0.7], seeds=(7,))},
    }
    found = compare_seeds([("edit", "lora"), ("edit", "full")], rows, {}, draws=50, rng=np.random.default_rng(0))
    assert [(c.b, c.metric, c.seeds) for c in found] == [("lora", metric, (1, 2)) for metric in METRICS]
    assert all(c.p_corrected >= c.p for c in found)
    with pytest.raises(DataError, match="seeds 0, 1, 2 beside seeds 1, 2: expected the same seeds"):
        seed_difference(
            "accuracy", rows["edit"]["laptop"], rows["lora"]["laptop"], draws=5, rng=np.random.default_rng(0)
        )


def by_test(method: str, rights: Sequence[float]) -> dict[str, BySeed]:
    sizes = {"laptop": 90, "rest": 60, "device": 30}
    return {
        test: {seed: made_up(method, seed, right, test, n) for seed, right in enumerate(rights)}
        for test, n in sizes.items()
    }


def test_pooled_differences_are_means_over_test_sets_and_seeds() -> None:
    rows = {"edit": by_test("edit", [0.8, 0.7]), "lora": by_test("lora", [0.5, 0.6]), "full": by_test("full", [0.6])}
    pairs = [("edit", "lora"), ("edit", "full")]
    questions = {"own test": ["laptop"], "out of domain": ["rest", "device"]}
    pooled = pool(pairs, rows, questions, draws=DRAWS, rng=np.random.default_rng(0))
    single = compare_seeds(pairs, rows, questions, draws=DRAWS, rng=np.random.default_rng(0))
    expected = [(b, "out of domain", metric) for b in ("lora", "full") for metric in METRICS]
    assert [(p.b, p.question, p.metric) for p in pooled] == expected, "a question of one set is no mean"
    for p in pooled:
        parts = [c.difference for c in single if (c.b, c.metric) == (p.b, p.metric) and c.test in p.tests]
        assert len(parts) == 2 and p.difference == pytest.approx(np.mean(parts))
        assert p.low < p.difference < p.high
        assert p.n == 60 + 30
    for metric in METRICS:
        family = [p for p in pooled if p.metric == metric]
        assert [p.p_corrected for p in family] == corrected([p.p for p in family])


def test_a_pair_without_common_seeds_is_not_pooled() -> None:
    rows = {"edit": by_test("edit", [0.8]), "lora": by_test("lora", [0.5])}
    rows["lora"]["rest"] = {4: rows["lora"]["rest"][0]}
    assert (
        pool([("edit", "lora")], rows, {"out of domain": ["rest", "device"]}, draws=9, rng=np.random.default_rng(0))
        == ()
    )


def test_order_of_the_rows_does_not_matter() -> None:
    rows = over("edit", [0.8, 0.6])
    turned = {0: rows[0], 1: rows[1][::-1]}
    first, second = (seed_score(r, draws=50, rng=np.random.default_rng(0)) for r in (rows, turned))
    assert first == second


def test_other_examples_are_refused() -> None:
    rows = over("edit", [0.8, 0.6])
    renamed = (replace(rows[1][0], id="other"), *rows[1][1:])
    for wrong, said in (
        (renamed, r"laptop: edit, seed 1 answers other examples than edit, seed 0: 2 differ, the first is 'e0'"),
        (rows[1][:-1], "1 differ, the first is 'e89'; expected one test set"),
        ((replace(rows[1][0], gold=next(p for p in POLARITIES if p != rows[1][0].gold)), *rows[1][1:]), "'e0'"),
        ((*rows[1], rows[1][0]), "seed 1 has 91 predictions of 90 examples: expected one an example"),
        ((), "90 differ"),
    ):
        with pytest.raises(DataError, match=said):
            seed_score({0: rows[0], 1: wrong}, draws=5, rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="no predictions"):
        seed_score({}, draws=5, rng=np.random.default_rng(0))
