"""The outcome of one job: its result, an error that the user can remove, or a failure."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import TypeVar

from mvl_auto.errors import MvlError
from mvl_auto.exhausted import exhaustion
from mvl_auto.progress import ONLY_IN_FILE

LONGEST_REASON = 500  # characters of the line; the log has the whole trace

J = TypeVar("J")
R = TypeVar("R")


class JobFailed(Exception):
    """A job raised an unexpected exception, or its process died. trace: where, for the log."""

    def __init__(self, what: str, trace: str = "") -> None:
        super().__init__(what, trace)
        self.what = what
        self.trace = trace

    def __str__(self) -> str:
        return self.what


def log_trace(log: logging.Logger, name: str, failure: JobFailed) -> None:
    """Where the job called `name` failed, for the log file: the screen leaves it out."""
    if failure.trace:
        log.error("%s: %s", name, failure.trace, extra={ONLY_IN_FILE: True})


class WorkerDied(JobFailed):
    """A worker process ended while it worked on a job."""


def outcome_of(function: Callable[[J], R], job: J) -> R | MvlError | JobFailed:
    """The result of a job, or the error in its place."""
    try:
        return function(job)
    except MvlError as error:
        return error
    except Exception as error:  # noqa: BLE001  not swallowed: told to the caller, who has other jobs to go on with
        told = exhaustion(error)
        what = " ".join((f"{type(error).__name__}: {error}" if told is None else str(told)).split())
        return JobFailed(what[:LONGEST_REASON], traceback.format_exc())
