"""The training loop, the same for every method: same batches, schedule, precision and stopping rule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import get_linear_schedule_with_warmup

from absa_edit.data.prompts import Labels, Prompt
from absa_edit.errors import DataError, FitError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.model.precision import of_training
from absa_edit.model.prefix_tree import PrefixTree, grow
from absa_edit.model.settings import Precision
from absa_edit.progress import Progress, silent
from absa_edit.results import Fit
from absa_edit.training.checkpoint import Checkpoint, Progressed
from absa_edit.training.distributed import PATIENCE
from absa_edit.training.loss import AnswerLoss
from absa_edit.training.settings import FitSettings, Softmax

Row = dict[str, float]


def fit(
    adapted: AdaptedModel,
    prompts: Sequence[Prompt],
    labels: Labels,
    settings: FitSettings,
    evaluate: Callable[[], Row],
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[Row], None] = lambda row: None,
    progress: Progress = silent,
    name: str = "fit",
) -> Fit:
    """How the training of `adapted` went; it is left with the weights of its best development epoch.

    Several processes (`accelerate launch`) share each batch: each trains on its own part of the sentences, keeps the
    frozen states of these alone, and ends with the weights that one process would have.

    `evaluate` gives `dev_accuracy`, `dev_macro_f1` and `dev_log_loss` of the current weights; only the first process
    calls it, and only that one writes the checkpoint, which all read. Batches depend on `seed` and the prompts alone,
    so that methods see the same ones.
    """
    if not prompts:
        raise DataError("no training examples are left")
    began = time.perf_counter()
    precision = of_training(settings.precision, adapted.model)
    accelerator = _accelerator(precision, adapted.model.device)
    trained = adapted.trainable()
    steps_an_epoch = -(-len(prompts) // settings.batch_size)
    total = steps_an_epoch * settings.epochs
    optimizer = torch.optim.AdamW(adapted.parameter_groups(), weight_decay=settings.weight_decay, fused=True)
    state = Progressed(micro_batch=settings.batch_size)
    best = copied(trained)
    if adapted.after_step:
        checkpoint = None  # it would not hold what the adapter knows of the steps before
    if checkpoint and (resumed := checkpoint.load(trained, optimizer)):
        state, best = resumed
    before = state.seconds
    preamble = min(p.preamble for p in prompts)
    shared = grow([p.ids for p in prompts], [len(p.ids) - 1 for p in prompts], preamble)  # for equal batches
    _check_shares(accelerator, state.steps, shared)
    local_indices = [
        i for i, t in enumerate(shared.subtree) if t % accelerator.num_processes == accelerator.process_index
    ]
    place = {i: number for number, i in enumerate(local_indices)}
    local_prompts = [prompts[i] for i in local_indices]
    softmax = Softmax(settings.softmax)
    objective = AnswerLoss(
        adapted, local_prompts, labels, cache_gib=settings.cache_gib, softmax=softmax, progress=progress
    )
    objective, optimizer = accelerator.prepare(objective, optimizer)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    schedule = get_linear_schedule_with_warmup(
        optimizer, round(settings.warmup * total), total, last_epoch=state.steps - 1
    )

    while state.epoch < settings.epochs and state.epoch - state.best_epoch < settings.patience:
        state.epoch += 1
        rng = np.random.default_rng([seed, state.epoch])
        batches = list(epoch_batches(shared, settings.batch_size, rng))
        torch.manual_seed(int(rng.integers(2**63)))  # dropout, on every device, is the same when a fit is resumed
        adapted.modes(training=True)
        losses = []
        for batch in progress(batches, f"{name} {state.epoch}/{settings.epochs}", len(batches)):
            counted = FlopCounterMode(display=False) if not state.flops else nullcontext()
            with counted:
                share = [place[i] for i in batch if i in place]
                losses.append(
                    _step(accelerator, objective, optimizer, share, len(batch), state, settings.clip, adapted)
                )
            if isinstance(counted, FlopCounterMode):
                part = sum(len(prompts[i].ids) for i in batch) / sum(len(p.ids) for p in prompts)
                here = torch.tensor(counted.get_total_flops(), device=accelerator.device)
                state.flops = int(accelerator.reduce(here)) / part  # of one epoch, in all processes
            schedule.step()
            state.steps += 1
            state.peak_bytes = max(state.peak_bytes, memory(adapted.model.device))
        adapted.modes(training=False)
        state.seconds = before + time.perf_counter() - began
        loss = float(sum(losses)) / len(prompts)
        dev_metrics = [evaluate() if accelerator.is_main_process else {}]
        broadcast_object_list(dev_metrics)
        row = {"epoch": float(state.epoch), "loss": loss, **dev_metrics[0], "seconds": state.seconds}
        state.history.append(row)
        on_epoch(row)
        if row["dev_macro_f1"] > state.best_macro_f1:
            state.best_epoch, state.best_macro_f1, best = state.epoch, row["dev_macro_f1"], copied(trained)
        if checkpoint and accelerator.is_main_process:
            checkpoint.save(state, trained, best, optimizer)
    adapted.load_trained(best)
    return Fit(
        steps=state.steps,
        epochs=state.epoch,
        seconds=before + time.perf_counter() - began,
        peak_bytes=state.peak_bytes,
        batch_size=settings.batch_size,
        micro_batch=state.micro_batch,
        best_epoch=state.best_epoch,
        best_macro_f1=state.best_macro_f1,
        history=tuple(state.history),
        flops=state.flops * state.epoch,
        precision=precision.value,
    )


def _check_shares(accelerator: Accelerator, steps: int, tree: PrefixTree) -> None:
    """That all processes go on from the same step, and that each has something to train on."""
    first = [steps]
    broadcast_object_list(first)
    if first != [steps]:
        raise FitError(
            f"process {accelerator.process_index} goes on from step {steps}, the first one from {first[0]}: they must "
            "see the same run folder"
        )
    subtrees, processes = len(tree.subtrees()), accelerator.num_processes
    if subtrees < processes:
        raise DataError(
            f"training examples of {subtrees} sentences are too few to share among {processes} processes; start fewer"
        )


def epoch_batches(tree: PrefixTree, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Batches of `size` sequences from subtrees of like length, in random order; every sequence once.

    Trees are shuffled, then sorted by length within stretches of 50 batches: sequences that share a shared prefix are
    together, there is little padding, and still the batches are others each epoch.
    """
    subtrees, lengths = tree.subtrees(), tree.lengths()
    shuffled = rng.permutation(len(subtrees))
    place = np.argsort(shuffled)
    order = [i for subtree in shuffled for i in subtrees[subtree]]
    batches = []
    for k in range(0, len(order), 50 * size):
        stretch = sorted(order[k : k + 50 * size], key=lambda i: (lengths[tree.subtree[i]], place[tree.subtree[i]]))
        batches += [stretch[j : j + size] for j in range(0, len(stretch), size)]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def _step(
    accelerator: Accelerator,
    objective: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    share: list[int],
    size: int,
    state: Progressed,
    clip: float,
    adapted: AdaptedModel,
) -> float:
    """One optimiser step on this process's `share` of a batch of `size`; the summed loss of the batch.

    Out of memory, the share is halved into more micro-batches, and stays so; with several processes, which would no
    longer wait for each other at the same places, it is a `FitError`.
    """
    while True:
        try:
            total = torch.zeros((), device=accelerator.device)
            pieces = [share[i : i + state.micro_batch] for i in range(0, len(share), state.micro_batch)]
            for number, piece in enumerate(pieces or [[0]], 1):  # one with no share is still waited for
                with nullcontext() if number >= len(pieces) else accelerator.no_sync(objective):
                    loss = objective(piece) * bool(pieces)
                    accelerator.backward(loss * accelerator.num_processes / size)  # they are averaged
                total += loss.detach()
            summed = float(accelerator.reduce(total))
            if not math.isfinite(summed):
                raise FitError(f"the loss became {summed} at step {state.steps + 1}; lower the method's lr")
            accelerator.clip_grad_norm_(adapted.trainable().values(), clip)
            optimizer.step()
            if adapted.after_step:
                adapted.after_step(state.steps + 1)
            optimizer.zero_grad(set_to_none=True)
            return summed
        except torch.OutOfMemoryError:
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            if accelerator.num_processes > 1:
                raise FitError(
                    f"out of memory in process {accelerator.process_index} of {accelerator.num_processes}; lower "
                    "fit.batch_size (the steps are only cut up when one process trains)"
                ) from None
            if state.micro_batch == 1:
                raise
            state.micro_batch = -(-state.micro_batch // 2)


def _accelerator(precision: Precision, device: torch.device) -> Accelerator:
    if device.type == "cuda":
        torch.cuda.set_device(device)  # accelerate's own tensors are on the current one
    AcceleratorState._reset_state(True)  # a multirun may change precision and device within one process
    mixed = "bf16" if precision is Precision.bf16 else "no"
    return Accelerator(
        mixed_precision=mixed,
        cpu=device.type == "cpu",
        device_placement=False,  # the model stays on the device that it was loaded on
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, out of any graph."""
    return {name: t.detach().cpu().clone() for name, t in tensors.items()}


def memory(device: torch.device) -> int:
    """Bytes in use now: allocated at most so far on a GPU, resident in this process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
