"""The main job: settings composed by Hydra, data and model loaded and checked, the stages run."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text

from absa_edit.compose import conf_folder, register, settings_from, source_folder, told
from absa_edit.errors import AbsaEditError, SettingsError
from absa_edit.pipeline.run_folder import check_output
from absa_edit.registry import load_plugins
from absa_edit.tracking.wandb import check_tracking

if TYPE_CHECKING:
    from absa_edit.context import Context
    from absa_edit.results import RunRecord

log = logging.getLogger("absa_edit")

HELP = """\
absa-edit train [+experiment=NAME] [key=value ...]

Finds where a language model decides the sentiment of an aspect, trains only that, compares it with the usual ways and
exports it. All results go to outputs/<experiment>/<model>/seed<k>; the same command again goes on where it stopped.

  absa-edit train +experiment=smoke                                 every stage on a few examples, in seconds
  absa-edit train +experiment=laptop14 'method=[edit,lora]' seed=1  two methods, another seed
  absa-edit train -m +experiment=laptop14 seed=0,1,2                three runs, to average by absa-edit compare

Experiments: {experiments}.
--cfg job          every setting with its value; a misspelt one stops the run and is named
--config-dir DIR   a folder with groups of your own (DIR/experiment/mine.yaml for +experiment=mine)
--hydra-help       Hydra's own options
"""


def main(arguments: Sequence[str], root: Path) -> None:
    if {"-h", "--help"} & set(arguments):
        experiments = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))
        sys.stdout.write(HELP.format(experiments=", ".join(experiments)))
        return

    def job(config: DictConfig) -> float | None:
        return run(config, root)

    load_plugins(_plugins(arguments))
    register()
    sys.argv = ["absa-edit train", *arguments]  # where Hydra looks for them
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that it raises its errors instead of printing them
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="train")(job)()
    except CompactHydraException as error:
        raise SettingsError(told(error)) from None


def _plugins(arguments: Sequence[str]) -> list[str]:
    """The files that `plugins=[...]` names among the arguments: their plug-ins must be there before Hydra composes."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith("plugins=")]
    return [file.strip(" '\"") for value in given for file in value.strip("[]").split(",") if file.strip()]


def run(config: DictConfig, root: Path) -> float | None:
    """Development macro-F1 of the exported method, for Hydra sweepers; the run folder holds everything else."""
    try:
        settings = settings_from(config)
        check_output(settings)
        check_tracking(settings.track)
        from absa_edit.pipeline import execute as pipeline
        from absa_edit.pipeline.prepare import (  # torch and transformers take seconds: a typo should not wait for them
            prepare,
        )
        from absa_edit.pipeline.stages.help_train import help_train
        from absa_edit.report.terminal import bar
        from absa_edit.training.distributed import announce, is_first

        overrides = list(HydraConfig.get().overrides.task)
        prepared = prepare(settings, overrides=overrides, root=root, progress=bar)
        if not is_first():
            help_train(prepared)
            return None
        log.info("%s", opening(prepared))
        _keep_settings(prepared, config, overrides)
        groups = [s.path for s in HydraConfig.get().runtime.config_sources if s.provider == "command-line"]
        command = shlex.join(["absa-edit", "train", *(f"--config-dir={path}" for path in groups), *overrides])
        console = Console(width=None if sys.stdout.isatty() else 120)
        record = pipeline.execute(prepared, console=console, command=command, root=source_folder())
        announce(None, prepared.lm.model.device)
        for line in closing(prepared, record):
            console.print(Text(line), soft_wrap=True)
    except AbsaEditError as error:
        log.error("%s", error)
        sys.exit(1)
    except Exception:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        log.exception("this process ends, and the others with it")
        sys.exit(1)  # Hydra would go on with the next job of a sweep, and the other processes with this one
    fitted = record.export and record.methods[record.export.method].fit
    return fitted.best_macro_f1 if fitted else None


def _keep_settings(run: Context, config: DictConfig, overrides: Sequence[str]) -> None:
    """Make the run's folder, with its settings and what of them stood on the command line."""
    from absa_edit.pipeline.prepare import make_way

    run.folder.joinpath(".hydra").mkdir(parents=True, exist_ok=True)
    make_way(run)
    config.name, config.data.name = run.experiment, run.splits.train.name  # what ran, if it is not what was asked
    config.fit.precision, config.trace.dtype = run.settings.fit.precision, run.settings.trace.dtype
    OmegaConf.save(config, run.folder / ".hydra" / "config.yaml", resolve=True)
    OmegaConf.save(OmegaConf.create(list(overrides)), run.folder / ".hydra" / "overrides.yaml")
    text = "".join(f"{override}\n" for override in overrides)
    (run.folder / "overrides.txt").write_text(text, encoding="utf-8")


def opening(run: Context) -> str:
    """The first line of a run: model, data, device, precision, output folder."""
    train, test = run.splits.train, run.splits.tests[0]
    return " · ".join(
        (
            f"{run.lm.name} ({run.lm.model.num_parameters() / 1e6:,.1f} M parameters)",
            f"{train.name} ({len(train):,} train, {len(test):,} test)",
            str(run.lm.model.device),
            f"trace {run.settings.trace.dtype or 'float32'}, training {run.settings.fit.precision}",
            str(run.folder),
        )
    )


def closing(run: Context, record: RunRecord) -> list[str]:
    """The last lines of a run: where to look, and how to ask what it exported."""
    page = run.folder / "report.html"
    lines = [f"report: {page}" if page.exists() else f"results: {run.folder / 'results.json'}"]
    if record.export:
        command = ["absa-edit", "predict", str(run.folder), "--sentence", "The fan never stops."]
        lines.append(shlex.join([*command, "--aspect", "fan"] if run.task.asks_aspect else command))
    return lines
