"""A grid of effects by token and layer, drawn with characters: readable without colour, clearer with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from rich.table import Table
from rich.text import Text

SHADES = " ·░▒▓█"
UP, DOWN = (0, 114, 178), (213, 94, 0)  # Okabe and Ito's blue and vermillion


def token_grid(tokens: Sequence[str], effects: Float[np.ndarray, "token layer"], full: float) -> Table:
    """A row a token, a column a layer; a full block is an effect of `full`.

    Effects against the answer are red and have a minus. The last column is the row's strongest effect in points.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("token", justify="right", no_wrap=True)
    table.add_column(_ruler(effects.shape[1]), no_wrap=True)
    table.add_column("points", justify="right")
    for token, row in zip(tokens, effects, strict=True):
        cells = Text("").join(_cell(value / full) for value in row)
        strongest = row[np.abs(row).argmax()]
        shown = abs(strongest) >= 0.05 * full
        table.add_row(Text(_plain(token)), cells, f"{100 * strongest:+.0f}" if shown else "")
    return table


def _cell(share: float) -> Text:
    """Two characters for one cell; the shade repeats the colour."""
    size = min(abs(share), 1.0)
    shade = SHADES[round(size * (len(SHADES) - 1))]
    colour = UP if share > 0 else DOWN
    mixed = (round(150 + (c - 150) * size) for c in colour)
    against = share < 0 and shade != " "
    return Text(f"-{shade}" if against else shade * 2, style="rgb({},{},{})".format(*mixed))


def _ruler(layers: int) -> str:
    """Layer numbers over every fifth column of two characters."""
    return "".join(f"{layer:<10}" for layer in range(0, layers, 5))[: 2 * layers].rstrip()


def _plain(token: str) -> str:
    """The token with white space and control characters made visible."""
    shown = "".join(c if c.isprintable() else "␤" if c == "\n" else "�" for c in token).strip()
    return shown or "␣"
