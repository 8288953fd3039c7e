"""The control that must always run beside a located edit: as many sites of each part, drawn at random."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from absa_edit.context import Context
from absa_edit.errors import PlanError
from absa_edit.localizers.base import Localizer, localizer, site_count, sites_possible
from absa_edit.localizers.plan import every_layer, plan_of
from absa_edit.localizers.settings import LocateSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan, Part, Site


@localizer("random")
class RandomControl(Localizer):
    """A window's worth of sites at random; for a method that names it, as many as the run's plan has."""

    follows = True

    def check(self, ctx: Context, settings: LocateSettings) -> None:
        self.plan(ctx, settings, np.random.default_rng())

    def plan(self, ctx: Context, settings: LocateSettings, rng: np.random.Generator) -> EditPlan:
        runner = ctx.lm.runner
        sites = sites_possible(runner, settings)
        first = sites[: site_count(settings, runner.layers, len(sites))]
        return random_plan(plan_of(runner, first, settings.rank, "manual"), runner, rng=rng)

    def like(
        self, ctx: Context, plan: EditPlan, rng: np.random.Generator, *, layers_together: bool = False
    ) -> EditPlan:
        return random_plan(plan, ctx.lm.runner, rng=rng, layers_together=layers_together)


def random_plan(
    like: EditPlan, runner: BlockRunner, *, rng: np.random.Generator, layers_together: bool = False
) -> EditPlan:
    """A plan with the parts, ranks and parameters of `like` at randomly drawn sites.

    With `layers_together` what `like` has in one layer stays together, and the last block is drawn only where `like`
    reaches it: a representation edit has parameters for each edited layer, but for that one.
    Raises `PlanError` when `like` leaves no other choice.
    """
    theirs = {t.site for t in like.targets}
    ranks = {t.rank for t in like.targets}
    if len(ranks) > 1:
        raise PlanError(f"a random plan needs one rank at all sites, the plan has {sorted(ranks)}")
    counts = Counter(site.part for site in theirs)
    choices = {part: every_layer(runner, [part]) for part in sorted(counts)}
    layers = range(max(runner.layers - 1, like.layers()[-1] + 1))
    no_other = all(counts[part] == len(sites) for part, sites in choices.items())
    if no_other or (layers_together and len(like.layers()) == len(layers)):
        raise PlanError("a random plan like one of all layers is that plan; leave the method `random` out")
    while True:
        sites = _layers_moved(like, layers, rng) if layers_together else _sites_drawn(choices, counts, rng)
        if sites != theirs:
            return plan_of(runner, sites, ranks.pop(), "random")


def _sites_drawn(choices: dict[Part, list[Site]], counts: Counter[Part], rng: np.random.Generator) -> set[Site]:
    """As many sites of each part, wherever they fall."""
    sites: set[Site] = set()
    for part, candidates in choices.items():  # attn before head: a layer's heads are edited one by one or together
        free = [s for s in candidates if part is not Part.head or Site(s.layer, Part.attn) not in sites]
        sites |= {free[i] for i in rng.choice(len(free), counts[part], replace=False)}
    return sites


def _layers_moved(like: EditPlan, layers: range, rng: np.random.Generator) -> set[Site]:
    """Each layer's sites in a layer drawn for it."""
    edited_layers = like.layers()
    drawn = dict(zip(edited_layers, rng.choice(len(layers), len(edited_layers), replace=False).tolist(), strict=True))
    return {replace(target.site, layer=drawn[target.site.layer]) for target in like.targets}
