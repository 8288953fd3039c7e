"""Put the edit where restoring a component brings back most of the answer."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedModel

from absa_edit.errors import PlanError
from absa_edit.localizers.plan import kinds_of, plan_of
from absa_edit.localizers.settings import LocateSettings, Shape
from absa_edit.records import EditPlan, Part, Site, Trace
from absa_edit.resampling import bootstrap_weights, weighted_means
from absa_edit.tracing.effects import head_effects, indirect_effects, layer_profile, mean_effect
from absa_edit.tracing.settings import Engine


def traced_plan(
    trace: Trace,
    model: PreTrainedModel,
    settings: LocateSettings,
    *,
    draws: int,
    rng: np.random.Generator,
) -> EditPlan:
    """The window of layers, or the single sites (heads, too), with the largest effects, and how stable that choice is.

    A site's score is its average indirect effect at the role where it is largest. A window's score is the
    sum over its sites. Both hold the same number of sites, unless `settings.sites` says another.
    """
    chosen, *others = choices(trace, model, settings, draws=draws, rng=rng)
    overlap = np.mean([len(chosen & other) / len(chosen | other) for other in others])
    return plan_of(model, chosen, settings.rank, "trace", float(overlap))


def choices(
    trace: Trace, model: PreTrainedModel, settings: LocateSettings, *, draws: int, rng: np.random.Generator
) -> list[set[Site]]:
    """The sites that the trace chooses, followed by those that each of `draws` resamples of its sentences would."""
    kinds = kinds_of(model, settings.parts)
    effects = _effects(trace, settings.parts)
    means = weighted_means(bootstrap_weights(trace.sentence_ids, draws, rng), effects)
    return [_choose(layer_profile(mean), kinds, settings) for mean in (mean_effect(effects), *means)]


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


def _effects(trace: Trace, parts: list[Part]) -> Float[np.ndarray, "example kind role layer"]:
    """Indirect effects of the sites of `parts`; heads stand where parts do."""
    if parts == [Part.head] and trace.engine == Engine.auto:
        raise PlanError("locate.parts=[head]: trace.engine=auto runs no head exactly; trace with exact or attribution")
    if parts == [Part.head] and trace.restored_heads.size:
        return head_effects(trace)
    missing = [part.value for part in parts if part not in trace.parts]
    if missing:
        raise PlanError(f"locate=trace needs {missing[0]} traced; add it to trace.parts or take it off locate.parts")
    return indirect_effects(trace)[:, [trace.parts.index(part) for part in parts]]


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
