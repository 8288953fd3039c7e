"""The control that must always run beside a located edit: as many sites of each part, drawn at random."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedModel

from absa_edit.errors import PlanError
from absa_edit.lm.decoder import Decoder
from absa_edit.locate.plan import plan_of
from absa_edit.records import EditPlan, Site


def by_chance(like: EditPlan, model: PreTrainedModel, *, rng: np.random.Generator) -> EditPlan:
    """A plan with the parts, ranks and parameters of `like` in randomly drawn layers.

    Raises `PlanError` when `like` leaves no other choice.
    """
    layers = Decoder(model).layers
    counts = {part: sum(t.site.part is part for t in like.targets) for part in {t.site.part for t in like.targets}}
    ranks = {t.rank for t in like.targets}
    if len(ranks) > 1:
        raise PlanError(f"a random plan needs one rank at all sites, the plan has {sorted(ranks)}")
    if all(count == layers for count in counts.values()):
        raise PlanError("a random plan like one of all layers is that plan; leave the method `random` out")
    theirs = {t.site for t in like.targets}
    while True:
        sites = {
            Site(int(layer), part)
            for part, count in sorted(counts.items())
            for layer in rng.choice(layers, count, replace=False)
        }
        if sites != theirs:
            return plan_of(model, sites, ranks.pop(), "random")
