"""The sentences say what the numbers say, also when it is not what one hoped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from absa_edit.report.conclusions import budget, caveats, confused, control, findings, learned, sample_warning
from absa_edit.report.lookup import standing
from absa_edit.results import Comparison, RunRecord


def with_control(record: RunRecord, difference: float, p: float) -> RunRecord:
    found = Comparison(
        "edit", "random", "laptop14", "macro_f1", difference, difference - 0.01, difference + 0.01, p, p, 638
    )
    return replace(record, comparisons=(found,))


def test_control_says_when_tracing_helped(record: RunRecord) -> None:
    said = control(with_control(record, 0.03, 0.002), "laptop14")
    assert said is not None and said.startswith("Tracing beats random placement on laptop14")
    assert "+3.0 points of macro-F1 [+2.0, +4.0]" in said and "p = 0.002" in said


def test_control_says_when_it_did_not(record: RunRecord) -> None:
    said = control(with_control(record, 0.03, 0.2), "laptop14")
    assert said is not None and said.startswith("Tracing did not beat random placement on laptop14:")


def test_control_says_when_it_did_worse(record: RunRecord) -> None:
    said = control(with_control(record, -0.03, 0.002), "laptop14")
    assert said is not None and "it did worse" in said


def test_the_corrected_p_decides(record: RunRecord) -> None:
    found = replace(with_control(record, 0.03, 0.02).comparisons[0], p_corrected=0.06)
    said = control(replace(record, comparisons=(found,)), "laptop14")
    assert said is not None and "did not beat" in said


def test_unequal_budgets_are_named(record: RunRecord) -> None:
    larger = replace(record.methods["random"], trainable=69_120)
    said = control(replace(record, methods=record.methods | {"random": larger}), "laptop14")
    assert said is not None and "budgets differ: 34,560 and 69,120" in said


def test_without_the_control_nothing_is_claimed(make_record: Callable[..., RunRecord]) -> None:
    record = replace(make_record(("edit", "zero_shot")), comparisons=())
    assert "cannot say whether tracing helps" in (control(record, "laptop14") or "")
    assert control(make_record(("zero_shot", "lora")), "laptop14") is None


def placed(record: RunRecord, source: str) -> RunRecord:
    edit = record.methods["edit"]
    assert edit.plan
    return replace(record, methods=record.methods | {"edit": replace(edit, plan=replace(edit.plan, source=source))})


def test_what_no_trace_chose_is_not_called_tracing(record: RunRecord) -> None:
    better = with_control(record, 0.03, 0.002)
    said = control(placed(better, "manual"), "laptop14") or ""
    assert said.startswith("The plan `manual`, which no trace of this run chose, beats random placement")
    for drawn in ("random", "random_window"):
        said = control(placed(better, drawn), "laptop14") or ""
        assert "cannot say whether tracing helps" in said and "beat" not in said


def test_a_window_drawn_at_random_is_a_control(record: RunRecord) -> None:
    drawn = record.methods["random"]
    assert drawn.plan
    window = replace(drawn, plan=replace(drawn.plan, source="random_window"))
    said = control(with_control(replace(record, methods=record.methods | {"random": window}), 0.03, 0.002), "laptop14")
    assert said is not None and said.startswith("Tracing beats random placement on laptop14")


def test_a_random_placement_is_a_caveat_only_where_there_is_one(
    record: RunRecord, make_record: Callable[..., RunRecord]
) -> None:
    assert "one random placement" in caveats(record)[-1]
    assert "placement" not in caveats(make_record(("zero_shot", "edit", "lora")))[-1]


def test_other_sets_of_the_same_domain_are_not_out_of_domain(record: RunRecord) -> None:
    train = replace(record.data["train"], name="mams")
    mams = replace(record, data=record.data | {"train": train})
    stands = {test: standing(mams, test) for test in ("restaurant14", "laptop14")}
    assert stands == {"restaurant14": "other set", "laptop14": "out of domain"}
    assert (
        standing(replace(record, data=record.data | {"train": replace(train, name="mine")}), "laptop14") == "other set"
    )
    assert standing(record, "laptop14") == "own test"


def test_own_data_may_end_in_sample(record: RunRecord) -> None:
    hotels = replace(record.data["train"], name="hotel-sample")
    assert sample_warning(replace(record, data=record.data | {"train": hotels})) is None


def test_a_large_edit_is_not_called_fewer(record: RunRecord) -> None:
    edit = replace(record.methods["edit"], trainable=2 * record.methods["lora"].trainable)
    said = budget(replace(record, methods=record.methods | {"edit": edit})) or ""
    assert f"beside {record.methods['lora'].trainable:,} of `lora`" in said and "times fewer than `full`" in said


def test_baselines_and_peak(record: RunRecord) -> None:
    _, baselines, peak = findings(record)
    assert "not significantly different from `lora` (4.21 % of the weights), +0.7" in baselines
    assert "better than `zero_shot`, +20.4" in baselines
    assert "`full` (100 % of the weights) reaches 63.3 [59.9, 66.9], not compared" in baselines
    assert "mlp of layer 5 (of 12, from 0) at the role `aspect`" in peak
    assert "the 3 layers around it gives back 24.7 [19.7, 29.9] of the 41.3" in peak


def test_an_empty_run_finds_nothing(record: RunRecord) -> None:
    assert findings(replace(record, methods={}, comparisons=(), trace=None)) == ()


def test_the_sample_is_never_passed_off_as_a_public_set(record: RunRecord, sample_record: RunRecord) -> None:
    assert sample_warning(record) is None
    assert "BUNDLED SAMPLE: laptop-sample" in (sample_warning(sample_record) or "")


def test_budgets_are_set_beside_the_baselines(record: RunRecord, make_record: Callable[..., RunRecord]) -> None:
    assert budget(record) == (
        "`edit` trains 34,560 parameters, 21 times fewer than `lora` and 506 times fewer than `full`; "
        "its training took 12 s, against 12 s (`lora`) and 12 s (`full`)."
    )
    assert budget(make_record(("edit", "random"))) is None and budget(make_record(("lora",))) is None


def test_the_best_on_development_data_is_named_with_the_edit(
    record: RunRecord, make_record: Callable[..., RunRecord]
) -> None:
    said = "Highest macro-F1 on the development set (n = 240): `full` reaches 67.6 after epoch 2"
    assert learned(record) == f"{said}; `edit` reaches 66.2 after epoch 2."
    assert learned(make_record(("zero_shot",))) is None


def test_the_commonest_error_is_named(record: RunRecord) -> None:
    assert confused(record, "laptop14") == (
        "On laptop14, `edit` errs most by calling neutral ones positive: 40 of 169."
    )
    edit = record.methods["edit"]
    right = replace(edit.scores["laptop14"], confusion=((3, 0, 0), (0, 2, 0), (0, 0, 1)))
    flawless = replace(record, methods={"edit": replace(edit, scores={"laptop14": right})})
    assert confused(flawless, "laptop14") is None and confused(record, None) is None


def test_caveats_stand_beside_the_control_only(record: RunRecord, make_record: Callable[..., RunRecord]) -> None:
    elsewhere, seed = caveats(record)
    assert "restaurant14 +2.8 [+0.8, +4.8] (p = 0.012 corrected)" in elsewhere and "one seed" in seed
    assert "; in the mean of these 2 +2.1 [+0.1, +4.1] (p = 0.008 corrected)." in elsewhere
    assert caveats(make_record(("lora", "full"))) == ()
