"""The decoder view against the model's own forward, for every family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from absa_edit.adapt import adapt
from absa_edit.config import Lora
from absa_edit.lm.decoder import Decoder
from absa_edit.lm.load import LanguageModel

LENGTHS = (17, 9, 13)


def padded(seed: int = 0) -> Tensor:
    """Random rows of different lengths, padded on the right with token 0."""
    ids = torch.randint(3, 8192, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(seed))
    for row, length in zip(ids, LENGTHS, strict=True):
        row[length:] = 0
    return ids


def hooks(lm: LanguageModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lm.model.modules())


@torch.no_grad()
def test_equals_the_models_own_forward_at_real_positions(tiny) -> None:
    decoder, ids = Decoder(tiny.model), padded()
    frame = decoder.begin(decoder.embed(ids))
    hidden = decoder.run(frame.hidden, 0, decoder.layers, frame)
    for row, tokens, length in zip(hidden, ids, LENGTHS, strict=True):
        alone = tiny.model(input_ids=tokens[None, :length]).logits[0]
        torch.testing.assert_close(decoder.logits(row[:length]), alone, atol=1e-4, rtol=1e-4)
        assert alone.std() > 1e-2


@torch.no_grad()
def test_restarts_at_any_block(tiny) -> None:
    decoder, ids = Decoder(tiny.model), padded()
    frame = decoder.begin(decoder.embed(ids))
    whole = decoder.run(frame.hidden, 0, decoder.layers, frame)
    for layer in range(decoder.layers + 1):
        entering = decoder.run(frame.hidden, 0, layer, frame)
        assert torch.equal(decoder.run(entering, layer, decoder.layers, frame), whole)
        if layer < decoder.layers:
            assert not torch.allclose(entering, whole)


@torch.no_grad()
def test_one_row_frame_serves_many_rows(tiny) -> None:
    decoder, ids = Decoder(tiny.model), padded()
    frame = decoder.begin(decoder.embed(ids))
    one = decoder.begin(decoder.embed(ids[:1]))
    entering = decoder.run(frame.hidden, 0, 1, frame)
    torch.testing.assert_close(
        decoder.run(entering, 1, decoder.layers, one), decoder.run(entering, 1, decoder.layers, frame)
    )


@torch.no_grad()
def test_logits_of_some_words_are_those_of_the_whole_vocabulary(tiny) -> None:
    decoder, ids = Decoder(tiny.model), padded()
    frame = decoder.begin(decoder.embed(ids))
    hidden = decoder.run(frame.hidden, 0, decoder.layers, frame)[:, 5]
    words = (7, 4001, 12)
    torch.testing.assert_close(decoder.logits(hidden, words), decoder.logits(hidden)[:, words], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_leaves_the_model_as_it_was(tiny) -> None:
    decoder, ids = Decoder(tiny.model), padded()
    before = tiny.model(input_ids=ids).logits
    modules = dict(tiny.model.named_modules())
    names = set(tiny.model.state_dict())
    frame = decoder.begin(decoder.embed(ids))
    decoder.logits(decoder.run(frame.hidden, 0, decoder.layers, frame)[:, -1], (5, 6))
    assert dict(tiny.model.named_modules()) == modules
    assert set(tiny.model.state_dict()) == names
    assert hooks(tiny) == 0
    assert torch.equal(tiny.model(input_ids=ids).logits, before)


@torch.no_grad()
def test_leaves_the_model_as_it_was_after_an_error(tiny) -> None:
    decoder, ids = Decoder(tiny.model), padded()
    modules = dict(tiny.model.named_modules())
    width = decoder.embeddings.weight.shape[1]
    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)):
        decoder.begin(torch.zeros(1, 4, width + 1, dtype=torch.float64))  # no such width or dtype in the model
        decoder.logits(torch.zeros(2, 7))
    with pytest.raises((RuntimeError, ValueError)):
        decoder.logits(torch.zeros(2, 7))
    assert dict(tiny.model.named_modules()) == modules
    assert decoder.run(decoder.begin(decoder.embed(ids)).hidden, 0, 0, decoder.begin(decoder.embed(ids))).ndim == 3


def test_runs_through_adapters_inside_the_blocks(tiny) -> None:
    adapted = adapt(tiny.model, Lora(lr=1e-3), None, seed=0)
    with torch.no_grad():
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        ids = padded()[:1]
        decoder = adapted.decoder
        frame = decoder.begin(decoder.embed(ids))
        hidden = decoder.run(frame.hidden, 0, decoder.layers, frame)
        expected = adapted.peft(input_ids=ids).logits
        torch.testing.assert_close(decoder.logits(hidden[0]), expected[0], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(expected, tiny.model(input_ids=ids).logits, atol=1e-2)


def test_gradients_reach_the_blocks_that_ran(small) -> None:
    decoder, ids = Decoder(small.model), padded()
    frame = decoder.begin(decoder.embed(ids))
    entering = decoder.run(frame.hidden, 0, 1, frame).requires_grad_()
    decoder.logits(decoder.run(entering, 1, decoder.layers, frame)[:, -1]).square().sum().backward()
    assert entering.grad is not None and entering.grad.abs().sum() > 0
    assert all(p.grad is None for p in small.model.parameters())
