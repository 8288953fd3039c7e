"""What vLLM demands of an adapter folder, as rules over its config and its tensors' names and shapes.

vLLM refuses some adapters with an error and serves others wrongly without a word. Its reader keeps some fields of the
config and drops the rest (before 0.32 all but six); the tensors' names decide where the adapter acts. A problem is
fatal where 0.33 refuses, or any version since 0.30 answers wrongly without a word.
Source of all rules: vllm/lora/peft_helper.py and vllm/lora/lora_model.py, as in 0.30 to 0.33; each names its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft.utils.other import get_pattern_key

Shapes = Mapping[str, tuple[int, ...]]
Rule = Callable[["Adapter"], Iterator["Problem"]]

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` may be. Source: vllm/config/lora.py, `MaxLoRARanks`."""

NO_ADAPTERS = ("GPT2LMHeadModel", "StableLmForCausalLM")
"""Of the architectures that are edited here, those that vLLM serves without adapters.

Source: vllm/model_executor/models, classes without SupportsLoRA.
"""
SINCE_0_32 = ("GPTNeoXForCausalLM",)
"""Those that it serves with adapters since 0.32, through transformers' own model. Source: models/registry.py."""
PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Ways to start a LoRA that leave the base weights alone. Source: `PEFTHelper._init_is_supported`."""

PREFIX, ENDINGS = "base_model.model.", (".lora_A.weight", ".lora_B.weight")


@dataclass(frozen=True)
class Problem:
    """One thing that goes wrong, and what to do about it."""

    description: str
    fix: str
    fatal: bool = True
    """Whether the folder fails to load or answers wrongly; else it is only worth knowing."""


@dataclass(frozen=True)
class Adapter:
    """An adapter folder as a loader sees it."""

    folder: Path
    config: Mapping[str, Any]
    shapes: Shapes
    architecture: str | None
    """Of the base model; None where its files are not here."""
    base_shapes: Shapes | None
    max_rank: int
    """What the server was, or will be, started with: `--max-lora-rank`."""

    def modules(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Shapes of the tensors A and B by the path of the module that they change."""
        modules: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, shape in self.shapes.items():
            for end in ENDINGS:
                if name.endswith(end):
                    modules.setdefault(name.removeprefix(PREFIX).removesuffix(end), {})[end[6]] = shape
        return modules

    def scale(self, rank: int, alpha: int | float) -> float:
        """The factor of a delta."""
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def served_rank(rank: int) -> int:
    """The least `--max-lora-rank` for an adapter of `rank`; vLLM's own default, 16, where that does."""
    return next((allowed for allowed in RANKS if allowed >= max(rank, 16)), RANKS[-1])


def features(adapter: Adapter) -> Iterator[Problem]:
    """Kinds of adapter that vLLM refuses. Source: `PEFTHelper._validate_features` and `validate_legal`."""
    config = adapter.config
    if config.get("use_dora") or any("lora_magnitude_vector" in name for name in adapter.shapes):
        yield Problem("DoRA, which vLLM refuses", "serve the merged checkpoint")
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        yield Problem("trained biases, which vLLM refuses", "train with bias=none, or serve the merged checkpoint")
    if config.get("modules_to_save"):
        names = ", ".join(config["modules_to_save"])
        yield Problem(f"whole modules beside the deltas ({names}), which vLLM refuses", "serve the merged checkpoint")
    if config.get("trainable_token_indices"):
        yield Problem("trained token embeddings, which most versions drop", "serve the merged checkpoint")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in PLAIN_STARTS:
        yield Problem(
            f"init_lora_weights={start} moves the base's weights, which vLLM refuses (before 0.32: passes over)",
            "save it with peft's path_initial_model_for_weight_conversion, or serve the merged checkpoint",
        )
    for field in ("layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora"):
        if config.get(field):
            yield Problem(f"{field} is set: refused, before 0.32 dropped without a word", "serve the merged checkpoint")


def dropped_fields(adapter: Adapter) -> Iterator[Problem]:
    """Fields that change the answers and that vLLM does not read. Source: `PEFTHelper.from_dict`."""
    for field in ("target_parameters", "arrow_config"):
        if adapter.config.get(field):
            yield Problem(f"{field} is set, and vLLM drops it without a word", "serve the merged checkpoint")


def rank_limit(adapter: Adapter) -> Iterator[Problem]:
    """The rank has to fit what the server was started with. Source: `validate_legal`; vllm/config/lora.py."""
    patterns = list((adapter.config.get("rank_pattern") or {}).values())
    if odd := [rank for rank in patterns if not isinstance(rank, int) or rank < 1]:
        yield Problem(f"rank_pattern holds {odd[0]!r}, which vLLM refuses since 0.32", "export it again")
    ranks = [adapter.config["r"], *(rank for rank in patterns if isinstance(rank, int))]
    largest = max(ranks + [pair["A"][0] for pair in adapter.modules().values() if "A" in pair])
    if largest > RANKS[-1]:
        yield Problem(f"rank {largest}, and vLLM stops at {RANKS[-1]}", "serve the merged checkpoint")
    elif largest > adapter.max_rank:
        wanted = min(rank for rank in RANKS if rank >= largest)
        yield Problem(
            f"rank {largest}, and a server started with --max-lora-rank {adapter.max_rank} refuses it",
            f"start it with --max-lora-rank {wanted} (and give it here)",
        )


