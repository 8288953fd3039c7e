"""Processes that `accelerate launch` started together: the first runs every stage, the others only train with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from absa_edit.records import EditPlan

PATIENCE = timedelta(days=1)
"""The first process may trace or evaluate for hours before the others hear from it."""


@dataclass(frozen=True)
class Job:
    """A method that is going to be trained."""

    name: str
    plan: EditPlan | None
    key: str
    """Of what it is trained on and how; the same in every process, or they would train different things."""


def is_first() -> bool:
    """Whether this process runs the stages; one that is alone does."""
    return int(os.environ.get("RANK", "0")) == 0


def is_alone() -> bool:
    """Whether there are no other processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1


def announce(job: Job | None, device: torch.device) -> None:
    """Tell the other processes, if there are any, what is trained next; None sends them home."""
    _exchange([job], device)


def next_job(device: torch.device) -> Job | None:
    """What the first process announces; waits for it."""
    return _exchange([None], device)


def _exchange(jobs: list[Job | None], device: torch.device) -> Job | None:
    if not is_alone():
        PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        broadcast_object_list(jobs)
    return jobs[0]
