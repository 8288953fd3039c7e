"""Put the edit where restoring a component brings back most of the answer."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedModel

from absa_edit.config import LocateSettings, Shape
from absa_edit.errors import PlanError
from absa_edit.locate.plan import plan_of
from absa_edit.records import EditPlan, Part, Site, Trace
from absa_edit.statistics import bootstrap_weights, weighted_means
from absa_edit.trace.effects import indirect_effects, layer_profile, mean_effect


def by_trace(
    trace: Trace,
    model: PreTrainedModel,
    settings: LocateSettings,
    *,
    draws: int,
    rng: np.random.Generator,
) -> EditPlan:
    """The window of layers, or the single sites, with the largest effects, and how stable that choice is.

    A site's score is its average indirect effect at the role where it is largest. A window's score is the
    sum over its sites. Both hold the same number of sites, so that they cost the same.
    """
    missing = [part.value for part in settings.parts if part not in trace.parts]
    if missing:
        raise PlanError(f"locate=trace needs {missing[0]} traced; add it to trace.parts or take it off locate.parts")
    columns = [trace.parts.index(part) for part in settings.parts]
    effects = indirect_effects(trace)[:, columns]
    chosen = _choose(layer_profile(mean_effect(effects)), settings)
    weights = bootstrap_weights(trace.sentence_ids, draws, rng)
    overlaps = []
    for mean in weighted_means(weights, effects):
        other = _choose(layer_profile(mean), settings)
        overlaps.append(len(chosen & other) / len(chosen | other))
    return plan_of(model, chosen, settings.rank, "trace", float(np.mean(overlaps)))


def window_width(settings: LocateSettings, layers: int) -> int:
    """Layers in the window: as set, else a third of the model's."""
    width = max(1, round(layers / 3)) if settings.width is None else settings.width
    if not 1 <= width <= layers:
        raise PlanError(f"locate.width={width}: the model has {layers} layers")
    return width


def _choose(scores: Float[np.ndarray, "part layer"], settings: LocateSettings) -> set[Site]:
    layers = scores.shape[1]
    width = window_width(settings, layers)
    if settings.shape is Shape.window:
        sums = np.convolve(scores.sum(0), np.ones(width), "valid")
        first = int(sums.argmax())
        return {Site(layer, part) for part in settings.parts for layer in range(first, first + width)}
    strongest = np.argsort(-scores, axis=None, kind="stable")[: width * len(settings.parts)]
    return {_site(settings.parts, int(i), layers) for i in strongest}


def _site(parts: list[Part], index: int, layers: int) -> Site:
    return Site(index % layers, parts[index // layers])
