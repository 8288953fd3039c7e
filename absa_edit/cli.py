"""The command line, `absa-edit <command> ...`: finds the command's file, and ends in one line what goes wrong."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from absa_edit import __version__
from absa_edit.errors import AbsaEditError

COMMANDS = {
    "train": "trace a model, edit what matters, compare, export: the main job",
    "predict": "the sentiment of aspects, by what a run exported",
    "benchmark": "many methods, models, data sets and seeds, as a file names them, each method tuned alike",
    "compare": "average finished runs over seeds, and compare their methods",
    "data": "fetch public data sets, or print the card of one",
    "model": "what a model is made of, and whether it can be traced",
    "serve-check": "whether vLLM would serve what a run exported",
    "push": "put what a run exported on the Hugging Face hub",
    "dashboard": "make the wandb workspace view of finished runs",
}
"""Every command, as `--help` tells it; its file is the one of that name in `absa_edit/commands/`."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None, *, root: Path | None = None) -> None:
    """Run the command that `argv` (by itself the program's arguments) names.

    `root` is the folder whose `data/` is looked in, by itself the current one.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments, root)
    except AbsaEditError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
    except KeyboardInterrupt:
        logging.disable()  # some libraries take their leave there
        resumes = ": the same command goes on from here" if arguments[0] in ("train", "benchmark") else ""
        sys.stderr.write(f"interrupted{resumes}\n")
        # Where the signal came inside an `exec` of text, as imports of large libraries are full of, Python remembers it
        # and kills `python -m` by the same signal in place of the exit code; the next `exec` of text forgets it.
        exec("")
        sys.exit(INTERRUPTED)
    else:
        if code:
            sys.exit(code)


def _run(arguments: list[str], root: Path | None) -> int | None:
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return None if arguments else 2
    if arguments[0] == "--version":
        sys.stdout.write(f"absa-edit {__version__}\n")
        return None
    name = arguments[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        advice = f"Did you mean {near[0]}?" if near else f"Expected one of {', '.join(COMMANDS)}."
        sys.stderr.write(f"error: no command {name!r}. {advice}\n")
        return 2
    if not sys.stderr.isatty():  # the libraries' bars redraw one line; read when the libraries are imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the hub's, and with them transformers'
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")  # of what draws its own
    command = import_module(f"absa_edit.commands.{name.replace('-', '_')}")
    code: int | None = command.main(arguments[1:], root or Path.cwd())
    return code


def _help() -> str:
    lines = [
        "absa-edit <command> ...",
        "",
        "Find where a language model decides the sentiment of an aspect, and train only that.",
        "",
        *(f"  {name:<12} {what}" for name, what in COMMANDS.items()),
        "",
        "absa-edit <command> --help says more, absa-edit --version which version this is.",
    ]
    return "\n".join(lines) + "\n"
