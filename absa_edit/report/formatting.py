"""Numbers as people read them: percent, counts, durations, sizes, p-values."""

from __future__ import annotations

from absa_edit.records import EditPlan, Role
from absa_edit.results import Interval

Number = int | float  # said in full because the run-time checks of the tests take `float` literally
MINUS = "\N{MINUS SIGN}"

ROLES: dict[Role, str] = {
    Role.instruction: "instruction",
    Role.sentence: "sentence",
    Role.before: "before aspect",
    Role.aspect: "aspect",
    Role.after: "after aspect",
    Role.punctuation: "punctuation",
    Role.question: "question",
    Role.aspect_again: "aspect, repeated",
    Role.last: "last token",
}
"""Roles as figures and sentences name them."""
NATS = ("log_loss",)
"""Metrics that are no shares: written as they are, not in percent."""


def percent(share: Number) -> str:
    """`0.20 %`, `12 %`: two significant digits below 10 %, so that small budgets stay apart."""
    value = 100 * share
    if value == 0:
        return "0 %"
    if value >= 10:
        return f"{value:.0f} %"
    return f"{value:.2f} %" if value >= 0.095 else f"{value:.1g} %"


def points(difference: Number) -> str:
    """`+1.5`, `−0.3`: a difference of two shares in percentage points."""
    value = round(100 * difference, 1) + 0.0
    return f"{MINUS if value < 0 else '+'}{abs(value):.1f}"


def between(low: Number, high: Number) -> str:
    """`[−1.0, +2.1]`: the interval of a difference in percentage points."""
    return f"[{points(low)}, {points(high)}]"


def score(metric: str, of: Interval) -> str:
    """`71.5 [68.0, 74.9]` of a share, in percent; `0.715 [0.680, 0.749]` of a log-loss, in nats."""
    return of.plain() if metric in NATS else of.percent()


def value(metric: str, of: Number) -> str:
    """The same without an interval."""
    return f"{of:.3f}" if metric in NATS else f"{100 * of:.1f}"


def change(metric: str, difference: Number) -> str:
    """`+1.5` in points, or of a log-loss `+0.015` in nats."""
    if metric not in NATS:
        return points(difference)
    rounded = round(difference, 3) + 0.0
    return f"{MINUS if rounded < 0 else '+'}{abs(rounded):.3f}"


def changes(metric: str, low: Number, high: Number) -> str:
    """The interval of a difference, in the unit of `change`."""
    return f"[{change(metric, low)}, {change(metric, high)}]"


def short(count: Number) -> str:
    """`940`, `34.6k`, `6.74B`: a count in three digits."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.0f}"


def perplexity(value: Number | None) -> str:
    """`31.25`; a model that is broken has none."""
    return "not finite" if value is None else f"{value:.2f}"


def duration(seconds: Number) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def megabytes(size: int) -> str:
    """`812 MB`, `1,480 MB` (10^6 bytes)."""
    return f"{size / 1e6:,.0f} MB"


def p_value(p: Number) -> str:
    """`p < 0.001` or `p = 0.034`."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def runs(layers: tuple[int, ...]) -> str:
    """`4-7, 9`: ascending layers with neighbours joined."""
    groups: list[list[int]] = []
    for layer in layers:
        if groups and layer == groups[-1][1] + 1:
            groups[-1][1] = layer
        else:
            groups.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in groups)


def plan_sketch(plan: EditPlan, layers: int) -> list[str]:
    """One line a part, a mark a layer: `attn  ....####....`, filled where the plan edits."""
    lines = []
    for part in sorted({t.site.part for t in plan.targets}):
        edited = {t.site.layer for t in plan.targets if t.site.part is part}
        lines.append(f"{part.value:<5} {''.join('#' if i in edited else '.' for i in range(layers))}")
    return lines
