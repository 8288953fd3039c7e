"""What each method trains, on a copy of the base model."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from absa_edit.errors import PlanError
from absa_edit.methods.adapted_model import AdaptedModel, changed_elsewhere
from absa_edit.methods.confined import mask_to_heads
from absa_edit.methods.reft import RepresentationEdit
from absa_edit.methods.settings import Delta, Edit, Full, Lora, Method, ZeroShot
from absa_edit.model.architectures import layout, site_inputs, site_shape
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan, Part, Role

__all__ = ["AdaptedModel", "adapt", "changed_elsewhere", "check_whole", "load_adapter"]


def adapt(base: PreTrainedModel, method: Method, plan: EditPlan | None, *, seed: int) -> AdaptedModel:
    """A copy of `base` that trains what `method` says; an untrained one answers exactly like `base`.

    What trains is float32, whatever the base's dtype (AdamW's small steps would be lost): adapters through
    PEFT, the whole copy for `delta` and `full`. `seed` draws the adapters' first weights.
    Raises `PlanError` when the method needs a plan and has none.
    """
    model = copy.deepcopy(base).requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match method:
            case ZeroShot():
                return AdaptedModel("zero_shot", model, None, None, None, {}, BlockRunner(model).layers, 0)
            case Edit():
                return _edit(model, method, _needed(plan, "edit"))
            case Delta():
                return _delta(model, method, _needed(plan, "delta"))
            case Lora():
                return _lora(model, method)
            case Full():
                model.float().requires_grad_(True)
                return AdaptedModel("full", model, None, None, None, {"weights": method.lr}, -1, model.num_parameters())
    raise TypeError(f"no such method: {type(method).__name__}")


def _needed(plan: EditPlan | None, method: str) -> EditPlan:
    if plan is None:
        raise PlanError(f"method {method} needs a plan: add `locate` to stages")
    return plan


def _edit(model: PreTrainedModel, method: Edit, plan: EditPlan) -> AdaptedModel:
    runner = BlockRunner(model)
    lr: dict[str, float] = {}
    peft, touched, held, start = None, 0, 0, runner.layers
    if method.weights:
        peft, touched, held = _deltas(model, method, plan)
        start, lr["weights"] = min(plan.layers()), method.lr
    representation = None
    if method.representation:
        representation = _representation(runner, method, plan).to(model.device)
        start, lr["representation"] = min(start, representation.layers[0] + 1), method.representation_lr
    return AdaptedModel("edit", model, peft, representation, plan, lr, start, touched, held)


def _deltas(model: PreTrainedModel, method: Edit, plan: EditPlan) -> tuple[PeftModel, int, int]:
    """Rank-limited deltas at the plan's sites; entries of weights that they change, and of their own held at 0.

    Sites that share a projection (heads of a layer) share an adapter, stacked: its rank is the sum of theirs.
    """
    by_path: dict[str, list[tuple[int, slice]]] = {}
    for target in plan.targets:
        by_path.setdefault(layout(model).path(target.site), []).append((target.rank, site_inputs(model, target.site)))
    paths = {path: sum(rank for rank, _ in blocks) for path, blocks in by_path.items()}
    touched = sum(math.prod(site_shape(model, t.site)) for t in plan.targets)
    rank = max(paths.values())
    scale = method.alpha / max(t.rank for t in plan.targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=scale * rank,  # type: ignore[arg-type]
        lora_dropout=method.dropout,
        target_modules=list(paths),
        rank_pattern={path: r for path, r in paths.items() if r != rank},
        # One scale at all sites: vLLM reads only the global alpha / r and drops the patterns without a word.
        alpha_pattern={path: scale * r for path, r in paths.items() if r != rank},
        task_type=TaskType.CAUSAL_LM,
        fan_in_fan_out=_transposed(model, paths),
    )
    peft = _peft(model, config, expected=len(paths))
    held = sum(
        mask_to_heads(model.get_parameter(f"{path}.lora_A.default.weight"), blocks) for path, blocks in by_path.items()
    )
    return peft, touched, held


def _representation(runner: BlockRunner, method: Edit, plan: EditPlan) -> RepresentationEdit:
    """LoReFT on the plan's layers; not on the last block's output, which only the last token's answer reads."""
    layers = [i for i in plan.layers() if i < runner.layers - 1 or method.position is Role.last]
    width, rank = runner.model.config.hidden_size, method.representation_rank
    if not layers:
        raise PlanError(f"nothing reads the last block at {method.position.value}; edit an earlier layer")
    if not 1 <= rank <= width:
        raise PlanError(f"method.edit.representation_rank={rank}: expected 1 to {width}")
    return RepresentationEdit(layers, width, rank, method.position)


