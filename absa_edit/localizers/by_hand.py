"""Plans that nothing is measured for: layers of your choice, a share of the depth, a plan file, every layer."""

from __future__ import annotations

import math

import numpy as np

from absa_edit.context import Context
from absa_edit.errors import PlanError
from absa_edit.localizers.base import Localizer, localizer
from absa_edit.localizers.plan import every_layer, plan_of, read_plan, sites_of
from absa_edit.localizers.settings import LocateSettings
from absa_edit.records import EditPlan


class _ByHand(Localizer):
    chooses = False

    def check(self, ctx: Context, settings: LocateSettings) -> None:
        self.plan(ctx, settings, np.random.default_rng())


@localizer("manual")
class Manual(_ByHand):
    """The layers in `locate.layers`."""

    takes = "layers"

    def plan(self, ctx: Context, settings: LocateSettings, rng: np.random.Generator) -> EditPlan:
        sites = sites_of(ctx.lm.runner, settings.layers, settings.parts)
        return plan_of(ctx.lm.runner, sites, settings.rank, self.name)


@localizer("depth")
class Depth(_ByHand):
    """The layers whose middle lies in the share `locate.depth` of the model: one window for models of any depth."""

    takes = "depth"

    def plan(self, ctx: Context, settings: LocateSettings, rng: np.random.Generator) -> EditPlan:
        layers = layers_in(settings.depth[0], settings.depth[1], ctx.lm.runner.layers)
        if not layers:
            raise PlanError(
                f"locate.depth={settings.depth}: no middle of the model's {ctx.lm.runner.layers} layers lies there; "
                "take a larger share"
            )
        return plan_of(ctx.lm.runner, sites_of(ctx.lm.runner, layers, settings.parts), settings.rank, self.name)


def layers_in(start: float, end: float, layers: int) -> range:
    """The layers i of `layers` with start <= (i + 0.5) / layers < end."""
    return range(math.ceil(start * layers - 0.5), math.ceil(end * layers - 0.5))


@localizer("file")
class File(_ByHand):
    """The plan in the file `locate.plan`."""

    takes = "plan"

    def plan(self, ctx: Context, settings: LocateSettings, rng: np.random.Generator) -> EditPlan:
        return read_plan(str(settings.plan), ctx.lm.runner)


@localizer("all")
class All(_ByHand):
    """Every layer."""

    def plan(self, ctx: Context, settings: LocateSettings, rng: np.random.Generator) -> EditPlan:
        sites = every_layer(ctx.lm.runner, settings.parts)
        return plan_of(ctx.lm.runner, sites, settings.rank, self.name)
