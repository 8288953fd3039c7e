"""LoReFT alone: low-rank edits of the residual stream at some tokens of the prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from absa_edit.context import Context
from absa_edit.errors import PlanError, SettingsError
from absa_edit.methods.adapted_model import AdaptedModel
from absa_edit.methods.base import Method, method
from absa_edit.methods.reft import Place, RepresentationEdit, check_rank, read_by_answers
from absa_edit.methods.settings import MethodSettings, OptionallyLocatedSettings
from absa_edit.model.block_runner import BlockRunner
from absa_edit.records import EditPlan, Role


@dataclass
class Reft(OptionallyLocatedSettings):
    """LoReFT on the residual stream."""

    lr: float = 2e-3
    rank: int = 4
    positions: str = "f1+l1"
    """Tokens that are edited: `f<n>` the prompt's first n, `l<n>` its last n, `f<n>+l<m>` both; or a role, such as
    `aspect_again`, whose last token is."""
    tied: bool = False
    """Of first and last tokens: one edit a layer for all of them, in place of one for the first and one for the last.
    Source: pyreft, `share_weights`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not tokens(self.positions):
            roles = ", ".join(Role)
            raise SettingsError(
                f"method.<name>.positions={self.positions}: expected f<n>, l<n> or f<n>+l<n> with n of 1 or more, or "
                f"a role ({roles})"
            )


@method("reft")
class LowRankReft(Method):
    """rank (2 width + 1) parameters for each edited layer and place: the first tokens are a place, the last another.

    Of the last block only the last token's state is read: nothing there trains at other places. Source: Wu et al. 2024
    (arXiv 2404.03592).
    """

    settings = Reft
    adds_parts = True

    def located(self, settings: MethodSettings) -> bool:
        return isinstance(settings, Reft) and settings.located

    def layers_together(self, settings: MethodSettings) -> bool:
        return True

    def check(self, runner: BlockRunner, plan: EditPlan | None, settings: MethodSettings) -> None:
        assert isinstance(settings, Reft)
        check_rank(runner, settings.rank, "method.<name>.rank")
        if not (self.located(settings) and plan is None) and not _places(runner, plan, settings):
            raise PlanError(f"nothing reads the last block at {settings.positions}; edit an earlier layer")

    def apply(self, ctx: Context, plan: EditPlan | None, settings: MethodSettings) -> AdaptedModel:
        assert isinstance(settings, Reft)
        runner = BlockRunner(ctx.copy_of_model())
        places = _places(runner, plan, settings)
        edit = RepresentationEdit(places, runner.model.config.hidden_size, settings.rank).to(runner.device)
        start, lr = edit.layers[0] + 1, {"representation": settings.lr}
        return AdaptedModel(self.name, runner.model, representation=edit, plan=plan, lr=lr, start=start)


def tokens(positions: str) -> list[Place]:
    """Tokens that are edited, in no layer yet; none for what names none."""
    if positions in set(Role):
        return [Place((), Role(positions))]
    parts = re.fullmatch(r"(?:f([1-9]\d*))?(\+(?=l))?(?:l([1-9]\d*))?", positions)
    if parts is None or (parts[2] is not None) != (parts[1] is not None and parts[3] is not None):
        return []
    first, last = (int(count or 0) for count in (parts[1], parts[3]))
    return [place for place in (Place((), first=first), Place((), last=last)) if place.first or place.last]


def _places(runner: BlockRunner, plan: EditPlan | None, settings: Reft) -> list[Place]:
    """The places that train, each with its layers; first and last tokens are one where they are tied."""
    places = tokens(settings.positions)
    if settings.tied and len(places) == 2:
        places = [Place((), first=places[0].first, last=places[1].last)]
    layers: Sequence[int] = plan.layers() if settings.located and plan else range(runner.layers)
    with_layers = [
        Place(
            read_by_answers(layers, runner.layers - 1, at_last=bool(p.last) or p.role is Role.last),
            p.role,
            p.first,
            p.last,
        )
        for p in places
    ]
    return [place for place in with_layers if place.layers]
