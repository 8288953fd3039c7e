"""`report.html`: the run as one page that opens from disk and fetches nothing.

content.py                             the sections, their sentences and what they draw,
trace.py, scores.py, predictions.py    which these make as JSON values
page/page.html                         the template; tables and sentences are in it without any script
page/*.css, page/*.js                  its look, its maps, charts and filters
page/vendor/                           drawing libraries, unchanged, with their licences
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from absa_edit.records import Dataset, TokenGrid, Trace
from absa_edit.report import descriptions
from absa_edit.report.conclusions import caveats, warnings
from absa_edit.report.html.content import figures, headline, sections
from absa_edit.report.html.predictions import Predictions
from absa_edit.report.html.scores import method_looks
from absa_edit.report.plots.chart import chart_svg
from absa_edit.report.plots.style import label_colours
from absa_edit.report.tables import SCORES, data_table
from absa_edit.results import RunRecord
from absa_edit.tracing.effects import Effects

PAGE = Path(__file__).parent / "page"
STYLES = ("page.css", "controls.css", "figures.css")
SCRIPTS = ("controls.js", "heatmap.js", "charts.js", "explorer.js", "page.js")
LIBRARIES = ("vendor/d3.min.js", "vendor/plot.umd.min.js")
DRAWN = ("trace", "examples", "budget", "learning", "predictions")
"""Sections whose figure a script draws; the others are in the template."""


def report_html(
    record: RunRecord,
    *,
    effects: Effects | None = None,
    heads: Effects | None = None,
    trace: Trace | None = None,
    grids: Sequence[TokenGrid] = (),
    train: Dataset | None = None,
    tests: Sequence[Dataset] = (),
    predictions: Predictions | None = None,
    command: str | None = None,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> str:
    """The text of `report.html`; the same records give the same bytes.

    What the run has no numbers for is left out. `heads` are the effects of single heads, `train` has the
    sentences of the traced examples, `tests` those of `predictions`; `beside` are pictures (PNG) of the traces of other
    models, by what they show.
    """
    shown = sections(record, effects, heads, trace, grids, train, tests, predictions or {})
    methods = method_looks(record)
    drawn = {key: shown[key].data for key in DRAWN if key in shown and shown[key].data}
    libraries = [_read(name) for name in LIBRARIES if {"budget", "learning"} & set(drawn)]
    code = "\n".join(_read(name) for name in SCRIPTS)
    return _environment().get_template("page.html").render(
        record=record,
        describe=descriptions,
        warnings=warnings(record),
        headline=headline(record),
        figures=figures(record),
        caveats=caveats(record),
        sections=shown,
        methods=methods,
        label_colours=label_colours(len(record.labels)),
        charts=_charts(record),
        beside={title: _address("image/png", picture) for title, picture in beside.items()},
        data_table=data_table(record),
        scores_note=SCORES,
        command=command,
        payload={"methods": methods, **drawn},
        style=Markup("".join(_read(name) for name in STYLES)),
        libraries=[Markup(text) for text in libraries],
        licences=Markup(_read("vendor/LICENSES.txt")),
        code=Markup(code),
        allowed=" ".join(_digest(text) for text in (*libraries, code)),
    )  # fmt: skip


def prose(text: str) -> Markup:
    """A sentence with `code` and **bold** as HTML and everything else escaped; numbers keep to their units."""
    escaped = str(escape(text)).replace(" = ", "&nbsp;=&nbsp;").replace(" %", "&nbsp;%")
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", marked))


def _charts(record: RunRecord) -> dict[str, str]:
    """The charts of the analyses as addresses that hold the picture itself."""
    sections = {name: analysis.section for name, analysis in record.analyses.items()}
    return {
        name: _address("image/svg+xml", chart_svg(section.title, section.chart))
        for name, section in sections.items()
        if section.chart
    }


def _address(kind: str, picture: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # `tojson` also writes <, > and & as \u003c and so on: no sentence can end the script element that holds it
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["prose"] = prose
    return environment


def _read(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """The content-security policy's word for exactly this script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
