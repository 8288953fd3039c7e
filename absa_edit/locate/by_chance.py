"""The control that must always run beside a located edit: as many sites of each part, drawn at random."""

from __future__ import annotations

from collections import Counter

import numpy as np
from transformers import PreTrainedModel

from absa_edit.errors import PlanError
from absa_edit.locate.plan import every_layer, plan_of
from absa_edit.records import EditPlan, Part, Site


def by_chance(like: EditPlan, model: PreTrainedModel, *, rng: np.random.Generator) -> EditPlan:
    """A plan with the parts, ranks and parameters of `like` at randomly drawn sites.

    Raises `PlanError` when `like` leaves no other choice.
    """
    theirs = {t.site for t in like.targets}
    counts = Counter(site.part for site in theirs)
    choices = {part: every_layer(model, [part]) for part in sorted(counts)}
    ranks = {t.rank for t in like.targets}
    if len(ranks) > 1:
        raise PlanError(f"a random plan needs one rank at all sites, the plan has {sorted(ranks)}")
    if all(counts[part] == len(sites) for part, sites in choices.items()):
        raise PlanError("a random plan like one of all layers is that plan; leave the method `random` out")
    while True:
        sites: set[Site] = set()
        for part, every in choices.items():  # attn before head: a layer's heads are edited one by one or together
            free = [s for s in every if part is not Part.head or Site(s.layer, Part.attn) not in sites]
            sites |= {free[i] for i in rng.choice(len(free), counts[part], replace=False)}
        if sites != theirs:
            return plan_of(model, sites, ranks.pop(), "random")
