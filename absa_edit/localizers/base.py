"""What a localizer is, and what all have in common: choosing sites by their scores, stability, the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar, cast

import numpy as np
from jaxtyping import Float

from absa_edit.context import Context
from absa_edit.errors import PlanError
from absa_edit.localizers.plan import every_layer, kinds_of, plan_of
from absa_edit.localizers.settings import LOCALIZERS, LocateSettings, Shape
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan, Part, Site
from absa_edit.resampling import bootstrap_weights, weighted_means

L = TypeVar("L", bound="type[Localizer]")
DRAWS = 200
"""Resamples of the sentences that a plan's stability is judged by."""


@dataclass(frozen=True)
class SiteScores:
    """How much each site matters in each example; sites are kinds (a part, or one head of it) by layers.

    Where a site has several scores in an example (its effect at different tokens, say), each is a view: examples are
    averaged first, then the largest view of a site counts.
    """

    values: Float[np.ndarray, "example kind view layer"]
    """Larger is more important; nan where a view says nothing of an example."""
    sentence_ids: Sequence[str]
    """Of the examples: resamples keep sentences whole."""

    @classmethod
    def of(cls, values: Float[np.ndarray, "example kind layer"], sentence_ids: Sequence[str]) -> SiteScores:
        """Scores of which each site has one an example."""
        return cls(values[:, :, None], sentence_ids)

    def resampled(self, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draw_and_first kind layer"]:
        """The score of each site over all examples, followed by that in each resample."""
        equal_weights = np.ones((1, len(self.sentence_ids)))
        all_weights = (equal_weights, bootstrap_weights(self.sentence_ids, draws, rng))
        means = np.concatenate([weighted_means(weights, self.values) for weights in all_weights])
        return np.asarray(np.fmax.reduce(means, axis=-2, initial=0.0))


@dataclass(frozen=True)
class LowestScores(SiteScores):
    """Scores of which the smallest are chosen."""

    def resampled(self, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draw_and_first kind layer"]:
        return -super().resampled(draws, rng)


class Localizer:
    """Chooses where an edit goes. One that scores sites says `score`; one that chooses otherwise says `plan`."""

    name: ClassVar[str]
    """Under which it is registered."""
    settings: ClassVar[type[LocateSettings]] = LocateSettings
    chooses: ClassVar[bool] = True
    """Whether it chooses sites anywhere, as many as `locate.sites` says, where `locate.shape` asks for these."""
    takes: ClassVar[str | None] = None
    """The setting that this localizer alone needs."""
    follows: ClassVar[bool] = False
    """Whether a method that names it gets a plan like that of the run (`like`): a control."""
    needs_trace: ClassVar[bool] = False

    def check(self, ctx: Context, settings: LocateSettings) -> None:
        """Raise the `PlanError` that `plan` would raise in any case: finding out by it may take hours."""
        plan_of(ctx.lm.runner, sites_possible(ctx.lm.runner, settings), settings.rank, self.name)

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        """The scores of the sites of `settings.parts`: kinds in the order of `kinds_of`."""
        raise TypeError(f"localizer {self.name} scores no sites")

    def plan(self, ctx: Context, settings: LocateSettings, rng: np.random.Generator) -> EditPlan:
        """The window of layers, or the single sites, with the largest scores, and how stable that choice is.

        A window's score is the sum over its sites. Both hold the same number of sites, unless `settings.sites` says
        another. Raises `PlanError` where there is none.
        """
        chosen, *others = choices(ctx.lm.runner, self.score(ctx, settings), settings, draws=DRAWS, rng=rng)
        overlap = np.mean([len(chosen & other) / len(chosen | other) for other in others])
        return plan_of(ctx.lm.runner, chosen, settings.rank, self.name, float(overlap))

    def like(
        self, ctx: Context, plan: EditPlan, rng: np.random.Generator, *, layers_together: bool = False
    ) -> EditPlan:
        """A plan with the budget of `plan`, for a localizer that `follows`."""
        raise TypeError(f"localizer {self.name} follows no plan")


def localizer(name: str) -> Callable[[L], L]:
    """A decorator that registers a localizer: `@localizer("gradient")`."""

    def register(kind: L) -> L:
        kind.name = name
        return cast("L", LOCALIZERS(name)(kind))

    return register


def locate(ctx: Context, settings: LocateSettings, rng: np.random.Generator) -> EditPlan:
    """The plan of the localizer that `settings` name. Raises `PlanError` where it can make none."""
    chosen: Localizer = LOCALIZERS[settings.kind]()
    return chosen.plan(ctx, settings, rng)


def check(ctx: Context, settings: LocateSettings) -> None:
    """Raise the `PlanError` that `locate` would raise in any case."""
    chosen: Localizer = LOCALIZERS[settings.kind]()
    chosen.check(ctx, settings)


def choices(
    runner: BlockRunner, scores: SiteScores, settings: LocateSettings, *, draws: int, rng: np.random.Generator
) -> list[set[Site]]:
    """The sites that the scores choose, followed by those that each of `draws` resamples of the sentences would."""
    kinds = kinds_of(runner, settings.parts)
    return [_choose(profile, kinds, settings) for profile in scores.resampled(draws, rng)]


def window_width(settings: LocateSettings, layers: int) -> int:
    """Layers in the window: as set, else a third of the model's."""
    width = max(1, round(layers / 3)) if settings.width is None else settings.width
    if not 1 <= width <= layers:
        raise PlanError(f"locate.width={width}: the model has {layers} layers")
    return width


def site_count(settings: LocateSettings, layers: int, sites: int) -> int:
    """Sites of a plan: as set, else those of a window's layers; `sites` is how many all layers have.

    Raises `PlanError` for more than there are.
    """
    count = settings.sites or window_width(settings, layers) * sites // layers
    if count > sites:
        raise PlanError(f"locate.sites={count}: the model has {sites} of the kinds in locate.parts")
    return count


def sites_possible(runner: BlockRunner, settings: LocateSettings) -> list[Site]:
    """All sites of `settings.parts`. Raises `PlanError` where a plan would need more."""
    sites = every_layer(runner, settings.parts)
    site_count(settings, runner.layers, len(sites))
    return sites


def _choose(
    scores: Float[np.ndarray, "kind layer"], kinds: list[tuple[Part, int | None]], settings: LocateSettings
) -> set[Site]:
    layers = scores.shape[1]
    if settings.shape is Shape.window:
        width = window_width(settings, layers)
        sums = np.convolve(scores.sum(0), np.ones(width), "valid")
        first = int(sums.argmax())
        return {Site(layer, *kind) for kind in kinds for layer in range(first, first + width)}
    strongest = np.argsort(-scores, axis=None, kind="stable")[: site_count(settings, layers, scores.size)]
    return {Site(int(i % layers), *kinds[i // layers]) for i in strongest}
