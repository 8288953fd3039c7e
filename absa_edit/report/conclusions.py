"""What a run says, in sentences: did tracing help, what did it cost, where does the effect sit."""

from __future__ import annotations

from absa_edit.data.public_sets import sample_domain
from absa_edit.records import Part
from absa_edit.report import formatting
from absa_edit.report.lookup import (
    OUT_OF_DOMAIN,
    RANDOM,
    baseline,
    compared,
    differs_significantly,
    focus,
    interval_of,
    own_test,
    random_control,
    standing,
    tests_in_order,
    trains_nothing,
    whole_model,
)
from absa_edit.results import Comparison, RunRecord


def findings(record: RunRecord) -> tuple[str, ...]:
    """The conclusions of a run, one sentence each; those that the run cannot support are left out."""
    test = main_test(record)
    sentences = (control(record, test), *against_baselines(record, test), peak(record))
    return tuple(sentence for sentence in sentences if sentence)


def main_test(record: RunRecord) -> str | None:
    """The test set that conclusions are about: the own one, else the first; None when nothing was scored."""
    return own_test(record) or next(iter(tests_in_order(record)), None)


def control(record: RunRecord, test: str | None) -> str | None:
    """Whether the run's method beats the same in random places, and who chose its own; None where it has no plan."""
    name, other = focus(record), random_control(record)
    plan = record.methods[name].plan if name else None
    if test is None or name is None or plan is None:
        return None
    comparison = compared(record, name, other, test) if other else None
    if other is None or comparison is None:
        placed = f"`{other}`" if other else "a method in random places"
        return f"The run does not compare `{name}` with {placed}, so it cannot say whether tracing helps."
    if plan.source in RANDOM:
        return (
            f"Both `{name}` and `{other}` stand in places drawn at random, so the run cannot say whether tracing helps."
        )
    chosen = "Tracing" if plan.source == "trace" else f"The plan `{plan.source}`, which no trace of this run chose,"
    budgets = [record.methods[method].trainable for method in (name, other)]
    unequal = f" Their budgets differ: {budgets[0]:,} and {budgets[1]:,} parameters." * (len(set(budgets)) > 1)
    significant = differs_significantly(comparison)
    if significant and comparison.difference > 0:
        return f"{chosen} beats random placement on {test}: {_difference(comparison)}.{unequal}"
    worse = ", it did worse" * significant
    return f"{chosen} did not beat random placement on {test}{worse}: {_difference(comparison)}.{unequal}"


def caveats(record: RunRecord) -> tuple[str, ...]:
    """What stands beside the control: the same difference on other sets, and what the intervals do not hold."""
    if control(record, main_test(record)) is None:
        return ()
    name, other = focus(record), random_control(record)
    elsewhere = [test for test in tests_in_order(record) if test != main_test(record)]
    comparisons = [c for test in elsewhere if name and other and (c := compared(record, name, other, test)) is not None]
    differences = "; ".join(
        f"{c.test} {formatting.points(c.difference)} {formatting.between(c.low, c.high)} "
        f"({formatting.p_value(c.p_corrected)} corrected)"
        for c in comparisons
    )
    for p in record.pooled:
        if (p.a, p.b, p.metric) == (name, other, "macro_f1") and main_test(record) not in p.tests:
            differences += (
                f"; in the mean of these {len(p.tests)} {formatting.points(p.difference)} "
                f"{formatting.between(p.low, p.high)} ({formatting.p_value(p.p_corrected)} corrected)"
            )
    abroad = all(standing(record, c.test) == OUT_OF_DOMAIN for c in comparisons)
    where = "Out of domain" if abroad else "On other sets"
    sentences = (
        f"{where}, `{name}` minus `{other}` in points of macro-F1: {differences}." if comparisons else "",
        f"This is one seed{' and one random placement' if other else ''}. The intervals are over test sentences; they "
        f"do not hold the luck of the seed{' or of the placement' if other else ''}.",
    )
    return tuple(sentence for sentence in sentences if sentence)


def against_baselines(record: RunRecord, test: str | None) -> tuple[str, ...]:
    """How the run's method stands beside the untrained model and the whole-model baselines."""
    name = focus(record)
    if test is None or name is None or trains_nothing(record.methods[name]):
        return ()
    score = interval_of(record, name, test, "macro_f1")
    if score is None:
        return ()
    untrained, share = baseline(record), formatting.percent(record.methods[name].share)
    clauses = [f"`{name}` trains {share} of the weights and reaches macro-F1 {score.percent()}"]
    clauses += [_beside(record, name, other, test) for other in (untrained, *whole_model(record)) if other]
    return (f"{'; '.join(clauses)}.",)


