"""Trace a model, edit what matters, compare, export: `python train.py +experiment=laptop14`."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from absa_edit.compose import register, settings_from
from absa_edit.errors import AbsaEditError

ROOT = Path(__file__).resolve().parent
register()


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float | None:
    """Development macro-F1 of the exported method, for Hydra sweepers; the run folder holds everything else."""
    try:
        settings = settings_from(config)
        from absa_edit.context import prepare
        from absa_edit.pipeline import (
            execute as pipeline,  # torch and transformers take seconds: a typo should not wait for them
        )
        from absa_edit.pipeline.stages.methods import help_train
        from absa_edit.report.terminal import bar
        from absa_edit.training.distributed import announce, is_first

        overrides = list(HydraConfig.get().overrides.task)
        run = prepare(settings, overrides=overrides, root=ROOT, progress=bar)
        if not is_first():
            return help_train(run)
        run.folder.joinpath(".hydra").mkdir(parents=True, exist_ok=True)
        run.make_way()
        config.name, config.data.name = run.experiment, run.splits.train.name  # what ran, if it is not what was asked
        config.fit.precision, config.trace.dtype = run.settings.fit.precision, run.settings.trace.dtype
        OmegaConf.save(config, run.folder / ".hydra" / "config.yaml", resolve=True)
        OmegaConf.save(OmegaConf.create(overrides), run.folder / ".hydra" / "overrides.yaml")
        command = shlex.join(["python", "train.py", *overrides])
        record = pipeline.execute(run, console=Console(), command=command, root=ROOT)
        announce(None, run.lm.model.device)
    except AbsaEditError as error:
        logging.getLogger("absa_edit").error("%s", error)
        sys.exit(1)
    except Exception:
        from absa_edit.training.distributed import is_alone

        if is_alone():
            raise
        logging.getLogger("absa_edit").exception("this process ends, and the others with it")
        sys.exit(1)  # Hydra would go on with the next job of a sweep, and the other processes with this one
    fitted = record.export and record.methods[record.export.method].fit
    return fitted.best_macro_f1 if fitted else None


if __name__ == "__main__":
    main()
