"""One way to train, in a process of its own: an epoch for each line that it reads, a line of JSON for each epoch.

Run by `benchmarks/bench.py fit`, which interleaves several of these. What is not ours is done as its users do it: full
sequences in padded batches, logits of every token, `transformers.Trainer` where the name says so.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from peft import LoraConfig, TaskType, get_peft_model
from shapes import random_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from absa_edit.context import Context
from absa_edit.data.prompts import Prompt, encode, label_ids
from absa_edit.data.settings import DataSettings, PromptSettings
from absa_edit.data.sources import load_splits
from absa_edit.localizers.plan import plan_of
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import adapt
from absa_edit.methods.delta import Delta
from absa_edit.methods.full import Full
from absa_edit.methods.lora import Lora
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.methods.reft import LoReFT
from absa_edit.methods.settings import MethodSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.hooks import edited
from absa_edit.model.loading import LanguageModel, load_model
from absa_edit.model.prefix_tree import grow
from absa_edit.model.settings import ModelSettings, Precision
from absa_edit.model.sources import reviewlm
from absa_edit.records import EditPlan, Part, Role, Site
from absa_edit.tasks.absc import ABSC
from absa_edit.training.loop import epoch_batches, fit
from absa_edit.training.settings import FitSettings, Softmax

BATCH = 16
LR = 2e-4


@dataclass(frozen=True)
class Job:
    """What one process trains, and on what."""

    way: str
    """One of `OURS` or `THEIRS`."""
    model: str = "llama"
    """`reviewlm`, or one of `SHAPES` with random weights."""
    layers: int | None = None
    """The shape's own number by itself."""
    tokens: int = 45
    """Of a prompt, about: beyond the template's own, words are put before it."""
    examples: int = 256
    epochs: int = 4
    precision: str = "float32"
    softmax: str = "labels"
    """What our loss takes the gold word's probability among."""
    threads: int = 2
    device: str = "cpu"


