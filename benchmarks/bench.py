"""Measure the project's speed on this machine against other tools and plain loops, each comparison in one run.

python benchmarks/bench.py trace              # exact tracing; outputs/bench/trace.json and a table
python benchmarks/bench.py trace --shape gemma3_270m    # or smollm2_135m, as `--models` of `fit`: random weights
python benchmarks/bench.py trace --scaling    # also cost by layers, length and samples: trace_scaling.json, a figure
python benchmarks/bench.py estimate           # estimated traces against exact ones; outputs/bench/estimate.json
python benchmarks/bench.py fit                # training; outputs/bench/fit.json and a table
python benchmarks/bench.py fit --scaling      # also cost by layers, length and examples: fit_scaling.json, a figure
python benchmarks/bench.py score              # scoring an edit from kept states; outputs/bench/score.json
python benchmarks/bench.py shots              # scoring with eight shots and with none; outputs/bench/shots.json
python benchmarks/bench.py predict            # answers against generated ones; outputs/bench/predict.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fits import OURS, THEIRS
from matplotlib.figure import Figure
from rich.console import Console
from shapes import SHAPES

from absa_edit.pipeline.prepare import versions
from absa_edit.storage import write_json

PARTS = ("trace", "estimate", "fit", "score", "shots", "predict")
OUT = Path(__file__).resolve().parents[1] / "outputs" / "bench"


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    flags = next((line.split(":")[1].split() for line in text.splitlines() if line.startswith("flags")), [])
    model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    seen = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return {"cpu": model, "flags": seen, "threads": torch.get_num_threads(), "versions": versions()}


def exponents(rows: Sequence[dict[str, float]], axis: str) -> dict[str, float]:
    """The power of `axis` that each other column grows with: slopes of logarithms."""
    x = np.log([row[axis] for row in rows])
    return {who: float(np.polyfit(x, np.log([row[who] for row in rows]), 1)[0]) for who in rows[0] if who != axis}


def draw_scaling(results: dict[str, Any], what: str, path: Path) -> None:
    """A panel for each size that changes, both axes logarithmic; `what` is measured."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (axis, result) in zip(figure.subplots(1, len(results), sharey=True), results.items(), strict=True):
        sizes = [row[axis] for row in result["rows"]]
        for who, exponent in result["exponents"].items():
            axes.loglog(
                sizes, [row[who] for row in result["rows"]], marker="o", label=f"{who}, exponent {exponent:.2f}"
            )
        axes.set_xlabel(axis)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.legend()
    figure.axes[0].set_ylabel(what)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(dest="what", required=True)
    trace, estimate, fit, score, shots, predict = (subparsers.add_parser(part) for part in PARTS)
    trace.add_argument("--shape", choices=tuple(SHAPES), default="llama", help="of the model, whose weights are random")
    trace.add_argument("--layers", type=int, help="by itself the shape's own number")
    trace.add_argument("--samples", type=int, default=10, help="noise samples")
    trace.add_argument("--rounds", type=int, default=3)
    trace.add_argument("--length", type=int, default=42, help="tokens of the prompt")
    estimate.add_argument("--data", default="laptop14", help="training data; the sample if not found")
    estimate.add_argument("--examples", type=int, default=100, help="looked at")
    estimate.add_argument("--samples", type=int, default=10, help="noise samples an example (ROME takes 10, a run 3)")
    for subparser in (fit, score):
        choices = (*SHAPES, "reviewlm")
        subparser.add_argument("--models", nargs="+", choices=choices, default=["llama", "reviewlm"])
        subparser.add_argument("--examples", type=int, default=128)
    fit.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    fit.add_argument("--softmax", choices=("labels", "vocabulary"), default="labels", help="of our loss")
    fit.add_argument("--ways", nargs="+", choices=(*OURS, *THEIRS), default=[*OURS, *THEIRS])
    shots.add_argument(
        "--models", nargs="+", default=["reviewlm"], help="or hub ids, folders, names of packaged models"
    )
    shots.add_argument("--data", default="laptop14", help="whose test data is scored; the sample if not found")
    shots.add_argument("--examples", type=int, default=None, help="the first so many; by itself all")
    shots.add_argument("--shots", type=int, default=8)
    shots.add_argument("--seed", type=int, default=0, help="draws the shots")
    shots.add_argument("--rounds", type=int, default=5)
    shots.add_argument("--device", default="cpu")
    shots.add_argument("--dtype", default="float32")
    predict.add_argument("--model", default="reviewlm", help="or a hub id, or a folder")
    predict.add_argument("--device", default="auto")
    predict.add_argument("--dtype", default="float32")
    predict.add_argument("--examples", type=int, default=480)
    for subparser in subparsers.choices.values():
        subparser.add_argument("--threads", type=int, default=2)
    for subparser in (trace, fit):
        subparser.add_argument(
            "--meta", action="store_true", help="also count FLOPs and bytes of a 7B model, without running it"
        )
        subparser.add_argument(
            "--scaling", action="store_true", help="also measure other sizes (a quarter to half an hour)"
        )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(highlight=False)
    bench = import_module(f"bench_{arguments.what}")  # the tools of another part need not be there
    results = bench.main(arguments, console)
    scaling = results.pop("scaling", None)  # in a file of its own, that a run without it leaves alone
    shape = getattr(arguments, "shape", "llama")
    part = arguments.what if shape == "llama" else f"{arguments.what}_{shape}"  # the usual shape's stays
    for name, result in ((part, results), (f"{part}_scaling", scaling)):
        if result:
            write_json({"machine": machine(), **result}, OUT / f"{name}.json")
            console.print(f"written to {OUT / name}.json")


if __name__ == "__main__":
    main()
