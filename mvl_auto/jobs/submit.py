"""Commands as jobs of Slurm, through submitit (Meta): each resumes by itself when its job is started again.

A job starts the command as a process of its own. When Slurm says that the job's time is over, or that it is preempted,
submitit gets a signal: the command is then asked to save and end, and the same job is queued again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_auto.errors import MvlError
from mvl_auto.extras import need
from mvl_auto.text import parse_duration, parse_memory

CLUSTERS = ("slurm", "local")  # local: in the background of this machine, to try it
SAVES_WITHIN = 80.0  # s; Slurm tells submitit 90 s before the end
MOST_QUEUED_AGAIN = 1000  # times that a job may reach its limit of time
A_DAY = 24 * 60  # minutes
LOOK_EVERY = 0.2  # s
COUNTS = {"cpus": "cpus_per_task", "gpus": "gpus_per_node"}


@dataclass(frozen=True)
class Submitted:
    """A job that was sent. log: what it says, once it runs."""

    job: str
    log: Path


class CommandJob:
    """words: the command and its arguments. Called by submitit in the job; `checkpoint` is submitit's name."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.process: int | None = None

    def __call__(self) -> None:
        """Raises CalledProcessError when the command fails."""
        process = subprocess.Popen(self.words, env=_own_environment(os.environ), preexec_fn=_ignore_warning)
        self.process = process.pid
        while (code := process.poll()) is None:  # not wait(): its lock would be held while `checkpoint` interrupts it
            time.sleep(LOOK_EVERY)
        if code:
            raise subprocess.CalledProcessError(code, self.words)

    def checkpoint(self) -> Any:
        """Ask the command to save and end; returns the same job, to be queued again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            os.kill(self.process, signal.SIGTERM)
            end = time.monotonic() + SAVES_WITHIN
            while time.monotonic() < end and not _has_ended(self.process):
                time.sleep(LOOK_EVERY)
        return DelayedSubmission(CommandJob(self.words))


def _ignore_warning() -> None:
    """Slurm sends its warning to all processes of a job, and SIGUSR2 would end the command before it could save."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what would make a process of ours believe that others train with it."""
    return {name: value for name, value in environment.items() if name not in ("RANK", "WORLD_SIZE")}


def _has_ended(process: int) -> bool:
    """Its exit code is left for the one who waits for it."""
    try:
        return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def submit(
    commands: Mapping[str, Sequence[str]], cluster: str, options: Mapping[str, str], folder: Path
) -> dict[str, Submitted]:
    """Send each command (name -> words) as a job, together as a job array. folder: of their logs.

    options: partition, time, memory, cpus and gpus are ours, any other is one of sbatch. Raises MvlError when submitit
    or Slurm is not there, or Slurm refuses.
    """
    need("submitit", f"--submit {cluster}")
    import submitit

    parameters = slurm_parameters(options)
    executor: Any
    if cluster == "local":
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(timeout_min=parameters["time"])
    else:
        if submitit.SlurmExecutor.affinity() < 0:
            raise MvlError("there is no Slurm here (no sbatch or srun is found)", remedy="Leave out --submit slurm.")
        executor = submitit.SlurmExecutor(folder, max_num_timeout=MOST_QUEUED_AGAIN)
        executor.update_parameters(**parameters)
    try:
        with executor.batch():
            jobs = {name: executor.submit(CommandJob(words)) for name, words in commands.items()}
    except submitit.core.utils.FailedJobError as error:
        raise MvlError(f"Slurm refused the jobs: {error}", remedy="Change --submit-option.") from error
    return {name: Submitted(job.job_id, job.paths.stderr) for name, job in jobs.items()}


def slurm_parameters(options: Mapping[str, str]) -> dict[str, Any]:
    """In submitit's words. Raises MvlError for a value that cannot be understood."""
    found: dict[str, Any] = {"time": A_DAY}
    others: dict[str, str] = {}
    for name, value in options.items():
        try:
            if name == "time":
                found["time"] = max(1, round(parse_duration(value) / 60))
            elif name == "memory":
                found["mem"] = f"{max(1, parse_memory(value) >> 20)}M"
            elif name in COUNTS:
                found[COUNTS[name]] = int(value)
            elif name == "partition":
                found[name] = value
            else:
                others[name] = value
        except ValueError as error:
            raise MvlError(f"--submit-option {name}={value} cannot be understood ({error})") from error
    return found | ({"additional_parameters": others} if others else {})