def _beside(record: RunRecord, name: str, other: str, test: str) -> str:
    share = record.methods[other].share
    named = f"`{other}` ({formatting.percent(share)} of the weights)" if share else f"`{other}`"
    comparison, score = compared(record, name, other, test), interval_of(record, other, test, "macro_f1")
    if comparison is None:
        return f"{named} {'was not scored' if score is None else f'reaches {score.percent()}'}, not compared"
    verdict = "better than" if comparison.difference > 0 else "worse than"
    if not differs_significantly(comparison):
        verdict = "not significantly different from"
    interval = formatting.between(comparison.low, comparison.high)
    return f"{verdict} {named}, {formatting.points(comparison.difference)} {interval}"


def peak(record: RunRecord) -> str | None:
    """Where the averaged trace is largest; None in a run without a trace."""
    if record.trace is None:
        return None
    cell, total, window = record.trace.peak, record.trace.total_effect, record.trace.window
    several = window > 1 and cell.part in (Part.attn, Part.mlp)
    gives = "is estimated to give" if cell.estimated else "gives"
    return (
        f"The trace peaks in {cell.part.value} of layer {cell.layer} "
        f"(of {record.model.layers}, from 0) at the role `{cell.role.value}`: restoring "
        f"{f'the {window} layers around it' if several else 'it'} {gives} back "
        f"{cell.effect.percent()} of the {100 * total.value:.1f} points of p(gold) that corruption takes "
        f"(n = {cell.effect.n})."
    )


def budget(record: RunRecord) -> str | None:
    """How the method's parameters and training time stand beside the whole-model baselines; None without both."""
    name, others = focus(record), {other: record.methods[other] for other in whole_model(record)}
    method = record.methods[name] if name else None
    if method is None or method.fit is None or not method.trainable or not others:
        return None
    fewer = " and ".join(_fewer(method.trainable, other, m.trainable) for other, m in others.items())
    times = " and ".join(f"{formatting.duration(m.fit.seconds)} (`{other}`)" for other, m in others.items() if m.fit)
    against = f", against {times}" if times else ""
    return (
        f"`{name}` trains {method.trainable:,} parameters, {fewer}; its training took "
        f"{formatting.duration(method.fit.seconds)}{against}."
    )


def _fewer(trainable: int, name: str, other: int) -> str:
    """How many times fewer than another method's; of like or larger numbers, the other one."""
    if other < 1.5 * trainable:
        return f"beside {other:,} of `{name}`"
    return f"{other / trainable:,.0f} times fewer than `{name}`"


def learned(record: RunRecord) -> str | None:
    """Which method got furthest on the development set; None when none was trained."""
    fits = {name: m.fit for name, m in record.methods.items() if m.fit is not None and m.fit.history}
    if not fits:
        return None
    first = max(fits, key=lambda name: fits[name].best_macro_f1)
    clauses = [
        f"`{name}` reaches {100 * fits[name].best_macro_f1:.1f} after epoch {fits[name].best_epoch}"
        for name in dict.fromkeys((first, focus(record)))
        if name in fits
    ]
    n = f" (n = {record.data['dev'].n:,})" if "dev" in record.data else ""
    return f"Highest macro-F1 on the development set{n}: {'; '.join(clauses)}."


def confused(record: RunRecord, test: str | None) -> str | None:
    """The commonest error of the run's method; None when nothing is wrong."""
    name = focus(record)
    if name is None or test not in record.methods[name].scores:
        return None
    score = record.methods[name].scores[test]
    table, labels = score.confusion, list(score.f1)
    wrong = [(n, gold, given) for gold, row in enumerate(table) for given, n in enumerate(row) if gold != given]
    most, gold, given = max(wrong, key=lambda cell: cell[0])
    if not most:
        return None
    return (
        f"On {test}, `{name}` errs most by calling {labels[gold]} ones {labels[given]}: "
        f"{most:,} of {sum(table[gold]):,}."
    )


def warnings(record: RunRecord) -> tuple[str, ...]:
    """What has to be known before any figure of the run is read."""
    failed = record.export_failure and f"THE EXPORT FAILED ITS PROOF. {record.export_failure}."
    return tuple(line for line in (sample_warning(record), failed) if line)


def sample_warning(record: RunRecord) -> str | None:
    """A line saying that figures come from the bundled sample; None when no set of the run is one."""
    names = sorted({data.name for data in record.data.values() if sample_domain(data.name)})
    if not names:
        return None
    return (
        f"BUNDLED SAMPLE: {', '.join(names)} was written for this project. These figures show that the "
        "run works; they are not results on a public data set."
    )


def _difference(comparison: Comparison) -> str:
    corrected = formatting.p_value(comparison.p_corrected).removeprefix("p ").removeprefix("= ")
    return (
        f"`{comparison.a}` minus `{comparison.b}` is {formatting.points(comparison.difference)} points of macro-F1 "
        f"{formatting.between(comparison.low, comparison.high)}, paired {formatting.p_value(comparison.p)}, "
        f"{corrected} corrected, n = {comparison.n:,}"
    )
