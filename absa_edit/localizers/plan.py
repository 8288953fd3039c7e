"""What every localizer ends with: sites and a rank as a checked `EditPlan`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from absa_edit.errors import PlanError
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan, Part, Site, Target
from absa_edit.storage import load


def plan_of(
    runner: BlockRunner, sites: Iterable[Site], rank: int, source: str, stability: float | None = None
) -> EditPlan:
    """The plan that edits `sites` with `rank` each; sites in order of layer."""
    targets = tuple(Target(site, rank) for site in sorted(sites))
    return _counted(EditPlan(source, targets, 0, stability), runner)


def moved(plan: EditPlan, layers: int, runner: BlockRunner, source: str) -> EditPlan:
    """The plan with all of its sites so many layers higher up."""
    targets = tuple(Target(replace(t.site, layer=t.site.layer + layers), t.rank) for t in plan.targets)
    return _counted(EditPlan(source, targets, 0), runner)


def every_layer(runner: BlockRunner, parts: Sequence[Part]) -> list[Site]:
    """All sites of the given parts."""
    return sites_of(runner, range(runner.layers), parts)


def sites_of(runner: BlockRunner, layers: Iterable[int], parts: Sequence[Part]) -> list[Site]:
    """All sites of the given parts in some layers, layer by layer."""
    kinds = kinds_of(runner, parts)
    return [Site(layer, *kind) for layer in layers for kind in kinds]


def kinds_of(runner: BlockRunner, parts: Sequence[Part]) -> list[tuple[Part, int | None]]:
    """Part and index of each site that a layer has of the given parts: `head` stands for every head."""
    heads = runner.heads
    return [(part, i) for part in parts for i in (range(heads) if part is Part.head else (None,))]


def read_plan(path: str, runner: BlockRunner) -> EditPlan:
    """The plan in a `plan.json`, checked against the model; its parameter count is counted anew.

    Its source is the file: whoever made it, the plan may have been changed since, and its stability is then another's.
    """
    if not Path(path).is_file():
        raise PlanError(f"locate.plan={path}: no such file; give a plan.json of an earlier run")
    return _counted(replace(load(EditPlan, Path(path)), source="file", stability=None), runner)


def checked(plan: EditPlan, runner: BlockRunner) -> EditPlan:
    """`plan` itself.

    Raises `PlanError` naming the first target that matches nothing in the model.
    """
    if not plan.targets:
        raise PlanError(f"the plan from {plan.source} has no targets")
    attention_layers = {t.site.layer for t in plan.targets if t.site.part is Part.attn}
    seen = set()
    for site, rank in ((t.site, t.rank) for t in plan.targets):
        if site.part is Part.block:
            raise PlanError(f"{site}: only attn, mlp and head outputs can be edited with a low-rank delta")
        if not 0 <= site.layer < runner.layers:
            raise PlanError(f"{site}: the model has layers 0 to {runner.layers - 1}")
        if site.part is not Part.head and site.index is not None:
            raise PlanError(f"{site}: only heads have an index; take it off")
        if site.part is Part.head and (site.index is None or not 0 <= site.index < runner.heads):
            raise PlanError(f"{site}: expected the head's index, 0 to {runner.heads - 1}")
        if site in seen:
            raise PlanError(f"{site}: stands in the plan twice")
        if site.part is Part.head and site.layer in attention_layers:
            raise PlanError(f"{site}: the plan edits all heads of the layer as attn@{site.layer}; take one of them out")
        most = min(runner.shape(site))
        if not 1 <= rank <= most:
            raise PlanError(f"{site}: rank {rank}, expected 1 to {most}")
        seen.add(site)
    return plan


def _counted(plan: EditPlan, runner: BlockRunner) -> EditPlan:
    targets = checked(plan, runner).targets
    return replace(plan, parameters=sum(t.rank * sum(runner.shape(t.site)) for t in targets))
