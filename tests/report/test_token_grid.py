"""The grid as it stands in a terminal without colour."""

from __future__ import annotations

from io import StringIO

import numpy as np
from rich.console import Console

from absa_edit.report.token_grid import token_grid


def test_shades_follow_the_effect_and_signs_are_kept() -> None:
    effects = np.array([[0.5, 0.3, 0.0, -0.5, 0.01, 0.0], [0.0] * 6])
    console = Console(file=StringIO(), width=60, no_color=True)
    console.print(token_grid([" fan", "\n"], effects, full=0.5))
    head, fan, newline = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert head.split() == ["token", "0", "5", "points"]
    assert "fan  ██▒▒  -█" in fan and fan.rstrip().endswith("+50")
    assert newline.split() == ["␤"]


def test_brackets_in_a_token_are_text() -> None:
    console = Console(file=StringIO(), width=60)
    console.print(token_grid(["[bold]"], np.zeros((1, 2)), full=1.0))
    assert "[bold]" in console.file.getvalue()  # type: ignore[attr-defined]
