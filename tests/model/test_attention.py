"""Attention under autocast: float32 on a CPU, gradients in what came in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from absa_edit.model.attention import Heads, mix

FIELDS = ("query", "key", "value")


def heads(dtype: torch.dtype, length: int) -> Heads:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, count, length, 8, generator=generator).to(dtype).requires_grad_() for count in (4, 2, 2)
    )
    return Heads(query, key, value, 8**-0.5, None)


@pytest.mark.parametrize("early", [0, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_on_a_cpu_products_are_float32_under_autocast(dtype, early) -> None:
    asked, known = heads(dtype, 5), heads(dtype, 3)
    before = (known.key, known.value) if early else None
    allowed = torch.ones(5, 5 + early, dtype=torch.bool).tril(early)
    with torch.autocast("cpu", torch.bfloat16):
        found = mix(asked, allowed, before)
    plain = replace(asked, **{name: getattr(asked, name).float() for name in FIELDS})
    expected = mix(plain, allowed, before and (before[0].float(), before[1].float()))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found.sum().backward()
    assert all(getattr(asked, name).grad.dtype == dtype for name in FIELDS)