def check_whole(plan: EditPlan) -> None:
    """Raises `PlanError` when `plan` names single heads, which `delta` cannot train."""
    if heads := [t.site for t in plan.targets if t.site.index is not None]:
        raise PlanError(f"{heads[0]}: method delta trains whole matrices; single heads go with method=edit")


def _delta(model: PreTrainedModel, method: Delta, plan: EditPlan) -> AdaptedModel:
    runner = BlockRunner(model.float())
    check_whole(plan)
    modules = [runner.module(t.site) for t in plan.targets]
    for module in modules:
        module.weight.requires_grad_(True)
    first = min(plan.layers())
    return AdaptedModel("delta", model, None, None, plan, {"weights": method.lr}, first, _entries(modules))


def _lora(model: PreTrainedModel, method: Lora) -> AdaptedModel:
    """Every linear layer of every block; the head and the embeddings are left alone, as PEFT does.

    In a model of experts those of attention alone: PEFT takes the name of any other for the experts' stacked weights.
    """
    runner = BlockRunner(model)
    attention = (runner.layout.attn, *runner.layout.asking)
    paths = [
        f"{runner.layout.blocks}.{name}"
        for name, module in runner.blocks.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and (runner.has(Part.mlp) or name.partition(".")[2] in attention)
    ]
    touched = _entries(model.get_submodule(path) for path in paths)
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,  # type: ignore[arg-type]
        lora_dropout=method.dropout,
        target_modules=paths,
        task_type=TaskType.CAUSAL_LM,
        fan_in_fan_out=_transposed(model, paths),
    )
    peft = _peft(model, config, expected=len(paths))
    return AdaptedModel("lora", model, peft, None, None, {"weights": method.lr}, 0, touched)


def _peft(model: PreTrainedModel, config: LoraConfig, *, expected: int) -> PeftModel:
    """The model with the adapters of `config` inside.

    Raises `PlanError` when fewer modules than `expected` took one: a target that matches nothing is an error.
    """
    with _without_peft_warning():
        peft = get_peft_model(model, config).eval()  # PEFT's own dropout would be at work in what is never trained here
    adapters = sum(name.endswith("lora_A") for name, _ in peft.named_modules())
    if adapters != expected:
        raise PlanError(f"the plan names {expected} modules, PEFT found {adapters} of them in the model")
    return peft


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The adapter in `folder`, inside `model`, as peft alone loads it; it answers, and does not train."""
    with _without_peft_warning():
        peft = PeftModel.from_pretrained(model, folder)
    return peft.eval().requires_grad_(False)


@contextmanager
def _without_peft_warning() -> Iterator[None]:
    """peft 0.21 reads an old name of transformers', of which a user can change nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def _transposed(model: PreTrainedModel, paths: Iterable[str]) -> bool:
    """Whether the modules keep their weights as (inputs, outputs), as GPT-2's do."""
    return any(type(model.get_submodule(path)).__name__ == "Conv1D" for path in paths)


def _entries(modules: Iterable[nn.Module]) -> int:
    """Entries of the modules' own weight matrices."""
    return sum(cast(Tensor, module.weight).numel() for module in modules)
