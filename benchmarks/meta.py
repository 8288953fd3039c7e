"""Training a 7B model counted without one: FLOPs and bytes of an optimiser step on torch's meta device.

Nothing is computed and no time is measured: the model's own blocks run on tensors that have shapes alone. Counted are
the matrix products of a step forward and back, the weights, what the backward pass keeps, gradients and Adam's two
moments. Left out are the allocator's slack and what lives for the length of one operation.
"""

from __future__ import annotations

from typing import Any

import torch
from fits import BATCH, Job, batches_of, prompts_of
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from absa_edit.model.attention import Heads, Mixed, attention_by, mix
from absa_edit.model.block_runner import BlockRunner
from absa_edit.model.prefix_tree import grow

SHAPE_7B = {
    "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "max_position_embeddings": 4096,
}  # fmt: skip
EDITED = range(10, 16)
"""Source: arXiv 2503.15117 edits layers 10 to 15 of Llama-2-7b."""
WAYS: dict[str, tuple[list[str] | None, int]] = {
    "edit": ([f"layers.{i}.self_attn.o_proj" for i in EDITED], EDITED[0]),
    "lora": (["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], 0),
    "full": (None, 0),
}
WAYS["lora, padded rows"] = WAYS["lora"]  # a row an example and logits everywhere, as Trainer has it
"""Modules that adapters sit on (None: every weight trains), and the first block that runs."""


def counted() -> dict[str, dict[str, float]]:
    """FLOPs of a step and bytes by kind for each way, and for inference on the same batch."""
    shared, padded = _median_batch()
    counts: dict[str, dict[str, float]] = {"batch": {"rows": shared[0], "slots": shared[1], "padded": padded[1]}}
    for way, (modules, start) in WAYS.items():
        rows, slots = padded if way == "lora, padded rows" else shared
        model: Any = model_7b()
        if modules is None:
            model.requires_grad_(True)
        else:
            rank = 4 if way == "edit" else 8
            config = LoraConfig(r=rank, lora_alpha=16, target_modules=modules, task_type=TaskType.CAUSAL_LM)
            model = get_peft_model(model, config).get_base_model()
        counts[way] = _step(model, start, rows, slots, rows * slots if way == "lora, padded rows" else BATCH)
    counts["inference"] = _inference(model_7b(), *shared)
    return counts


def model_7b() -> LlamaForCausalLM:
    """A Llama of 6.7 billion bfloat16 weights that have shapes and no values."""
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SHAPE_7B))
    return model.to(torch.bfloat16).requires_grad_(False)


def _median_batch() -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and slots of a middling batch of the bundled sample: as trees, the stem shared out, and padded.

    So a few keys of the stem are missing in the attention of the first, whose products are a small share of all.
    """
    prompts, _ = prompts_of(Job("edit", examples=512))
    forest = grow([p.ids for p in prompts], [len(p.ids) - 1 for p in prompts])
    batches = batches_of(prompts, 1)
    laid_out = [forest.batch(batch, torch.device("cpu")) for batch in batches]
    middling = sorted(laid_out, key=lambda batch: batch.computed.node.numel())[len(batches) // 2]
    padded = sorted(max(len(prompts[i].ids) for i in batch) for batch in batches)[len(batches) // 2]
    return (middling.groups, -(-middling.computed.node.numel() // middling.groups)), (BATCH, padded)


def _run(model: LlamaForCausalLM, start: int, rows: int, slots: int, answers: int) -> Tensor:
    """The summed log-probabilities at as many of a batch's tokens as have answers."""
    runner = BlockRunner(model)
    entering = torch.empty(rows, slots, SHAPE_7B["hidden_size"], dtype=torch.bfloat16, device="meta")
    with torch.no_grad():
        frame = runner.begin(entering, torch.empty(rows, slots, dtype=torch.long, device="meta"))
    hidden = entering.requires_grad_(model.get_input_embeddings().weight.requires_grad)

    def attend(heads: Heads) -> Mixed:
        return mix(heads, torch.ones(slots, slots, dtype=torch.bool, device="meta"))

    with attention_by(model, attend):
        hidden = runner.run(hidden, start, runner.layers, frame)
    return runner.logits(hidden.flatten(0, 1)[:answers]).float().log_softmax(-1).sum()


def _step(model: LlamaForCausalLM, start: int, rows: int, slots: int, answers: int) -> dict[str, float]:
    kept: dict[int, int] = {}
    weights = {id(p.untyped_storage()) for p in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter) and id(storage) not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = _run(model, start, rows, slots, answers)
        loss.backward()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return _bytes(model, {"kept for backward": sum(kept.values()), "gradients and moments": 12 * trained}) | {
        "flops": float(counter.get_total_flops())
    }


def _inference(model: LlamaForCausalLM, rows: int, slots: int) -> dict[str, float]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _run(model, 0, rows, slots, BATCH)
    widest = rows * slots * 2 * (2 * SHAPE_7B["intermediate_size"] + 2 * SHAPE_7B["hidden_size"])
    return _bytes(model, {"states of one block": widest}) | {"flops": float(counter.get_total_flops())}


def _bytes(model: LlamaForCausalLM, more: dict[str, float]) -> dict[str, float]:
    weights = float(sum(p.numel() * p.element_size() for p in model.parameters()))
    return {"weights": weights, **more, "bytes": weights + sum(more.values())}
