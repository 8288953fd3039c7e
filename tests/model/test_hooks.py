"""Reading and replacing outputs, and that nothing stays behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from absa_edit.model.hooks import edited, recorded, silent


class Pair(nn.Module):
    """Returns (hidden, no weights), as attention modules do."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return 2 * x, None


def test_replaces_a_tensor() -> None:
    module = nn.Identity()
    with edited(module, lambda x: x + 1):
        assert module(torch.zeros(2)).tolist() == [1, 1]
    assert module(torch.zeros(2)).tolist() == [0, 0]


def test_replaces_the_first_of_a_tuple() -> None:
    with edited(module := Pair(), lambda x: x + 1):
        hidden, weights = module(torch.ones(1))
    assert (hidden.item(), weights) == (3, None)


def test_none_keeps_the_output() -> None:
    for module in (nn.Identity(), Pair()):
        plain = module(torch.ones(1))
        with edited(module, lambda x: None):
            assert module(torch.ones(1)) == plain


def test_edits_stack_in_order() -> None:
    module = nn.Identity()
    with edited(module, lambda x: x + 1), edited(module, lambda x: x * 10), recorded(module) as seen:
        module(torch.ones(1))
    assert seen[0].item() == 20


def test_records_every_call() -> None:
    module = Pair()
    with recorded(module) as outputs:
        module(torch.ones(1))
        module(torch.zeros(1))
    module(torch.ones(1))
    assert [o.item() for o in outputs] == [2, 0]


def test_no_hook_survives_an_error() -> None:
    module = nn.Identity()
    with pytest.raises(ZeroDivisionError), edited(module, lambda x: x + 1), recorded(module):
        raise ZeroDivisionError
    assert not module._forward_hooks


def test_what_is_recorded_stays_as_it_was_when_the_model_writes_into_it() -> None:
    """Falcon adds the attention to the MLP's output in place."""
    module = nn.Identity()
    with recorded(module) as outputs:
        module(torch.zeros(2)).add_(1)
    assert outputs[0].tolist() == [0, 0]


@pytest.mark.parametrize("autocast", [False, True])
def test_zeros_may_be_written_to_and_have_the_dtype_of_products(autocast) -> None:
    """OLMo of 2024 clips queries in place; rotary angles meet queries of autocast's dtype."""
    root, states = nn.Sequential(nn.Linear(3, 5)).half(), torch.ones(2, 4, 3, dtype=torch.float16)
    with silent(root, ["0"]), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        zeros = root(states)
    assert zeros.dtype is (torch.bfloat16 if autocast else torch.float16)
    assert zeros.add_(1).sum() == 2 * 4 * 5
    assert type(root[0]) is nn.Linear