def window(layers: int) -> list[int]:
    """The middle third, where the edits are: layers 4 to 7 of 12."""
    return list(range(layers // 3, layers - layers // 3))


OURS: dict[str, MethodSettings] = {
    "edit": Edit(lr=LR),
    "edit + representation": Edit(lr=LR, representation=True),
    "representation": Edit(lr=LR, weights=False, representation=True),
    "delta": Delta(lr=LR),
    "lora": Lora(lr=LR, rank=8),
    "full": Full(lr=LR),
}


def model_of(job: Job) -> PreTrainedModel:
    if job.model == "reviewlm":
        return load_model(ModelSettings(name="reviewlm", device=job.device)).model
    changed = {} if job.layers is None else {"num_hidden_layers": job.layers}
    model = random_model(job.model, **changed)
    model.to(job.device)  # type: ignore[arg-type]
    return model


def prompts_of(job: Job) -> tuple[list[Prompt], dict[Any, tuple[int, ...]]]:
    """The first training examples of the bundled laptop sample, every aspect of a sentence."""
    tokenizer = AutoTokenizer.from_pretrained(reviewlm())
    splits = load_splits(DataSettings(name="laptop-sample", tests=[]), root=Path("."), environ={})
    settings = ABSC.prompt(PromptSettings(template="very " * (job.tokens - 45) + ABSC.prompt().template))
    return encode(splits.train.examples[: job.examples], tokenizer, settings), label_ids(
        tokenizer, settings, ABSC.labels
    )


class Clock:
    """Waits for a line before each epoch, and tells how long the epoch took and how much memory it needed."""

    def __init__(self) -> None:
        gc.collect()
        self.weights = _resident()
        self.began = 0.0
        self.wait()

    def wait(self) -> None:
        if not sys.stdin.readline():
            sys.exit()
        _forget_peak()
        self.began = time.perf_counter()

    def lap(self, **more: float) -> None:
        seconds = time.perf_counter() - self.began
        print(json.dumps({"seconds": seconds, "bytes": _peak() - self.weights, **more}), flush=True)
        self.wait()


def adapted_to(base: PreTrainedModel, settings: MethodSettings, plan: EditPlan | None) -> AdaptedModel:
    """What a method trains on a copy of `base`."""
    lm = LanguageModel("bench", "bench", base, AutoTokenizer.from_pretrained(reviewlm()), "")
    return adapt(Context.of(lm), settings, plan)


def adapted_of(job: Job) -> AdaptedModel:
    """What one of our ways trains, in the middle third of the job's model where it needs a plan."""
    base = model_of(job)
    runner = BlockRunner(base)
    plan = plan_of(runner, [Site(layer, Part.attn) for layer in window(runner.layers)], 4, "manual")
    return adapted_to(base, OURS[job.way], plan)


def settings_of(job: Job) -> FitSettings:
    """How our loop trains."""
    return FitSettings(
        epochs=job.epochs,
        batch_size=BATCH,
        patience=job.epochs,
        precision=Precision(job.precision),
        softmax=Softmax(job.softmax),
        warmup=0.0,
    )


def ours(job: Job) -> None:
    """The package's own loop."""
    prompts, labels = prompts_of(job)
    adapted = adapted_of(job)
    clock = Clock()

    def evaluate() -> dict[str, float]:
        clock.lap()
        return {"dev_accuracy": 0.0, "dev_macro_f1": 0.0}

    done = fit(adapted, prompts, labels, settings_of(job), evaluate, seed=0)
    print(json.dumps({"flops": done.flops / done.epochs}), flush=True)


def batches_of(prompts: Sequence[Prompt], epoch: int) -> list[list[int]]:
    """The batches that our loop takes in an epoch."""
    tree = grow([p.ids for p in prompts], [len(p.ids) - 1 for p in prompts])
    return list(epoch_batches(tree, BATCH, np.random.default_rng([0, epoch])))


def padded(prompts: Sequence[Prompt], labels: dict[Any, tuple[int, ...]]) -> dict[str, Tensor]:
    """Prompt and answer in one row, the loss at the answer alone, as the usual collators make it."""
    rows = [(p.ids, labels[p.example.label]) for p in prompts]
    longest = max(len(ids) + len(answer) for ids, answer in rows)

    def fill(parts: Iterator[Sequence[int]], value: int) -> Tensor:
        return torch.tensor([[*part, *[value] * (longest - len(part))] for part in parts])

    return {
        "input_ids": fill(((*ids, *answer) for ids, answer in rows), 0),
        "attention_mask": fill(([1] * (len(ids) + len(answer)) for ids, answer in rows), 0),
        "labels": fill(((*[-100] * len(ids), *answer) for ids, answer in rows), -100),
    }


def trainer(job: Job) -> None:
    """`transformers.Trainer` with PEFT's LoRA on all linear layers, or with every weight."""
    model: Any = model_of(job)
    prompts, labels = prompts_of(job)
    if job.way == "peft_lora_trainer":
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type=TaskType.CAUSAL_LM)
        model = get_peft_model(model, config)
    else:
        model.requires_grad_(True)

    class SameBatches(Trainer):
        """A Trainer that is given the batches of our loop."""

        epoch = 0

        def get_train_dataloader(self) -> Any:
            epochs = [batches_of(prompts, epoch) for epoch in range(1, job.epochs + 1)]
            sampler = _Epochs(epochs)
            return torch.utils.data.DataLoader(
                prompts,  # type: ignore[arg-type]
                batch_sampler=sampler,
                collate_fn=lambda some: padded(some, labels),
            )

    class Laps(TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            clock.lap()

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=job.epochs,
            learning_rate=LR,
            use_cpu=job.device == "cpu",
            bf16=job.precision == "bf16",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        clock = Clock()
        SameBatches(model, arguments, train_dataset=prompts, callbacks=[Laps()]).train()  # type: ignore[arg-type]


class _Epochs:
    """Each pass over it gives the next epoch's batches."""

    def __init__(self, epochs: list[list[list[int]]]) -> None:
        self.epochs = epochs
        self.passes = 0

    def __len__(self) -> int:
        return len(self.epochs[0])

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.epochs[self.passes % len(self.epochs)]
        self.passes += 1


def aaai25(job: Job) -> None:
    """The recipe of arXiv 2503.15117 written out plainly: LoRA on `o_proj` and LoReFT at the aspect in the same layers.

    Full sequences through all blocks, logits of every token, as pyreft and PEFT compute it.
    """
    base = model_of(job)
    prompts, labels = prompts_of(job)
    layers = window(BlockRunner(base).layers)
    paths = [BlockRunner(base).layout.path(Site(layer, Part.attn)).removeprefix("model.") for layer in layers]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=paths, task_type=TaskType.CAUSAL_LM)
    model: Any = get_peft_model(base, config)
    edits = {layer: LoReFT(base.config.hidden_size, 4).to(job.device) for layer in layers}
    runner = BlockRunner(base)
    parameters = [p for p in model.parameters() if p.requires_grad]
    parameters += [p for edit in edits.values() for p in edit.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    clock = Clock()
    for epoch in range(1, job.epochs + 1):
        for batch in batches_of(prompts, epoch):
            chosen = [prompts[i] for i in batch]
            at = torch.tensor([p.positions(Role.aspect_again)[-1] for p in chosen])
            with ExitStack() as stack:
                for layer, edit in edits.items():
                    block = runner.module(Site(layer, Part.block))
                    stack.enter_context(edited(block, _at(at, edit)))
                inputs = {name: t.to(job.device) for name, t in padded(chosen, labels).items()}
                with torch.autocast(job.device, torch.bfloat16, enabled=job.precision == "bf16"):
                    loss = model(**inputs, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        clock.lap()


def _at(positions: Tensor, edit: LoReFT) -> Callable[[Tensor], Tensor]:
    where = (torch.arange(len(positions)), positions)
    return lambda hidden: hidden.index_put(where, edit(hidden[where]))


THEIRS: dict[str, Callable[[Job], None]] = {
    "peft_lora_trainer": trainer,
    "full_trainer": trainer,
    "aaai25": aaai25,
}


def gemm_rate(precision: str) -> float:
    """FLOP/s of a matrix product such as blocks are made of, the best of some."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(512, 512, dtype=dtype), torch.randn(512, 1376, dtype=dtype)
    with FlopCounterMode(display=False) as counter:
        a @ b
    took = []
    for _ in range(30):
        began = time.perf_counter()
        a @ b
        took.append(time.perf_counter() - began)
    return counter.get_total_flops() / min(took)


def _resident() -> int:
    return psutil.Process().memory_info().rss


def _forget_peak() -> None:
    """From here on the kernel counts this process's peak anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """The most bytes that were resident at once."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    torch.set_num_threads(job.threads)
    (ours if job.way in OURS else THEIRS[job.way])(job)


if __name__ == "__main__":
    main()
