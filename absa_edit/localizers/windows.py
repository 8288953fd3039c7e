"""Controls that nothing is measured for: a window drawn at random, the first, the middle and the last one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from absa_edit.context import Context
from absa_edit.errors import PlanError
from absa_edit.localizers.base import Localizer, localizer, window_width
from absa_edit.localizers.plan import moved, plan_of, sites_of
from absa_edit.localizers.settings import LocateSettings
from absa_edit.records import EditPlan


class _Window(Localizer, ABC):
    """A window of `locate.width` layers; for a method that names it, the run's plan moved there as it is.

    What is moved keeps its width, parts, heads and ranks, so that a window stays a window of the same budget: what
    differs is its place alone. Cost: none.
    """

    chooses = False
    follows = True

    @abstractmethod
    def start(self, starts: range, rng: np.random.Generator, taken: int | None) -> int:
        """The first layer of the window, of all that it can have; `taken` is that of the plan to be like."""

    def check(self, ctx: Context, settings: LocateSettings) -> None:
        self.plan(ctx, settings, np.random.default_rng())

    def plan(self, ctx: Context, settings: LocateSettings, rng: np.random.Generator) -> EditPlan:
        runner = ctx.lm.runner
        width = window_width(settings, runner.layers)
        first = self.start(range(runner.layers - width + 1), rng, None)
        sites = sites_of(runner, range(first, first + width), settings.parts)
        return plan_of(runner, sites, settings.rank, self.name)

    def like(
        self, ctx: Context, plan: EditPlan, rng: np.random.Generator, *, layers_together: bool = False
    ) -> EditPlan:
        """The plan, moved; with `layers_together` into the last block only where it reaches that itself."""
        lowest, highest = plan.layers()[0], plan.layers()[-1]
        layers = ctx.lm.runner.layers
        if layers_together and highest < layers - 1:  # a representation edit has no parameters there
            layers -= 1
        first = self.start(range(layers - (highest - lowest)), rng, lowest)
        return moved(plan, first - lowest, ctx.lm.runner, self.name)


@localizer("random_window")
class RandomWindow(_Window):
    """A window drawn at random, all places equally likely but for that of the run's plan, where it follows that.

    `random` draws as many sites wherever they fall: against it a window differs by its place and by being one.
    """

    def start(self, starts: range, rng: np.random.Generator, taken: int | None) -> int:
        others = [first for first in starts if first != taken]
        if not others:
            raise PlanError(
                "a random window like one that fits nowhere else is that window; leave the method with "
                f"locate={self.name} out"
            )
        return int(rng.choice(others))


@localizer("first")
class FirstWindow(_Window):
    """The window that begins with the first layer."""

    def start(self, starts: range, rng: np.random.Generator, taken: int | None) -> int:
        return starts[0]


@localizer("middle")
class MiddleWindow(_Window):
    """The window in the middle; of two such the lower one."""

    def start(self, starts: range, rng: np.random.Generator, taken: int | None) -> int:
        return starts[(len(starts) - 1) // 2]


@localizer("last")
class LastWindow(_Window):
    """The window that ends with the last layer."""

    def start(self, starts: range, rng: np.random.Generator, taken: int | None) -> int:
        return starts[-1]
