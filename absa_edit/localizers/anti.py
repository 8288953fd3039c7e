"""The control for a trace: put the edit where restoring a component brings back least of the answer."""

from __future__ import annotations

from absa_edit.context import Context
from absa_edit.localizers.base import LowestScores, SiteScores, localizer
from absa_edit.localizers.causal_trace import CausalTrace
from absa_edit.localizers.settings import LocateSettings


@localizer("anti")
class AntiTrace(CausalTrace):
    """The window, or the sites, with the smallest average indirect effects; negative ones count as none.

    Source: the arm of heads of nearly no relevance in CT-SFT (Nur'aini et al., arXiv 2601.08146).
    Cost: that of the trace.
    """

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        traced = super().score(ctx, settings)
        return LowestScores(traced.values, traced.sentence_ids)
