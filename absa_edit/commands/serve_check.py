"""Say whether vLLM would serve what a run exported, and what to do where it would not.

    absa-edit serve-check outputs/laptop14/reviewlm/seed0
    absa-edit serve-check <adapter or checkpoint> --max-lora-rank 64 --base <folder of the base model>

Exit code 0 when every folder found can be served, 1 when one cannot. Neither vLLM nor a GPU is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from absa_edit.export.serving import Served


def main(arguments: Sequence[str], _: Path) -> int:
    parser = argparse.ArgumentParser(
        "absa-edit serve-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="run folder, adapter or merged checkpoint")
    parser.add_argument("--max-lora-rank", type=int, default=16, help="what the server starts with (default: 16)")
    parser.add_argument("--base", help="folder of the base model, where the adapter names one that is not here")
    chosen = parser.parse_args(arguments)
    from absa_edit.export.serving import check_serving

    checked = check_serving(chosen.folder, max_rank=chosen.max_lora_rank, base=chosen.base)
    for served in checked:
        tell(served, Console(soft_wrap=True))
    return 0 if all(served.works for served in checked) else 1


def tell(served: Served, console: Console) -> None:
    """Print what stands in the way of serving one folder, then the command that serves it."""
    console.print(Text(str(served.folder), style="bold"))
    for problem in served.problems:
        mark = Text("  wrong  ", "bold red") if problem.fatal else Text("  note   ", "yellow")
        console.print(mark + Text(f"{problem.description}\n         -> {problem.fix}"))
    if served.works:
        console.print(Text("  serve   ", "bold green") + Text(served.command))
