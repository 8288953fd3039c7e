"""Token grids against the trace by role."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from absa_edit.records import Part, Role
from absa_edit.storage import load_token_grids, save_token_grids
from absa_edit.tasks.absc import ABSC
from absa_edit.tracing.corruption import Corrupter
from absa_edit.tracing.settings import TraceSettings
from absa_edit.tracing.token_traces import token_grids
from absa_edit.tracing.tracer import trace_prompts


def test_a_role_of_one_token_has_that_tokens_row(small, prompts, labels, tmp_path) -> None:
    settings = TraceSettings(samples=2, filter=False, parts=[Part.block, Part.attn], roles=[Role.aspect, Role.last])
    trace = trace_prompts(small, prompts, labels, settings, ABSC.prompt(), seed=3)
    corrupter = Corrupter.of(small, prompts, settings, ABSC.prompt(), 3)
    grids = token_grids(small, prompts[:3], labels, settings, corrupter)
    for i, (grid, prompt) in enumerate(zip(grids, prompts, strict=False)):
        assert (grid.id, grid.roles, len(grid.tokens)) == (prompt.example.id, prompt.roles, len(prompt.ids))
        np.testing.assert_allclose((grid.clean, grid.corrupted), (trace.clean[i], trace.corrupted[i]), atol=1e-6)
        for number, role in enumerate(settings.roles):
            where = prompt.positions(role)
            if len(where) == 1:
                np.testing.assert_allclose(grid.restored[:, where[0]], trace.restored[i, :, number], atol=1e-6)
    assert np.abs(grids[0].restored[0, -1] - grids[0].corrupted).max() > 1e-3
    save_token_grids(grids, tmp_path, "key")
    again = load_token_grids(tmp_path, "key")
    assert again is not None and load_token_grids(tmp_path, "other") is None
    for one, other in zip(grids, again, strict=True):
        assert replace(one, restored=other.restored) == other
        np.testing.assert_array_equal(one.restored, other.restored)
