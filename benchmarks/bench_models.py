"""Run every model on laptop14, with restaurant14 out of domain, and put what came out into one file and one page.

python benchmarks/bench_models.py run                                   # all models and seeds, resumable
python benchmarks/bench_models.py run --models gemma3_270m_q4 --seeds 0
python benchmarks/bench_models.py collect    # benchmarks/results/models.json and docs/models.md of what is done

Each arm is `absa-edit train`, one after another; what is done is found, so that a stopped run goes on, and arms can be
run over several sittings or machines. The models have to be fetched before (`absa-edit model fetch`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import machine

from absa_edit.leaderboard.collect import Group, compared, read
from absa_edit.results import RunRecord
from absa_edit.storage import load, write_json
from absa_edit.table import pipe_table

ROOT = Path(__file__).resolve().parents[1]
RUNS, RESULTS, PAGE = (
    ROOT / "outputs" / "models",
    ROOT / "benchmarks" / "results" / "models.json",
    ROOT / "docs" / "models.md",
)
MODELS = ("reviewlm", "smollm2_135m_q4", "gemma3_270m_q4")
SEEDS = (0, 1, 2)
METHODS = ("zero_shot", "few_shot", "edit", "random", "lora")
FULL_SEEDS = (0, 1)
"""Full fine-tuning costs the most by far, and is run on fewer seeds."""
SETTINGS = (
    "+experiment=laptop14",
    "data.tests=[restaurant14]",
    "prompt.max_tokens=1024",  # eight shots take their room
    "fit.softmax=labels",  # for all methods: it trains the choice that is scored
    "trace.model=auto",
    "trace.engine=exact",
    "trace.grids=0",
    "export.method=none",
    "track=none",
)
DRAWS = 2000


def command(model: str, seed: int, methods: Sequence[str]) -> list[str]:
    """One arm."""
    named = [f"model={model}", f"seed={seed}", f"method=[{','.join(methods)}]", f"output={RUNS}"]
    return [sys.executable, "-m", "absa_edit", "train", *SETTINGS, *named]


def run(models: Sequence[str], seeds: Sequence[int], full: bool) -> None:
    """Every arm that is not done yet; a model at a time, the seeds in order."""
    for model in models:
        for seed in seeds:
            methods = (*METHODS, "full") if full and seed in FULL_SEEDS else METHODS
            began = time.perf_counter()
            subprocess.run(command(model, seed, methods), cwd=ROOT, check=True)
            print(f"{model}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)


def collect() -> None:
    """Write the file and the page of all runs that are there."""
    groups = compared(read([RUNS]), "edit", DRAWS)
    records = {folder: load(RunRecord, Path(folder) / "results.json") for group in groups for folder in group.folders}
    write_json(
        {
            "settings": list(SETTINGS),
            "machine": machine(),
            "groups": [_group(group, [records[folder] for folder in group.folders]) for group in groups],
        },
        RESULTS,
    )
    PAGE.write_text("\n".join(_page(groups, records)) + "\n", encoding="utf-8")
    print(f"{RESULTS.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


def _group(group: Group, records: Sequence[RunRecord]) -> dict[str, Any]:
    """What is kept of a model: scores over seeds, and by seed costs, traces and plans."""
    return {
        "model": group.model,
        "seeds": list(group.seeds),
        "weights": records[0].model.weights or "as published",
        "parameters": records[0].model.parameters,
        "scores": [asdict(line) for line in group.lines],
        "comparisons": [asdict(comparison) for comparison in group.comparisons],
        "runs": [_run(record) for record in records],
    }


def _run(record: RunRecord) -> dict[str, Any]:
    methods = {
        name: {
            "trainable": method.trainable,
            "lr": method.lr,
            "fit_seconds": method.fit and method.fit.seconds,
            "score_seconds": method.score_seconds,
            "peak_bytes": method.fit and method.fit.peak_bytes,
            "precision": method.fit and method.fit.precision,
            "perplexity": method.perplexity,
            "layers": list(method.plan.layers()) if method.plan else None,
        }
        for name, method in record.methods.items()
    }
    return {
        "seed": record.seed,
        "seconds": record.seconds,
        "git": record.git,
        "adaptation": record.adaptation and asdict(record.adaptation),
        "trace": record.trace and asdict(record.trace),
        "plan": record.plan and str(record.plan),
        "methods": methods,
    }


def _page(groups: Sequence[Group], records: dict[str, RunRecord]) -> Iterable[str]:
    yield "# Three models, adapted before they are traced\n"
    yield (
        "Written by `python benchmarks/bench_models.py collect` from the runs that are done; costs and traces by "
        "seed are in `benchmarks/results/models.json`. Trained on all of laptop14 (a tenth of its sentences "
        "held out for development), scored on its test set and, out of domain, on restaurant14. Learning rates are the "
        "defaults, the same for all models, and not tuned. Intervals are 95 %, over sentences and, with several seeds, "
        "over seeds.\n"
    )
    for group in groups:
        first = records[group.folders[0]]
        made = f", {first.model.weights}" if first.model.weights else ""
        seeds = ", ".join(map(str, group.seeds))
        yield f"## {group.model}\n"
        yield f"{first.model.parameters:,} parameters, {first.model.layers} layers{made}; seeds {seeds}.\n"
        yield from pipe_table(("method", *_tests(group), "trains", "fit"), _scores(group))
        yield ""
        for folder in group.folders:
            yield from _told(records[folder])
        yield ""


def _tests(group: Group) -> list[str]:
    tests = dict.fromkeys(line.test for line in group.lines)
    return [f"{test}, {metric}" for test in tests for metric in ("accuracy", "macro-F1")]


def _scores(group: Group) -> list[tuple[str, ...]]:
    rows = []
    for method in dict.fromkeys(line.method for line in group.lines):
        lines = [line for line in group.lines if line.method == method]
        cells = [cell for line in lines for cell in (line.score.accuracy.percent(), line.score.macro_f1.percent())]
        fit = lines[0].fit_seconds
        seeds = "" if len(lines[0].score.seeds) == len(group.seeds) else f" ({len(lines[0].score.seeds)} seeds)"
        rows.append((method + seeds, *cells, f"{max(lines[0].trainable):,}", "-" if fit is None else f"{fit:.0f} s"))
    return rows


def _told(record: RunRecord) -> Iterable[str]:
    """Where the trace of one seed peaks, in which depth its effect sits, and where the plan edits."""
    if record.trace is None or record.plan is None:
        return
    trace, peak = record.trace, record.trace.peak
    which = "adapted" if record.adaptation and record.adaptation.adapted else "base"
    depths = "; ".join(
        f"{part} peak at {depth.peak_layer.percent()} % of the depth" for part, depth in trace.depth.items()
    )
    layers = record.plan.layers()
    yield (
        f"- Seed {record.seed}: {which} model traced, {trace.counts.kept} of {trace.counts.seen} examples kept, total "
        f"effect {trace.total_effect.percent()} points; peak {peak.part.value}, layer {peak.layer}, "
        f"`{peak.role.value}`, {peak.effect.percent()} points; {depths}. Plan: layers {min(layers)} to {max(layers)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True, metavar="run|collect")
    running = actions.add_parser("run", help="the arms that are not done yet")
    running.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    running.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    running.add_argument("--without-full", action="store_true", help="leave full fine-tuning for later")
    running.set_defaults(act=lambda chosen: run(chosen.models, chosen.seeds, not chosen.without_full))
    actions.add_parser("collect", help="write the file and the page").set_defaults(act=lambda _: collect())
    chosen = parser.parse_args()
    chosen.act(chosen)


if __name__ == "__main__":
    main()
