"""Average indirect effects of a trace, with intervals over sentences, and where along the depth they sit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from absa_edit.records import Part, Role, Trace
from absa_edit.resampling import Weights, bootstrap_weights, percentile_interval, weighted_means
from absa_edit.results import Interval, PartDepth, Peak, TraceSummary
from absa_edit.tracing.settings import Engine


@dataclass(frozen=True)
class Effects:
    """The averaged trace: mean indirect effect p_restored - p_corrupted by part, role and layer."""

    parts: tuple[Part, ...]
    roles: tuple[Role, ...]
    aie: np.ndarray  # part role layer
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray  # role: examples that have a token of the role
    total: Interval
    """Average total effect p_clean - p_corrupted."""


@dataclass(frozen=True)
class TraceEffects:
    """What reports show of a trace."""

    parts: Effects
    heads: Effects | None
    """One table a head where `parts` has one a part; None without heads."""
    summary: TraceSummary


def indirect_effects(trace: Trace) -> Float[np.ndarray, "example part role layer"]:
    """p_restored - p_corrupted of each example and cell; nan where the example lacks the role.

    0 means that restoring brings nothing back, the example's total effect that it brings back all.
    Source: IE of Meng et al. 2022 (arXiv 2202.05262), section 2.1.
    """
    return np.asarray(trace.restored - trace.corrupted[:, None, None, None])


def head_effects(trace: Trace) -> Float[np.ndarray, "example head role layer"]:
    """As `indirect_effects`, of single heads."""
    return indirect_effects(replace(trace, restored=np.moveaxis(trace.restored_heads, -1, 1)))


def mean_effect(effects: Float[np.ndarray, "example ..."]) -> np.ndarray:
    """Mean over the examples that have the role; nan where none has."""
    return np.asarray(weighted_means(np.ones((1, len(effects))), effects)[0])


def trace_effects(trace: Trace, *, draws: int, rng: np.random.Generator) -> TraceEffects:
    """Mean effects of parts and of single heads, and their summary, with 95 % intervals of one sentence bootstrap."""
    weights = bootstrap_weights(trace.sentence_ids, draws, rng)
    heads = None
    if trace.restored_heads.size:
        restored = np.moveaxis(trace.restored_heads, -1, 1)  # example head role layer
        heads = _averaged(replace(trace, restored=restored, parts=(Part.head,) * restored.shape[1]), weights)
    return TraceEffects(_averaged(trace, weights), heads, _summary(trace, weights))


def _averaged(trace: Trace, weights: Weights) -> Effects:
    effects = indirect_effects(trace)
    resampled = weighted_means(weights, effects)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # a role that no example has
        low, high = np.nanquantile(resampled, [0.025, 0.975], axis=0)
    return Effects(
        trace.parts,
        trace.roles,
        mean_effect(effects),
        low,
        high,
        (~np.isnan(effects[:, 0, :, 0])).sum(0),
        _mean(trace.clean - trace.corrupted, weights),
    )


def _summary(trace: Trace, weights: Weights) -> TraceSummary:
    """The peak, the total effect and the depth profile."""
    effects = indirect_effects(trace)
    mean = mean_effect(effects)
    part, role, layer = (int(i) for i in np.unravel_index(np.nanargmax(mean), mean.shape))
    cell = trace.parts[part].value, trace.roles[role].value, layer
    estimated = trace.engine != Engine.exact and cell not in trace.exact_cells
    depth = {p.value: _depth(effects[:, i], weights, len(trace.sentence_ids)) for i, p in enumerate(trace.parts)}
    return TraceSummary(
        trace.engine,
        trace.corruption,
        trace.corrupted_tokens,
        trace.window,
        trace.samples,
        trace.counts,
        trace.seconds,
        _mean(trace.clean - trace.corrupted, weights),
        Peak(trace.parts[part], layer, trace.roles[role], _mean(effects[:, part, role, layer], weights), estimated),
        depth,
        {part: d.middle_third_share.value for part, d in depth.items()},
        dtype=trace.dtype,
        cells_run=len(trace.exact_cells) if trace.engine == Engine.auto else None,
    )


def layer_profile(mean: Float[np.ndarray, "*draw role layer"]) -> Float[np.ndarray, "*draw layer"]:
    """Effect of a layer: the largest over roles, and 0 where all are negative or nan.

    The largest rather than the sum, so that a role with many tokens does not outweigh the others.
    """
    return np.asarray(np.fmax.reduce(mean, axis=-2, initial=0.0))


def _depth(effects: Float[np.ndarray, "example role layer"], weights: Weights, n: int) -> PartDepth:
    profile = layer_profile(mean_effect(effects))
    resampled = layer_profile(weighted_means(weights, effects))
    layers = profile.shape[-1]
    depth = np.arange(layers) / max(layers - 1, 1)
    middle = (np.arange(layers) >= layers / 3) & (np.arange(layers) < 2 * layers / 3)

    def share(of: np.ndarray) -> Interval:
        """The effect-weighted mean of `of` over layers; 0 where no layer has an effect."""
        weight = profile.sum()
        value = float((profile * of).sum() / weight) if weight > 0 else 0.0
        total = resampled.sum(-1)
        draws = np.divide((resampled * of).sum(-1), total, out=np.full_like(total, np.nan), where=total > 0)
        return percentile_interval(value, draws, n)

    peak = percentile_interval(float(depth[profile.argmax()]), depth[resampled.argmax(-1)], n)
    return PartDepth(peak, share(depth), share(middle))


def _mean(values: Float[np.ndarray, " example"], weights: Weights) -> Interval:
    known = int((~np.isnan(values)).sum())
    return percentile_interval(float(np.nanmean(values)), weighted_means(weights, values), known)
