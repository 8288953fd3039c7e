"""The fit of a method that fits itself: its rounds counted, timed and scored like the epochs of the common loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.results import Fit
from absa_edit.training.loop import Row, copied, memory


def fit_by_rounds(
    adapted: AdaptedModel,
    rounds: Iterator[Row],
    evaluate: Callable[[], Row],
    *,
    examples: int,
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> Fit:
    """How the rounds of `adapted` went (`Method.rounds`); it is left as it was after the best one on development data.

    `evaluate` is as for `loop.fit`, and not timed. Operations are not counted: that would double the time of a small
    model's.
    """
    began, seconds, peak = time.perf_counter(), 0.0, 0
    history: list[Row] = []
    best_epoch, best_macro_f1, best = 0, -1.0, copied(adapted.trainable())
    while True:
        row = next(rounds, None)
        seconds += time.perf_counter() - began
        if row is None:
            break
        peak = max(peak, memory(adapted.model.device))
        history.append({"epoch": len(history) + 1.0, **row, **evaluate(), "seconds": seconds})
        on_epoch(history[-1])
        if history[-1]["dev_macro_f1"] > best_macro_f1:
            best_epoch, best_macro_f1, best = len(history), history[-1]["dev_macro_f1"], copied(adapted.trainable())
        began = time.perf_counter()
    adapted.load_trained(best)
    return Fit(
        steps=len(history),
        epochs=len(history),
        seconds=seconds,
        peak_bytes=peak,
        batch_size=examples,
        micro_batch=examples,
        best_epoch=best_epoch,
        best_macro_f1=best_macro_f1,
        history=tuple(history),
        precision=str(adapted.model.dtype).removeprefix("torch."),
    )
