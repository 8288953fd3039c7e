"""How far to trust an estimated trace: its rank agreement with the exact engine on some examples."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from absa_edit.records import Trace
from absa_edit.resampling import bootstrap_weights, percentile_interval, weighted_means
from absa_edit.results import Agreement
from absa_edit.tracing.effects import head_effects, indirect_effects

TOP = 10


def agreement(exact: Trace, estimated: Trace, *, draws: int, rng: np.random.Generator) -> Agreement | None:
    """Spearman correlation of the two tables of average indirect effects (part x layer x role, single heads too where
    both have them), and the share of the ten strongest cells (of a small table, of the stronger half) that they have in
    common; intervals by bootstrap over sentences.

    Both traces are of the same examples in the same order. None where nothing can be ranked: one cell, or all alike.
    """
    n = len(exact.example_ids)
    tables = [indirect_effects(trace).reshape(n, -1) for trace in (exact, estimated)]
    if exact.restored_heads.size and estimated.restored_heads.size:
        heads = (head_effects(trace).reshape(n, -1) for trace in (exact, estimated))
        tables = [np.concatenate(pair, axis=1) for pair in zip(tables, heads, strict=True)]
    known = ~np.isnan(tables[0]).all(0)
    if known.sum() < 2:
        return None
    top = min(TOP, -(-int(known.sum()) // 2))
    weights = np.concatenate((np.ones((1, n)), bootstrap_weights(exact.sentence_ids, draws, rng)))
    a, b = (weighted_means(weights, table[:, known]) for table in tables)
    pairs = [(x[both], y[both]) for x, y in zip(a, b, strict=True) if (both := ~np.isnan(x)).sum() > top]
    rank = np.array([_spearman(x, y) for x, y in pairs])
    if np.isnan(rank[0]):
        return None
    overlap = np.array([len({*np.argsort(x)[-top:]} & {*np.argsort(y)[-top:]}) / top for x, y in pairs])
    return Agreement(
        percentile_interval(float(rank[0]), rank[1:], n), percentile_interval(float(overlap[0]), overlap[1:], n), top
    )


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # nan where all are alike
        ranks = np.corrcoef(rankdata(x), rankdata(y))
    return float(ranks[0, 1])
