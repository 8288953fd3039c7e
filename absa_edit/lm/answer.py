"""Score label words at the end of a prompt: log-probabilities of whole words, one pass where they are one token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from absa_edit.lm.decoder import Decoder

Ids = Sequence[int]


@dataclass(frozen=True)
class Rows:
    """Token rows padded on the right, and where each row's answer tokens are predicted.

    `targets[r, k]` is predicted at `positions[r, k]`; entries beyond a row's answer are not `valid`.
    """

    input_ids: Int[Tensor, "row pos"]
    positions: Int[Tensor, "row answer"]
    targets: Int[Tensor, "row answer"]
    valid: Bool[Tensor, "row answer"]

    @property
    def lengths(self) -> Int[Tensor, " row"]:
        """Tokens of each row without its padding."""
        return self.positions.max(1).values + 1


def rows(prompts: Sequence[Ids], answers: Sequence[Ids], device: torch.device) -> Rows:
    """Each prompt followed by its answer (all but the last token, which is only predicted)."""
    sequences = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
    longest = max(map(len, sequences))
    widest = max(map(len, answers))
    input_ids = torch.tensor([s + [0] * (longest - len(s)) for s in sequences])
    targets = torch.tensor([[*a, *[0] * (widest - len(a))] for a in answers])
    valid = torch.tensor([[True] * len(a) + [False] * (widest - len(a)) for a in answers])
    last = torch.tensor([len(p) - 1 for p in prompts])
    positions = (last[:, None] + torch.arange(widest)).clamp(max=longest - 1).where(valid, last[:, None])
    return Rows(*(t.to(device) for t in (input_ids, positions, targets, valid)))


def answer_logits(
    decoder: Decoder, hidden: Float[Tensor, "row pos hidden"], rows: Rows
) -> Float[Tensor, "answer_token vocabulary"]:
    """Logits at the valid answer positions of all rows, row by row."""
    index = rows.positions[..., None].expand(-1, -1, hidden.shape[-1])
    return decoder.logits(hidden.gather(1, index)[rows.valid])


def label_log_probabilities(
    decoder: Decoder, prompts: Sequence[Ids], labels: Sequence[Ids]
) -> Float[Tensor, "prompt label"]:
    """Log-probability of each label's whole word sequence after each prompt, under the whole vocabulary.

    Runs each prompt once when every label is one token, else once a label.
    """
    if all(len(label) == 1 for label in labels):
        batch = rows(prompts, [labels[0]] * len(prompts), decoder.device)
        log_probabilities = answer_logits(decoder, _states(decoder, batch), batch).float().log_softmax(-1)
        return log_probabilities[:, [label[0] for label in labels]]
    every = [(prompt, label) for prompt in prompts for label in labels]
    batch = rows([p for p, _ in every], [label for _, label in every], decoder.device)
    log_probabilities = answer_logits(decoder, _states(decoder, batch), batch).float().log_softmax(-1)
    tokens = torch.zeros(batch.targets.shape, device=decoder.device)
    tokens[batch.valid] = log_probabilities.gather(1, batch.targets[batch.valid][:, None])[:, 0]
    return tokens.sum(1).view(len(prompts), len(labels))


def _states(decoder: Decoder, batch: Rows) -> Float[Tensor, "row pos hidden"]:
    frame = decoder.begin(decoder.embed(batch.input_ids))
    return decoder.run(frame.hidden, 0, decoder.layers, frame)


def length_buckets(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices in batches of at most `tokens` tokens, padding counted; neighbours in length, longest first.

    Longest first, so that memory that will not suffice is found out at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        size = max(1, tokens // max(lengths[order[0]], 1))
        yield order[:size]
        order = order[size:]
