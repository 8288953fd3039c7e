"""Pretrain a small Llama on a folder of text files, the way the bundled reviewlm was made.

    python scripts/pretrain.py --text reviews/ --out outputs/pretrain
    python scripts/pretrain.py --text reviews/ --out outputs/toy --hidden 64 --layers 2 --steps 200

Every .txt file below the folder is read; documents are apart by blank lines. A share of the rows holds prompts
of absa_edit with weak labels: an opinion word in the aspect's clause, turned by a negation. The same command
again goes on from the last checkpoint; the finished model is in <out>/model, a checkpoint every --every steps
in <out>/checkpoint.safetensors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from absa_edit.errors import AbsaEditError, DataError, SettingsError
from absa_edit.model.loading import choose_device
from absa_edit.model.precision import has_bfloat16_units
from absa_edit.storage import atomic
from absa_edit.tasks.absc import ABSC

WORDS = Path(__file__).with_name("opinion_words.txt")
HELD_OUT = 0.01
"""Share of the text rows that the validation loss is measured on."""


@dataclass(frozen=True)
class Settings:
    """What a model's weights depend on; defaults are those of reviewlm's first part."""

    hidden: int = field(default=320, metadata={"help": "width; a multiple of --heads"})
    layers: int = field(default=12, metadata={"help": "blocks"})
    heads: int = field(default=5, metadata={"help": "attention heads"})
    mlp: int = field(default=864, metadata={"help": "width of the MLPs"})
    vocabulary: int = field(default=8192, metadata={"help": "pieces of the tokenizer"})
    length: int = field(default=160, metadata={"help": "tokens a row"})
    batch: int = field(default=48, metadata={"help": "rows a step"})
    steps: int = field(default=4200, metadata={"help": "steps"})
    lr: float = field(default=1.5e-3, metadata={"help": "peak learning rate, linear warm-up and decay"})
    prompts: float = field(default=0.2, metadata={"help": "share of rows that hold weakly labelled prompts"})
    seed: int = field(default=0, metadata={"help": "seed"})


def pretrain(
    settings: Settings,
    text: Path,
    out: Path,
    *,
    checkpoint_every: int = 200,
    device: torch.device | None = None,
    report: Callable[[int, float, float], None] = lambda step, loss, validation: None,
) -> LlamaForCausalLM:
    """The trained model, also saved in `out/model` with its tokenizer.

    Weights depend on settings and text only: an interrupted run that is started again ends with the same ones.
    `report` gets step, training loss and validation loss at every checkpoint. Raises `DataError` for a folder
    without text and `SettingsError` when `out` holds a training with other settings or text.
    """
    device = device or torch.device("cpu")
    documents = read_documents(text)
    key = hashlib.sha256(json.dumps([asdict(settings), documents]).encode()).hexdigest()
    tokenizer = train_tokenizer(documents, settings.vocabulary)
    plain = rows(documents, tokenizer, settings.length)
    held_out = plain[: max(1, round(HELD_OUT * len(plain)))]
    plain = plain[len(held_out) :]
    prompts = rows([p for d in documents for p in weak_prompts(d)], tokenizer, settings.length)
    share = round(settings.prompts * settings.batch)
    if not len(plain) or (share and not len(prompts)):
        raise DataError(
            f"{text}: {len(plain)} rows of {settings.length} tokens to train on and {len(prompts)} of weak prompts; "
            "give more text, a smaller --length, or --prompts 0"
        )

    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(config(settings, tokenizer)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.1)
    checkpoint = out / "checkpoint.safetensors"
    start = restore(checkpoint, key, model, optimizer) if checkpoint.exists() else 0
    model.train()
    for step in range(start, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * schedule(step, settings.steps)
        batch = (draw(plain, settings.batch - share, step, settings.seed), draw(prompts, share, step, settings.seed))
        loss = loss_of(model, np.concatenate(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % checkpoint_every == 0 or step + 1 == settings.steps:
            save(checkpoint, key, step + 1, model, optimizer)
            with torch.no_grad():
                parts = np.array_split(held_out, -(-len(held_out) // settings.batch))
                validation = sum(float(loss_of(model, part)) * len(part) for part in parts) / len(held_out)
            report(step + 1, float(loss.detach()), validation)
    model.eval()
    kept = LlamaForCausalLM(model.config).to(torch.bfloat16)
    kept.load_state_dict(model.state_dict())
    kept.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    return model


def read_documents(folder: Path) -> list[str]:
    """The documents of all text files below `folder`, in the order of their paths."""
    paths = sorted(folder.rglob("*.txt"))
    documents = [
        " ".join(part.split())
        for path in paths
        for part in re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))
        if part.strip()
    ]
    if not documents:
        raise DataError(f"{folder}: {len(paths)} .txt files and no text in them; give a folder of .txt files")
    return documents


def train_tokenizer(documents: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE that keeps digits apart and puts `<bos>` first."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        [*documents, *(p for d in documents[:2000] for p in weak_prompts(d))],
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def weak_prompts(document: str) -> Iterator[str]:
    """Prompts about "the <aspect> is ..." clauses, answered by the opinion words of the clause.

    A clause without an opinion word gives neutral; one with words of both kinds gives nothing.
    """
    opinions, prompt = opinion_words(), ABSC.prompt()
    for sentence in re.split(r"(?<=[.!?])\s+", document):
        for clause in re.split(r"[,;:.!?]|\b(?:but|although|though|while|whereas)\b", sentence):
            match = re.search(r"\b(?:[Tt]he|[Ii]ts|[Mm]y|[Tt]his) (\w+(?: \w+)?) (?:is|are|was|were)\b", clause)
            if not match:
                continue
            words = re.findall(r"[\w']+", clause.lower())
            signs = set()
            for index, word in enumerate(words):
                for sign, other in (("positive", "negative"), ("negative", "positive")):
                    if word in opinions[sign]:
                        negated = any(w in opinions["negation"] for w in words[max(0, index - 3) : index])
                        signs.add(other if negated else sign)
            if len(signs) < 2:
                label = signs.pop() if signs else "neutral"
                yield prompt.template.format(sentence=sentence, aspect=match[1]) + prompt.separator + label


@cache
def opinion_words() -> dict[str, set[str]]:
    """The words of the list: positive, negative, negation."""
    words: dict[str, set[str]] = {}
    for line in WORDS.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            kind, _, listed = line.partition(":")
            words.setdefault(kind, set()).update(listed.split())
    return words


def rows(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, length: int) -> np.ndarray:
    """Rows of `length` tokens, the texts one after the other."""
    encoded = [np.array(tokenizer(text).input_ids, dtype=np.int32) for text in texts]
    flat = np.concatenate(encoded) if encoded else np.zeros(0, dtype=np.int32)
    return flat[: len(flat) // length * length].reshape(-1, length)


def draw(pool: np.ndarray, count: int, step: int, seed: int) -> np.ndarray:
    """The `count` rows of a step: every row once before any comes again, in a new order each time round."""
    if not count:
        return pool[:0]
    at = np.arange(step * count, (step + 1) * count)
    orders = {e: np.random.default_rng([seed, e]).permutation(len(pool)) for e in {*(at // len(pool))}}
    return pool[[orders[i // len(pool)][i % len(pool)] for i in at]]


def loss_of(model: LlamaForCausalLM, batch: np.ndarray) -> torch.Tensor:
    """Mean next-token loss, its products in bfloat16 where the machine has units for that."""
    ids = torch.from_numpy(batch).long().to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=has_bfloat16_units(model.device)):
        return model(input_ids=ids, labels=ids).loss


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up over 3 % of the steps, then linear decay."""
    warm = max(1, round(0.03 * steps))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def config(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.mlp,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=max(512, settings.length),
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def save(path: Path, key: str, step: int, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> None:
    """Weights and moments after `step` steps; nothing else changes from step to step."""
    tensors = {f"model/{name}": p.detach() for name, p in model.named_parameters()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
    with atomic(path) as temporary:
        save_file({n: t.cpu().contiguous() for n, t in tensors.items()}, temporary, {"key": key, "step": str(step)})


def restore(path: Path, key: str, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    """Put a checkpoint back; how many steps it has behind it."""
    with safe_open(path, "pt") as file:
        about = file.metadata()
        if about["key"] != key:
            raise SettingsError(f"{path} is of other settings or other text; remove it, or choose another --out")
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name in file.keys():  # noqa: SIM118 (not a dict)
            if name.startswith("optimizer/"):
                _, index, moment = name.split("/")
                moments.setdefault(int(index), {})[moment] = file.get_tensor(name)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(file.get_tensor(f"model/{name}"))
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(about["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder of .txt files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and the model")
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--device", default="auto")
    for setting in fields(Settings):
        parser.add_argument(
            f"--{setting.name}", type=type(setting.default), default=setting.default, **setting.metadata
        )
    arguments = parser.parse_args()
    settings = Settings(**{setting.name: getattr(arguments, setting.name) for setting in fields(Settings)})
    try:
        pretrain(
            settings,
            arguments.text,
            arguments.out,
            checkpoint_every=arguments.every,
            device=choose_device(arguments.device),
            report=lambda step, loss, validation: print(f"step {step}: loss {loss:.3f}, validation {validation:.3f}"),
        )
    except AbsaEditError as error:
        sys.exit(f"error: {error}")
    print(f"{arguments.out / 'model'}: the model; score it with absa-edit train model.name={arguments.out / 'model'}")


if __name__ == "__main__":
    main()
