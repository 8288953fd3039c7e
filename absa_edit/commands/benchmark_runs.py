"""The runs of a benchmark file: which are due, how Hydra's launchers make them, what is kept of those that are done."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig
from rich.console import Console

from absa_edit.compose import conf_folder, settings_from, source_folder, told
from absa_edit.errors import AbsaEditError, DataError, SettingsError
from absa_edit.leaderboard.benchmark import Benchmark, Job, jobs, overrides, run_key, tuning_jobs
from absa_edit.leaderboard.rows import Results, chosen_rates, failed_row, row_of
from absa_edit.localizers.settings import LOCALIZERS
from absa_edit.methods.base import method_of
from absa_edit.methods.settings import MethodSettings
from absa_edit.pipeline import execute as pipeline
from absa_edit.pipeline.prepare import make_way, prepare
from absa_edit.pipeline.run_folder import path_part
from absa_edit.report.terminal import bar
from absa_edit.settings import Settings, Stage
from absa_edit.storage import read_kept, write_json

log = logging.getLogger("absa_edit")


@dataclass(frozen=True)
class Run:
    """A job with the command line of its run, and the key that this is found again by."""

    job: Job
    lines: tuple[str, ...]
    key: str
    output: Path

    @property
    def end(self) -> Path:
        """The file that says how the run ended."""
        return end_file(self.output, self.job.name, self.job.seed)

    def ended(self) -> dict[str, str] | None:
        """How it ended: with its `folder`, or with an `error`; None where it did not, or was another run."""
        return read_kept(self.end, self.key)


def end_file(output: Path, name: str, seed: int) -> Path:
    return output / path_part(name) / f"seed{seed}.json"


class Planner:
    """The runs of a benchmark, or of a part of it."""

    def __init__(self, benchmark: Benchmark, chosen: argparse.Namespace, root: Path) -> None:
        self.benchmark = benchmark
        self.chosen = chosen
        self.output = root / "outputs" / "benchmarks" / benchmark.name
        self.methods: dict[str, tuple[str, MethodSettings]] = {}
        """Of each arm, its name among the methods of a run, and its settings."""
        self.stages: dict[str, list[Stage]] = {}
        with _composing():
            for arm in benchmark.arms:
                settings = _settings([*benchmark.settings, f"method=[{arm}]", "name=x", f"data={benchmark.train[0]}"])
                ((name, chosen_method),) = settings.method.items()
                self.methods[arm] = name, chosen_method
                self.stages[arm] = _stages(settings, chosen_method)

    def tuning(self, results: Results) -> list[Run]:
        """The runs that choose rates: of the arms that train at one."""
        tunable = [arm for arm, (_, settings) in self.methods.items() if settings.lr > 0]
        wanted = [job for job in tuning_jobs(self.benchmark, tunable) if self._needed(job)]
        return list(self._runs(wanted))

    def scored(self, results: Results) -> list[Run]:
        """The runs that are scored, at the rates that were chosen; those without a rate yet are left out."""
        rates = chosen_rates(results.rows.values())
        return list(self._runs(job for job in jobs(self.benchmark, rates) if self._part(job) and self._has_rate(job)))

    def forget_failures(self, results: Results) -> None:
        """Make runs that ended with an error new to the benchmark."""
        for run in (*self.tuning(results), *self.scored(results)):
            if "error" in (run.ended() or {}):
                run.end.unlink()
            if run.key in results.rows and results.rows[run.key].failed:
                del results.rows[run.key]

    def _has_rate(self, job: Job) -> bool:
        return job.rate is not None or self.benchmark.tuning is None or not self.methods[job.arm][1].lr

    def _part(self, job: Job) -> bool:
        chosen = self.chosen
        return all(
            values is None or value in values
            for value, values in (
                (job.model, chosen.models),
                (job.arm, chosen.arms),
                (job.train, chosen.train),
                (str(job.seed), chosen.seeds),
                (str(job.size), chosen.sizes),
            )
        )

    def _needed(self, job: Job) -> bool:
        """Whether a part of the benchmark needs the rate that a run helps to choose."""
        arms = self.chosen.arms
        borrowed = any(self.benchmark.arms[arm].rate_of == job.arm for arm in arms or ())
        models = self.chosen.models
        return (models is None or job.model in models) and (arms is None or job.arm in arms or borrowed)

    def _runs(self, wanted: Iterable[Job]) -> Iterator[Run]:
        for job in wanted:
            lines = overrides(self.benchmark, job, stages=self.stages[job.arm], key=self.methods[job.arm][0])
            output = self.output / job.model
            yield Run(job, (*lines, f"name={job.name}", f"output={output}"), run_key(lines), output)


def _stages(settings: Settings, chosen: MethodSettings) -> list[Stage]:
    """No more than a method needs: a trace only where its plan is made of one."""
    if not method_of(chosen).located(chosen):
        return [Stage.methods]
    traced = any(LOCALIZERS[located.kind].needs_trace for located in settings.localizers())
    return [Stage.trace, Stage.locate, Stage.methods] if traced else [Stage.locate, Stage.methods]


def _settings(lines: Sequence[str]) -> Settings:
    try:
        return settings_from(compose("train", overrides=list(lines)))
    except HydraException as error:
        raise SettingsError(told(error)) from None


@contextmanager
def _composing() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


def collect(results: Results, runs: Iterable[Run]) -> None:
    """Keep the rows of those runs that are done and not kept yet."""
    for run in runs:
        ended = None if run.key in results.rows else run.ended()
        if ended is None:
            continue
        if "error" in ended:
            results.add(failed_row(run.job, run.key, ended["error"], ended["at"]))
        else:
            folder = run.end.parent / ended["folder"]
            results.add(row_of(run.job, run.key, folder, ended["at"]), folder)


def launch(runs: Sequence[Run], launcher: Sequence[str], root: Path) -> None:
    """Have Hydra's launcher make the runs: by itself one after another in this process."""
    with _composing():
        place = [f"hydra.sweep.dir={runs[0].output.parent}", "hydra.sweep.subdir=.", "hydra.output_subdir=null"]
        place.append("hydra/hydra_logging=disabled")  # a run says itself what it is
        try:
            config = compose("train", overrides=[*launcher, *place], return_hydra_config=True)
        except HydraException as error:
            raise SettingsError(told(error)) from None
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
        made = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=partial(run_one, root=root), config=config
        )
        made.launch([list(run.lines) for run in runs], initial_job_idx=0)


def run_one(config: DictConfig, root: Path) -> None:
    """One run, and how it ended; an error that a user can cause stops no other run."""
    lines = [line for line in HydraConfig.get().overrides.task if not line.startswith(("name=", "output="))]
    end = end_file(Path(config.output), config.name, config.seed)
    log.info("run %d: %s, %s, seed %d", HydraConfig.get().job.num + 1, config.model.name, config.name, config.seed)
    try:
        settings = settings_from(config)
        ctx = prepare(settings, root=root, progress=bar)
        if missing := sorted({*settings.data.tests} - {data.name for data in ctx.splits.tests}):
            raise DataError(f"{missing[0]}, which the benchmark is to be scored on, was not found: fetch it first")
        ctx.folder.mkdir(parents=True, exist_ok=True)
        make_way(ctx)
        pipeline.execute(ctx, console=Console(quiet=True), root=source_folder())
        outcome = {"folder": str(ctx.folder.relative_to(end.parent))}
    except AbsaEditError as error:
        log.error("%s", error)
        outcome = {"error": str(error)}
    write_json({"key": run_key(lines), "at": datetime.now(UTC).isoformat(timespec="seconds"), **outcome}, end)
