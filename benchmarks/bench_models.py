"""Run the models on laptop14, with restaurant14 out of domain, and put what came out into one file and one page.

python benchmarks/bench_models.py run                                   # all models and seeds, resumable
python benchmarks/bench_models.py run --models gemma3_270m_q4 --seeds 0
python benchmarks/bench_models.py estimates  # estimated traces against the exact ones of runs that are done
python benchmarks/bench_models.py collect    # benchmarks/results/models.json and docs/models.md of what is done

Each arm is `absa-edit train`, one after another; what is done is found, so that a stopped run goes on, and arms can be
run over several sittings or machines. The models have to be fetched before (`absa-edit model fetch`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import machine
from hydra import compose, initialize_config_dir

from absa_edit.compose import conf_folder, register, settings_from
from absa_edit.leaderboard.collect import Group, compared, read
from absa_edit.pipeline.prepare import prepare
from absa_edit.pipeline.stages.adapt import traced_context
from absa_edit.results import RunRecord
from absa_edit.storage import load, load_trace, write_json
from absa_edit.table import pipe_table
from absa_edit.tracing.fidelity import agreement
from absa_edit.tracing.settings import Engine
from absa_edit.tracing.trace import trace

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
    "trace.model=auto",
    "trace.engine=exact",
    "trace.examples=60",
    "trace.samples=2",
    "trace.grids=0",
    "export.method=none",
    "track=none",
)
DRAWS = 2000


def overrides(model: str, seed: int, methods: Sequence[str]) -> list[str]:
    """One arm."""
    return [*SETTINGS, f"model={model}", f"seed={seed}", f"method=[{','.join(methods)}]", f"output={RUNS}"]


def methods_of(seed: int, full: bool) -> tuple[str, ...]:
    return (*METHODS, "full") if full and seed in FULL_SEEDS else METHODS


def run(models: Sequence[str], seeds: Sequence[int], full: bool) -> None:
    """Every arm that is not done yet; a model at a time, the seeds in order."""
    for model in models:
        for seed in seeds:
            began = time.perf_counter()
            arm = overrides(model, seed, methods_of(seed, full))
            subprocess.run([sys.executable, "-m", "absa_edit", "train", *arm], cwd=ROOT, check=True)
            print(f"{model}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)


def estimates(models: Sequence[str], seeds: Sequence[int], full: bool, engines: Sequence[str]) -> None:
    """How the estimates of the model that a run traced agree with its exact trace: `estimate.json` beside that."""
    register()
    for model in models:
        for seed in seeds:
            arm = overrides(model, seed, methods_of(seed, full))
            with initialize_config_dir(str(conf_folder()), version_base="1.3"):
                settings = settings_from(compose("train", overrides=arm))
            run_of = prepare(settings, overrides=arm, root=ROOT)
            ctx, _ = traced_context(run_of)
            exact = load_trace(ctx.folder / "trace", ctx.trace_key())
            if exact is None:
                print(f"{model}, seed {seed}: not traced yet")
                continue
            prompts = [p for p in ctx.prompts_to_trace() if p.example.id in set(exact.example_ids)]
            results = _estimates(ctx.folder)
            for engine in engines:
                chosen = replace(settings.trace, engine=Engine(engine), filter=False)
                estimate = trace(ctx.lm, prompts, ctx.labels, chosen, ctx.settings.prompt, seed=seed)
                near = agreement(exact, estimate, draws=DRAWS, rng=ctx.rng("agreement"))
                results[engine] = {"n": len(prompts), "seconds": estimate.seconds, "exact_seconds": exact.seconds}
                results[engine] |= asdict(near) if near else {}
                print(f"{model}, seed {seed}, {engine}: {results[engine]}", flush=True)
            write_json(results, ctx.folder / "trace" / "estimate.json")


def collect() -> None:
    """Write the file and the page of all runs that are there."""
    groups = compared(read([RUNS]), "edit", DRAWS)
    records = {folder: load(RunRecord, Path(folder) / "results.json") for group in groups for folder in group.folders}
    write_json(
        {
            "settings": list(SETTINGS),
            "machine": machine(),
            "groups": [_group(group, records) for group in groups],
        },
        RESULTS,
    )
    PAGE.write_text("\n".join(_page(groups, records)) + "\n", encoding="utf-8")
    print(f"{RESULTS.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


def _group(group: Group, by_folder: dict[str, RunRecord]) -> dict[str, Any]:
    """What is kept of a model: scores over seeds, and by seed costs, traces and plans."""
    records = [by_folder[folder] for folder in group.folders]
    return {
        "model": group.model,
        "seeds": list(group.seeds),
        "weights": records[0].model.weights or "as published",
        "parameters": records[0].model.parameters,
        "scores": [asdict(line) for line in group.lines],
        "comparisons": [asdict(comparison) for comparison in group.comparisons],
        "runs": [_run(by_folder[folder], Path(folder)) for folder in group.folders],
    }


def _run(record: RunRecord, folder: Path) -> dict[str, Any]:
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
        "estimates": _estimates(folder),
        "plan": record.plan and str(record.plan),
        "methods": methods,
    }


def _page(groups: Sequence[Group], records: dict[str, RunRecord]) -> Iterable[str]:
    yield "# Real models, adapted before they are traced\n"
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
            yield from _told(records[folder], _estimates(Path(folder)))
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


def _estimates(folder: Path) -> dict[str, Any]:
    path = folder / "trace" / "estimate.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _told(record: RunRecord, estimates: dict[str, Any]) -> Iterable[str]:
    """Where the trace of one seed peaks, in which depth its effect sits, where the plan edits, and how far estimates of
    this trace can be trusted.
    """
    if record.trace is None or record.plan is None:
        return
    trace, peak = record.trace, record.trace.peak
    which = "adapted" if record.adaptation and record.adaptation.adapted else "base"
    depths = "; ".join(
        f"{part} peak at {depth.peak_layer.percent()} % of the depth" for part, depth in trace.depth.items()
    )
    layers = record.plan.layers()
    trust = "".join(
        f" Engine `{engine}` on the same examples: rank correlation {100 * of['rank_correlation']['value']:.1f} "
        f"[{100 * of['rank_correlation']['low']:.1f}, {100 * of['rank_correlation']['high']:.1f}] %, "
        f"{of['exact_seconds'] / of['seconds']:.0f} times as fast."
        for engine, of in estimates.items()
        if "rank_correlation" in of
    )
    yield (
        f"- Seed {record.seed}: {which} model traced, {trace.counts.kept} of {trace.counts.seen} examples kept, total "
        f"effect {trace.total_effect.percent()} points; peak {peak.part.value}, layer {peak.layer}, "
        f"`{peak.role.value}`, {peak.effect.percent()} points; {depths}. Plan: layers {min(layers)} to "
        f"{max(layers)}.{trust}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True, metavar="run|estimates|collect")
    running = actions.add_parser("run", help="the arms that are not done yet")
    running.set_defaults(act=lambda chosen: run(chosen.models, chosen.seeds, chosen.full))
    estimating = actions.add_parser("estimates", help="estimated traces against the exact ones")
    estimating.add_argument("--engines", nargs="+", choices=("attribution", "auto"), default=("attribution", "auto"))
    estimating.set_defaults(act=lambda chosen: estimates(chosen.models, chosen.seeds, chosen.full, chosen.engines))
    for action in (running, estimating):
        action.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
        action.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
        action.add_argument("--without-full", dest="full", action="store_false", help="without full fine-tuning")
    actions.add_parser("collect", help="write the file and the page").set_defaults(act=lambda _: collect())
    chosen = parser.parse_args()
    chosen.act(chosen)


if __name__ == "__main__":
    main()
