"""Which tokens and layers carried one answer: the sentence is drowned in noise, one state at a time is put back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from absa_edit.data.prompts import encode
from absa_edit.errors import ModelError
from absa_edit.inference.classifier import Classifier
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import Example, Part, Role
from absa_edit.tracing.clean_and_corrupted import clean_and_corrupted
from absa_edit.tracing.corruption import embedding_sd, noisy
from absa_edit.tracing.exact_patching import cells
from absa_edit.tracing.memory_budget import MemoryBudget
from absa_edit.tracing.restoration import Answer, restore

NOISE = 3.0
"""Standard deviation of the noise in standard deviations of the token embeddings, as in `trace.noise`."""
DROWNED = (Role.sentence, Role.before, Role.aspect, Role.after, Role.punctuation)


@dataclass(frozen=True)
class Explanation:
    """Where along tokens and layers the answer to one pair was carried."""

    answer: str
    tokens: tuple[str, ...]
    """From the first token of the sentence on; before it, nothing can differ."""
    roles: tuple[Role, ...]
    clean: float
    """Probability of the answer among the label words; `corrupted` with noise on the sentence, mean of the samples."""
    corrupted: float
    restored: Float[np.ndarray, "token layer"]
    """The same with the clean output of that block put back at that token."""

    @property
    def effects(self) -> Float[np.ndarray, "token layer"]:
        """Indirect effects: what each state alone brings back of the answer's probability."""
        return self.restored - self.corrupted


@dataclass(frozen=True)
class Case:
    """One prompt, clean and corrupted, and the answer that is watched."""

    runner: BlockRunner
    embeds: Float[Tensor, "1 pos embedding"]
    corrupted: Float[Tensor, "sample pos embedding"]
    first: int
    """The first corrupted position."""
    answer: Answer
    most: int
    """Hidden states computed at once."""


Found = tuple[float, float, np.ndarray]
"""Clean and corrupted probability, and those with a state put back, by token and layer."""


@torch.inference_mode()
def explain(
    classifier: Classifier, example: Example, *, samples: int = 5, seed: int = 0, batch_tokens: int = 16384
) -> Explanation:
    """The explanation of the answer to one example, which need not be the gold label.

    Raises `ModelError` when two label words begin with the same token, for a learned prefix and for a head.
    """
    if classifier.adapted.head:
        raise ModelError(
            "no explanation of a head's answers: the traced runs end in the output layer; explain another method's"
        )
    if classifier.adapted.prefix:
        raise ModelError(
            "no explanation of answers after learned keys and values: the traced runs have no place for these; explain "
            "another method's"
        )
    (prompt,) = encode([example], classifier.lm.tokenizer, classifier.prompt)
    labels = classifier.labels
    words = tuple(word[0] for word in labels.values())
    if len(set(words)) < len(words):
        raise ModelError("an explanation reads the first token of each label word, and two of the words share it")
    probabilities = classifier.answer([example])[0]
    label = max(probabilities, key=probabilities.__getitem__)
    runner = classifier.adapted.runner
    embeds = runner.embed(torch.tensor([prompt.ids], device=runner.device))
    drowned = prompt.positions(*DROWNED)
    noise = NOISE * embedding_sd(runner), torch.Generator().manual_seed(seed)
    corrupted = noisy(embeds, drowned, samples, *noise)
    case = Case(runner, embeds, corrupted, drowned[0], Answer(words, list(labels).index(label)), batch_tokens)
    if classifier.adapted.representation:
        with classifier.adapted.on(prompt):
            traced_probabilities = _whole_runs(case)
    else:
        traced_probabilities = _traced(case)
    tokenizer = classifier.lm.tokenizer
    pieces = tokenizer.convert_ids_to_tokens(list(prompt.ids[case.first :]))
    tokens = tuple(tokenizer.convert_tokens_to_string([piece]) for piece in pieces)
    return Explanation(label, tokens, prompt.roles[case.first :], *traced_probabilities)


def _traced(case: Case) -> Found:
    """By the exact tracer, which computes at each layer only what a restored state changes."""
    runner, answer = case.runner, case.answer
    runs = clean_and_corrupted(runner, case.embeds, case.corrupted)
    clean = answer.means(runner.logits(runs.clean_last, answer.words).float())
    damaged = answer.means(runner.logits(runs.leaving[:, -1], answer.words).float())
    units = [[position] for position in range(case.first, runs.length)]
    all_cells = cells([Part.block], runner.layers, window=1)
    grid = restore(runner, runs, units, all_cells, answer, damaged, MemoryBudget(case.most))[Part.block]
    return clean[0], damaged[0], grid[0]


def _whole_runs(case: Case) -> Found:
    """By runs over all positions from the restored layer on: a representation edit finds its place in these only."""
    runner, answer = case.runner, case.answer
    block_inputs = runner.begin(case.embeds)
    length, samples = case.embeds.shape[1], len(case.corrupted)
    states = [(block_inputs.hidden, runner.begin(case.corrupted).hidden)]
    for layer in range(runner.layers):
        states.append(tuple(runner.run(hidden, layer, layer + 1, block_inputs) for hidden in states[-1]))  # type: ignore[arg-type]

    def probability(hidden: Tensor) -> Tensor:
        return answer.read(runner.logits(hidden[:, -1], answer.words).float())[0]

    grid = np.empty((length - case.first, runner.layers))
    chunk = max(1, case.most // (samples * length))
    for layer, (clean, damaged) in enumerate(states[1:]):
        for positions in torch.arange(case.first, length).split(chunk):
            rows = damaged.repeat(len(positions), 1, 1, 1)
            rows[torch.arange(len(positions)), :, positions] = clean[0, positions, None]
            out = runner.run(rows.flatten(0, 1), layer + 1, runner.layers, block_inputs)
            grid[positions.numpy() - case.first, layer] = probability(out).view(-1, samples).mean(1).cpu().numpy()
    return float(probability(states[-1][0])), float(probability(states[-1][1]).mean()), grid
