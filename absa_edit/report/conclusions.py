"""What a run says, in sentences: did tracing help, what did it cost, where does the effect sit."""

from __future__ import annotations

from absa_edit.data.public_sets import sample_domain
from absa_edit.records import Part
from absa_edit.report import formatting
from absa_edit.report.tables import OUT_OF_DOMAIN, compared, interval_of, own_test, standing, tests_in_order
from absa_edit.results import Comparison, RunRecord

LEVEL = 0.05
"""Corrected p-value below which a difference is called one."""


def findings(record: RunRecord) -> tuple[str, ...]:
    """The conclusions of a run, one sentence each; those that the run cannot support are left out."""
    test = main_test(record)
    said = (control(record, test), *against_baselines(record, test), peak(record))
    return tuple(sentence for sentence in said if sentence)


def main_test(record: RunRecord) -> str | None:
    """The test set that conclusions are about: the own one, else the first; None when nothing was scored."""
    return own_test(record) or next(iter(tests_in_order(record)), None)


def control(record: RunRecord, test: str | None) -> str | None:
    """Whether the edit beats the same edit in random places, and who chose its own; None in a run without `edit`."""
    if test is None or "edit" not in record.methods:
        return None
    found, plan = compared(record, "edit", "random", test), record.methods["edit"].plan
    if found is None:
        return "The run does not compare `edit` with `random`, so it cannot say whether tracing helps."
    if plan and plan.source == "random":
        return "Both `edit` and `random` stand in places drawn at random, so the run cannot say whether tracing helps."
    source = plan.source if plan else "trace"
    chosen = "Tracing" if source == "trace" else f"The plan `{source}`, which no trace of this run chose,"
    budgets = [record.methods[name].trainable for name in ("edit", "random") if name in record.methods]
    unequal = f" Their budgets differ: {budgets[0]:,} and {budgets[-1]:,} parameters." * (len(set(budgets)) > 1)
    if told_apart(found) and found.difference > 0:
        return f"{chosen} beats random placement on {test}: {_difference(found)}.{unequal}"
    if told_apart(found):
        return f"{chosen} did not beat random placement on {test}, it did worse: {_difference(found)}.{unequal}"
    return f"{chosen} did not beat random placement on {test}: {_difference(found)}.{unequal}"


def caveats(record: RunRecord) -> tuple[str, ...]:
    """What stands beside the control: the same difference on other sets, and what the intervals do not hold."""
    if control(record, main_test(record)) is None:
        return ()
    elsewhere = [test for test in tests_in_order(record) if test != main_test(record)]
    found = [c for test in elsewhere if (c := compared(record, "edit", "random", test)) is not None]
    against = "; ".join(
        f"{c.test} {formatting.points(c.difference)} {formatting.between(c.low, c.high)} "
        f"({formatting.p_value(c.p_corrected)} corrected)"
        for c in found
    )
    abroad = all(standing(record, c.test) == OUT_OF_DOMAIN for c in found)
    placed = "random" in record.methods
    said = (
        f"{'Out of domain' if abroad else 'On other sets'}, `edit` minus `random` in points of macro-F1: {against}."
        if found
        else "",
        f"This is one seed{' and one random placement' if placed else ''}. The intervals are over test sentences; they "
        f"do not hold the luck of the seed{' or of the placement' if placed else ''}.",
    )
    return tuple(sentence for sentence in said if sentence)


def against_baselines(record: RunRecord, test: str | None) -> tuple[str, ...]:
    """How the edit stands beside the untrained model and the whole-model baselines."""
    if test is None or "edit" not in record.methods:
        return ()
    score = interval_of(record, "edit", test, "macro_f1")
    if score is None:
        return ()
    edit = record.methods["edit"]
    said = [f"`edit` trains {formatting.percent(edit.share)} of the weights and reaches macro-F1 {score.percent()}"]
    said += [_beside(record, name, test) for name in ("zero_shot", "lora", "full") if name in record.methods]
    return (f"{'; '.join(said)}.",)


