"""Estimated traces against the exact ones of a benchmark's runs, in benchmarks/results/estimates.json.

python benchmarks/estimates.py benchmarks/models.yaml --models gemma3_270m_q4 --seeds 0

Takes the runs of the benchmark that traced exactly and are done here: their adapted models and exact traces are found,
and the same examples are traced by each engine that estimates.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from absa_edit.commands.benchmark_runs import Planner
from absa_edit.compose import conf_folder, register, settings_from
from absa_edit.context import Context
from absa_edit.leaderboard.benchmark import read_benchmark
from absa_edit.leaderboard.machine import machine
from absa_edit.leaderboard.rows import Results
from absa_edit.pipeline.prepare import prepare
from absa_edit.pipeline.stages.adapt import traced_context
from absa_edit.records import Trace
from absa_edit.settings import Stage
from absa_edit.storage import load_trace, write_json
from absa_edit.tracing.fidelity import agreement
from absa_edit.tracing.settings import Engine
from absa_edit.tracing.trace import trace

ROOT = Path(__file__).resolve().parents[1]
ENGINES = (Engine.attribution, Engine.auto)
DRAWS = 2000


def traced_runs(file: Path, chosen: argparse.Namespace, root: Path) -> Iterator[tuple[str, int, Context, Trace]]:
    """Model and seed of each exact trace that a run of the benchmark left, the context of its model, and the trace."""
    register()
    benchmark = read_benchmark(file)
    seen = set()
    for run in Planner(benchmark, chosen, root).scored(Results(file.parent / "results", benchmark.name)):
        place = run.job.model, run.job.seed
        if place in seen or f"stages=[{Stage.trace}," not in " ".join(run.lines) or not run.ended():
            continue
        seen.add(place)
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            settings = settings_from(compose("train", overrides=list(run.lines)))
        ctx, _ = traced_context(prepare(settings, root=root))
        exact = load_trace(ctx.folder / "trace", ctx.trace_key())
        if exact is not None:
            yield *place, ctx, exact


def estimates(ctx: Context, exact: Trace) -> dict[str, Any]:
    """By engine, how near its trace of the same examples is to the exact one, and how much faster it was made."""
    kept = set(exact.example_ids)
    prompts = [prompt for prompt in ctx.prompts_to_trace() if prompt.example.id in kept]
    results: dict[str, Any] = {"n": len(prompts), "samples": exact.samples, "exact_seconds": exact.seconds}
    for engine in ENGINES:
        settings = replace(ctx.settings.trace, engine=engine, filter=False)
        estimate = trace(ctx.lm, prompts, ctx.labels, settings, ctx.settings.prompt, seed=ctx.settings.seed)
        near = agreement(exact, estimate, draws=DRAWS, rng=ctx.rng("agreement"))
        results[engine.value] = {"seconds": estimate.seconds, **(asdict(near) if near else {})}
    return results


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    for part in ("models", "seeds"):
        parser.add_argument(f"--{part}", metavar="A,B", type=lambda text: text.split(","), help="only these")
    chosen = parser.parse_args(arguments)
    chosen.arms = chosen.train = chosen.sizes = None
    path = chosen.file.parent / "results" / "estimates.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for model, seed, ctx, exact in traced_runs(chosen.file, chosen, root):
        kept[f"{model} seed {seed}"] = {**estimates(ctx, exact), "machine": machine()}
        print(f"{model}, seed {seed}: {kept[f'{model} seed {seed}']}", flush=True)
        write_json(kept, path)


if __name__ == "__main__":
    main()