def tensor_names(adapter: Adapter) -> Iterator[Problem]:
    """Every tensor is the A or the B of a module. Source: vllm/lora/utils.py, `parse_fine_tuned_lora_name`."""
    if not adapter.shapes:
        yield Problem("no tensor in adapter_model.safetensors", "train and export it again")
    odd = [name for name in adapter.shapes if not name.endswith(ENDINGS)]
    if odd:
        yield Problem(
            f"{len(odd)} tensors are no LoRA weights (first: {odd[0]})",
            f"vLLM knows {PREFIX}<module>{ENDINGS[0]} and {ENDINGS[1]} only: save with peft's save_pretrained",
        )
    bare = [name for name in adapter.shapes if name.endswith(ENDINGS) and not name.startswith(PREFIX)]
    if bare:
        yield Problem(f"{bare[0]} does not begin with {PREFIX}", "save with peft's save_pretrained: peft drops it")
    for path, pair in adapter.modules().items():
        if len(pair) == 1:
            missing = "B" if "A" in pair else "A"
            yield Problem(f"{path} has no lora_{missing}", "the file is not whole: export it again")


def base_modules(adapter: Adapter) -> Iterator[Problem]:
    """Each module is one of the base model's, with its shape.

    vLLM refuses names whose last part it does not know and passes over the others that it does not find.
    Source: `LoRAModel.from_local_checkpoint`, `check_unexpected_modules`.
    """
    if adapter.architecture in NO_ADAPTERS:
        yield Problem(f"vLLM takes no adapters for {adapter.architecture}", "serve the merged checkpoint")
    if adapter.architecture in SINCE_0_32:
        what = f"vLLM before 0.32 takes no adapters for {adapter.architecture}"
        yield Problem(what, "serve it with 0.32 or later, or the merged checkpoint", fatal=False)
    if adapter.base_shapes is None:
        yield Problem(
            "the base model's files are not here: whether its modules fit was not looked at", "give --base", False
        )
        return
    for path, pair in adapter.modules().items():
        # Some checkpoints leave out the name of the model without its head (`transformer.`, `model.`).
        names = (f"{path}.weight", f"{path.partition('.')[2]}.weight")
        weight = next((adapter.base_shapes[name] for name in names if name in adapter.base_shapes), None)
        if weight is None:
            yield Problem(
                f"{path} is no module of the base model: the delta is refused, or passed over without a word",
                "the adapter is another model's: give the right base",
            )
        elif len(pair) == 2 and {pair["A"][1], pair["B"][0]} != set(weight):
            yield Problem(
                f"{path}: the delta is {pair['B'][0]} x {pair['A'][1]}, "
                f"the base model's weight {' x '.join(map(str, weight))}",
                "the adapter is another model's: give the right base",
            )


def equal_scaling(adapter: Adapter) -> Iterator[Problem]:
    """One factor at all sites: before 0.32 vLLM scales every module by the global alpha / r and drops the patterns.

    llama.cpp takes the global alpha and each tensor's own rank, so that its adapters need one rank as well.
    Source: `PEFTHelper.__post_init__` and `from_dict`; llama.cpp, src/llama-adapter.h, `get_scale`.
    """
    config = adapter.config
    ranks: dict[str, Any] = config.get("rank_pattern") or {}
    alphas: dict[str, Any] = config.get("alpha_pattern") or {}
    served = adapter.scale(config["r"], config["lora_alpha"])
    mixed = False
    for path, pair in adapter.modules().items():
        rank = ranks.get(get_pattern_key(list(ranks), path), config["r"])
        trained = adapter.scale(rank, alphas.get(get_pattern_key(list(alphas), path), config["lora_alpha"]))
        mixed |= "A" in pair and pair["A"][0] != config["r"]
        if not math.isclose(trained, served, rel_tol=1e-6):
            yield Problem(
                f"{path} was trained with its delta times {trained:g}; vLLM before 0.32 takes {served:g}, silently",
                "keep alpha / rank the same at all sites (alpha_pattern = rank_pattern x alpha / r), or merge",
            )
    if mixed:
        yield Problem(
            "ranks differ, and llama.cpp would scale each by its own", "make GGUF from the merged checkpoint", False
        )


ADAPTER_RULES: tuple[Rule, ...] = (features, dropped_fields, rank_limit, tensor_names, base_modules, equal_scaling)
