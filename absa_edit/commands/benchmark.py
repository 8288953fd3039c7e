"""Run a benchmark file: methods, models, data sets, sizes and seeds, each method at its tuned learning rate.

    absa-edit benchmark benchmarks/reviewlm.yaml              what is not done yet, then tables and figures
    absa-edit benchmark benchmarks/reviewlm.yaml --list       the runs that it would make, in order
    absa-edit benchmark benchmarks/reviewlm.yaml --collect    the tables of what is done, and nothing else
    absa-edit benchmark benchmarks/reviewlm.yaml --retry      also what ended with an error
    absa-edit benchmark benchmarks/reviewlm.yaml --models reviewlm --seeds 0 --arms edit,lora      a part of it
    absa-edit benchmark benchmarks/reviewlm.yaml hydra/launcher=joblib hydra.launcher.n_jobs=4    side by side
    absa-edit benchmark benchmarks/reviewlm.yaml hydra/launcher=submitit_slurm                    on a cluster

Each run is an `absa-edit train` of its own, in outputs/benchmarks/<name>. What is done is kept in results/<name>.json
beside the benchmark file, and is not run again, wherever it was run; a stopped benchmark goes on from there. The two
launchers are Hydra's plug-ins: pip install "absa-edit[launchers]".
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from absa_edit.errors import SettingsError

log = logging.getLogger("absa_edit")

PARTS = ("models", "arms", "train", "seeds", "sizes")
"""What a part of a benchmark is chosen by."""


def main(arguments: Sequence[str], root: Path) -> None:
    parser = argparse.ArgumentParser(
        "absa-edit benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the benchmark, a YAML file")
    parser.add_argument("overrides", nargs="*", help="of Hydra's launcher: hydra/launcher=..., hydra.launcher....")
    parser.add_argument("--list", action="store_true", help="name the runs that are not done, and run nothing")
    parser.add_argument("--collect", action="store_true", help="write results of what is done, and run nothing")
    parser.add_argument("--retry", action="store_true", help="make those runs again that ended with an error")
    for part in PARTS:
        parser.add_argument(f"--{part}", metavar="A,B", type=lambda text: text.split(","), help="only these")
    chosen = parser.parse_intermixed_args(arguments)
    from absa_edit.commands.benchmark_runs import Planner, collect, launch
    from absa_edit.compose import register
    from absa_edit.leaderboard.benchmark import check_names, named, read_benchmark
    from absa_edit.leaderboard.page import write_page
    from absa_edit.leaderboard.rows import Results

    register()
    benchmark = read_benchmark(chosen.file)
    if odd := [line for line in chosen.overrides if not line.startswith("hydra")]:
        raise SettingsError(f"{odd[0]}: settings of the runs belong in {chosen.file}, under settings")
    for part in PARTS:
        check_names(f"--{part}", getattr(chosen, part) or (), named(benchmark, part), chosen.file.name)
    planner = Planner(benchmark, chosen, root)
    results = Results(chosen.file.parent / "results", benchmark.name)
    if chosen.retry:
        planner.forget_failures(results)
    if not chosen.collect:
        for phase in (planner.tuning, planner.scored):  # rates are known once their runs are done
            collect(results, phase(results))
            due = [run for run in phase(results) if run.key not in results.rows]
            if chosen.list:
                for run in due:
                    sys.stdout.write(f"{run.job.model} {run.job.name} seed {run.job.seed}\n")
            elif due:
                log.info("%s: %d runs to make", benchmark.name, len(due))
                launch(due, chosen.overrides, root)
                collect(results, due)
                results.save()
    if not chosen.list:
        collect(results, [*planner.tuning(results), *planner.scored(results)])
        results.save()
        written = write_page(results, benchmark)
        sys.stdout.write("".join(f"{path}\n" for path in (results.path, *written)))
