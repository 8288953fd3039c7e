"""Say whether vLLM would serve what a run exported, and what to do where it would not.

    python scripts/serve_check.py outputs/laptop14/reviewlm/seed0
    python scripts/serve_check.py <adapter or checkpoint> --max-lora-rank 64 --base <folder of the base model>

Exit code 0 when every folder found can be served, 1 when one cannot. Neither vLLM nor a GPU is needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from absa_edit.errors import AbsaEditError
from absa_edit.export.serving import Served, check_serving


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="run folder, adapter or merged checkpoint")
    parser.add_argument("--max-lora-rank", type=int, default=16, help="what the server starts with (default: 16)")
    parser.add_argument("--base", help="folder of the base model, where the adapter names one that is not here")
    arguments = parser.parse_args()
    try:
        found = check_serving(arguments.folder, max_rank=arguments.max_lora_rank, base=arguments.base)
    except AbsaEditError as error:
        sys.exit(f"error: {error}")
    for served in found:
        tell(served, Console(soft_wrap=True))
    sys.exit(0 if all(served.works for served in found) else 1)


def tell(served: Served, console: Console) -> None:
    """Print what stands in the way of serving one folder, then the command that serves it."""
    console.print(Text(str(served.folder), style="bold"))
    for problem in served.problems:
        mark = Text("  wrong  ", "bold red") if problem.fatal else Text("  note   ", "yellow")
        console.print(mark + Text(f"{problem.found}\n         -> {problem.fix}"))
    if served.works:
        console.print(Text("  serve   ", "bold green") + Text(served.command))


if __name__ == "__main__":
    main()