def _beside(record: RunRecord, name: str, test: str) -> str:
    share = record.methods[name].share
    named = f"`{name}` ({formatting.percent(share)} of the weights)" if share else f"`{name}`"
    found, score = compared(record, "edit", name, test), interval_of(record, name, test, "macro_f1")
    if found is None:
        return f"{named} {'was not scored' if score is None else f'reaches {score.percent()}'}, not compared"
    verdict = "better than" if found.difference > 0 else "worse than"
    if not told_apart(found):
        verdict = "not told apart from"
    return f"{verdict} {named}, {formatting.points(found.difference)} {formatting.between(found.low, found.high)}"


def peak(record: RunRecord) -> str | None:
    """Where the averaged trace is largest; None in a run without a trace."""
    if record.trace is None:
        return None
    found, total, window = record.trace.peak, record.trace.total_effect, record.trace.window
    several = window > 1 and found.part in (Part.attn, Part.mlp)
    gives = "is estimated to give" if found.estimated else "gives"
    return (
        f"The trace peaks in {found.part.value} of layer {found.layer} "
        f"(of {record.model.layers}, from 0) at the role `{found.role.value}`: restoring "
        f"{f'the {window} layers around it' if several else 'it'} {gives} back "
        f"{found.effect.percent()} of the {100 * total.value:.1f} points of p(gold) that corruption takes "
        f"(n = {found.effect.n})."
    )


def budget(record: RunRecord) -> str | None:
    """How the edit's parameters and training time stand beside the whole-model baselines; None without both."""
    edit = record.methods.get("edit")
    others = {name: record.methods[name] for name in ("lora", "full") if name in record.methods}
    if edit is None or edit.fit is None or not edit.trainable or not others:
        return None
    fewer = " and ".join(_fewer(edit.trainable, name, m.trainable) for name, m in others.items())
    took = " and ".join(f"{formatting.duration(m.fit.seconds)} (`{n}`)" for n, m in others.items() if m.fit)
    return (
        f"`edit` trains {edit.trainable:,} parameters, {fewer}; its training took "
        f"{formatting.duration(edit.fit.seconds)}, against {took}."
    )


def _fewer(own: int, name: str, other: int) -> str:
    """How many times fewer than another method's; of like or larger numbers, the other one."""
    if other < 1.5 * own:
        return f"beside {other:,} of `{name}`"
    return f"{other / own:,.0f} times fewer than `{name}`"


def learned(record: RunRecord) -> str | None:
    """Which method got furthest on the development set; None when none was trained."""
    fits = {name: m.fit for name, m in record.methods.items() if m.fit is not None and m.fit.history}
    if not fits:
        return None
    first = max(fits, key=lambda name: fits[name].best_macro_f1)
    said = [
        f"`{name}` reaches {100 * fits[name].best_macro_f1:.1f} after epoch {fits[name].best_epoch}"
        for name in dict.fromkeys((first, "edit"))
        if name in fits
    ]
    n = f" (n = {record.data['dev'].n:,})" if "dev" in record.data else ""
    return f"Highest macro-F1 on the development set{n}: {'; '.join(said)}."


def confused(record: RunRecord, test: str | None) -> str | None:
    """The commonest error of the edit, or of the last method without one; None when nothing is wrong."""
    name = "edit" if "edit" in record.methods else next(reversed(record.methods), None)
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


def told_apart(found: Comparison) -> bool:
    """Whether a paired difference stays significant after correction."""
    return found.p_corrected < LEVEL


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


def _difference(found: Comparison) -> str:
    return (
        f"`{found.a}` minus `{found.b}` is {formatting.points(found.difference)} points of macro-F1 "
        f"{formatting.between(found.low, found.high)}, paired {formatting.p_value(found.p)}, "
        f"{formatting.p_value(found.p_corrected).removeprefix('p ').removeprefix('= ')} corrected, n = {found.n:,}"
    )
