"""Put the edit where restoring a component brings back most of the answer."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from absa_edit.context import Context
from absa_edit.errors import PlanError
from absa_edit.localizers.base import Localizer, SiteScores, localizer
from absa_edit.localizers.settings import LocateSettings
from absa_edit.records import Part, Trace
from absa_edit.tracing.effects import head_effects, indirect_effects
from absa_edit.tracing.settings import Engine


@localizer("trace")
class CausalTrace(Localizer):
    """A site's score is its average indirect effect at the role where it is largest."""

    needs_trace = True

    def score(self, ctx: Context, settings: LocateSettings) -> SiteScores:
        trace = ctx.trace
        if trace is None:
            raise PlanError(f"locate={self.name} needs a trace: add `trace` to stages, or use locate=manual")
        return traced_scores(trace, settings.parts)


def traced_scores(trace: Trace, parts: list[Part]) -> SiteScores:
    """Indirect effects of the sites of `parts`, a view for each role. Raises `PlanError` for what was not traced."""
    return SiteScores(_effects(trace, parts), trace.sentence_ids)


def _effects(trace: Trace, parts: list[Part]) -> Float[np.ndarray, "example kind role layer"]:
    if parts == [Part.head] and trace.engine == Engine.auto:
        raise PlanError("locate.parts=[head]: trace.engine=auto runs no head exactly; trace with exact or attribution")
    if parts == [Part.head] and trace.restored_heads.size:
        return head_effects(trace)
    missing = [part.value for part in parts if part not in trace.parts]
    if missing:
        raise PlanError(f"locate=trace needs {missing[0]} traced; add it to trace.parts or take it off locate.parts")
    return indirect_effects(trace)[:, [trace.parts.index(part) for part in parts]]
