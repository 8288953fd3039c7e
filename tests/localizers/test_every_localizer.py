"""Every localizer that needs nothing of its own, in a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import execute, settings

from absa_edit.localizers.settings import LOCALIZERS
from absa_edit.methods.low_rank_edit import Edit
from absa_edit.settings import Stage

UNTRACED = sorted(name for name in LOCALIZERS if not LOCALIZERS[name].takes and not LOCALIZERS[name].needs_trace)


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNTRACED)
def test_a_run_has_its_plan(kind: str, tmp_path: Path) -> None:
    located = LOCALIZERS[kind].settings(kind=kind, width=2)
    chosen = settings(tmp_path, locate=located, stages=[Stage.locate, Stage.methods], method={"edit": Edit(lr=2e-3)})
    _, record, _ = execute(chosen)
    assert record.plan is not None and record.plan.source == kind
    assert len(record.plan.targets) == (24 if kind == "all" else 4)
    assert 0 <= (1.0 if record.plan.stability is None else record.plan.stability) <= 1
    assert record.methods["edit"].trainable == record.plan.parameters
