"""Where the time of training steps goes: by kind of operation, and outside the blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator
from fits import Job, adapted_of, prompts_of, settings_of
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from absa_edit.model.block_runner import BlockRunner
from absa_edit.training import loop
from absa_edit.training.loop import fit

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear"),
    "softmax and masks": ("softmax", "masked_fill", "where"),
    "copies, casts, indexing": ("copy", "cat", "index", "gather", "clone", "contiguous", "embedding", "fill", "zero"),
    "optimiser": ("adam", "foreach", "clip", "norm"),
}


def profiled(job: Job) -> dict[str, float]:
    """Share of the wall time of the second epoch by kind; what no operation took is Python's.

    `outside of blocks` is measured in a training of its own, without the profiler, which makes small operations slow.
    """
    prompts, labels = prompts_of(job)
    adapted = adapted_of(job)
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

    fit(adapted, prompts, labels, settings_of(job), evaluate, seed=0)
    shares = dict.fromkeys([*KINDS, "elementwise and other"], 0.0)
    for event in recorder.key_averages():
        name = event.key.removeprefix("aten::").lower()
        kind = next((k for k, names in KINDS.items() if any(n in name for n in names)), "elementwise and other")
        shares[kind] += event.self_cpu_time_total / 1e6 / wall
    return {
        **shares,
        "outside of operations": 1 - sum(shares.values()),
        "outside of blocks": outside_blocks(job)["share"],
        "seconds": wall,
    }


class Clocks:
    """Seconds of training steps, and of the blocks in them, forward and back."""

    def __init__(self, job: Job) -> None:
        self.trains_first = job.way == "full"
        self.steps: list[float] = []
        self.blocks: list[float] = []
        self._in_blocks = 0.0
        self._back: list[float] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        """All training inside is timed."""
        step, run, backward = loop._step, BlockRunner.run, Accelerator.backward

        def timed_step(*args: Any) -> float:
            self._in_blocks, began = 0.0, time.perf_counter()
            loss = step(*args)
            self.steps.append(time.perf_counter() - began)
            self.blocks.append(self._in_blocks)
            return loss

        def timed_run(runner: BlockRunner, hidden: Tensor, *args: Any) -> Tensor:
            if torch.is_grad_enabled() and hidden.requires_grad:
                hidden.register_hook(self._reached)
            began = time.perf_counter()
            try:
                left = run(runner, hidden, *args)
            finally:
                self._in_blocks += time.perf_counter() - began
            if left.requires_grad:
                left.register_hook(self._reached)
            return left

        def timed_backward(accelerator: Accelerator, loss: Tensor) -> None:
            self._back.clear()
            backward(accelerator, loss)
            ended = time.perf_counter()
            # Gradients reach what leaves the last block first; where embeddings train, what enters the first one last.
            if self._back:
                self._in_blocks += (self._back[-1] if self.trains_first else ended) - self._back[0]

        with (
            patch.object(loop, "_step", timed_step),
            patch.object(BlockRunner, "run", timed_run),
            patch.object(Accelerator, "backward", timed_backward),
        ):
            yield

    def _reached(self, _: Tensor) -> None:
        self._back.append(time.perf_counter())


def outside_blocks(job: Job) -> dict[str, float]:
    """Seconds of a step, median after the first epoch, and the share that is not the blocks', forward or back.

    Outside are embeddings and masks, kept states, the last norm, logits and loss, clipping and the optimiser.
    """
    clocks = Clocks(job)
    prompts, labels = prompts_of(job)
    with clocks.on():
        nothing = {"dev_accuracy": 0.0, "dev_macro_f1": 0.0}
        fit(adapted_of(job), prompts, labels, settings_of(job), lambda: nothing, seed=0)
    first = len(clocks.steps) // job.epochs
    pairs = sorted(zip(clocks.steps[first:], clocks.blocks[first:], strict=True))
    seconds, in_blocks = pairs[len(pairs) // 2]
    return {"seconds": seconds, "outside": seconds - in_blocks, "share": 1 - in_blocks / seconds}
