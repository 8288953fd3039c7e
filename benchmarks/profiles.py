"""Where the time of training steps goes, by kind of operation."""

from __future__ import annotations

import time

from fits import OURS, Job, adapted_to, model_of, prompts_of, window
from torch.profiler import ProfilerActivity, profile

from absa_edit.localizers.plan import plan_of
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.settings import Precision
from absa_edit.records import Part, Site
from absa_edit.training.loop import fit
from absa_edit.training.settings import FitSettings

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear"),
    "softmax and masks": ("softmax", "masked_fill", "where"),
    "copies, casts, indexing": ("copy", "cat", "index", "gather", "clone", "contiguous", "embedding", "fill", "zero"),
    "optimiser": ("adam", "foreach", "clip", "norm"),
}


def profiled(job: Job) -> dict[str, float]:
    """Share of the wall time of the second epoch by kind; what no operation took is Python's."""
    base = model_of(job)
    prompts, labels = prompts_of(job)
    plan = plan_of(
        BlockRunner(base), [Site(layer, Part.attn) for layer in window(BlockRunner(base).layers)], 4, "manual"
    )
    adapted = adapted_to(base, OURS[job.way], plan)
    recorder = profile(activities=[ProfilerActivity.CPU])
    began = 0.0
    wall = 0.0

    def evaluate() -> dict[str, float]:
        nonlocal began, wall
        if not began:
            recorder.start()
            began = time.perf_counter()
        else:
            wall = time.perf_counter() - began
            recorder.stop()
        return {"dev_accuracy": 0.0, "dev_macro_f1": 0.0}

    settings = FitSettings(epochs=2, patience=2, precision=Precision(job.precision))
    fit(adapted, prompts, labels, settings, evaluate, seed=0)
    shares = dict.fromkeys([*KINDS, "elementwise and other"], 0.0)
    for event in recorder.key_averages():
        name = event.key.removeprefix("aten::").lower()
        kind = next((k for k, names in KINDS.items() if any(n in name for n in names)), "elementwise and other")
        shares[kind] += event.self_cpu_time_total / 1e6 / wall
    return {**shares, "outside of operations": 1 - sum(shares.values()), "seconds": wall}
