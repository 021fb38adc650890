"""--submit and --submit-option: a command that sends its parts as jobs."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mvl_auto.cli.common import DONE
from mvl_auto.jobs.submit import CLUSTERS

OPTION = re.compile(r"[a-z][a-z0-9-]*=[^\n]+")


def add_submit_arguments(parser: argparse.ArgumentParser, what: str, gpus: str = "gpus=1") -> None:
    """what: a job is. gpus: the option in words."""
    group = parser.add_argument_group("as jobs (docs/cluster.md)")
    group.add_argument(
        "--submit",
        choices=CLUSTERS,
        metavar="WHERE",
        help=f"slurm: send each {what} as a job, which resumes when it is queued again; local: in the background here "
        "(needs pip install 'mvl-auto[slurm]')",
    )
    group.add_argument(
        "--submit-option",
        nargs="+",
        type=option,
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help=f"of each job: partition=NAME time=12h memory=32GB cpus=8 {gpus}; others as sbatch has them: account=NAME",
    )


def option(text: str) -> tuple[str, str]:
    """("time", "12h") of "time=12h"."""
    if not OPTION.fullmatch(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE, such as partition=gpu")
    name, _, value = text.partition("=")
    return name, value


def command_words(module: str, words: Sequence[str], gpus: str) -> list[str]:
    """The command line of a job: of one process, or with more GPUs of one process for each."""
    start = [sys.executable, "-m"]
    if gpus.isdigit() and int(gpus) > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m"]
    return [*start, module, *words]


def words_of_options(chosen: Mapping[str, object]) -> list[str]:
    """The words of options with these values: none for None, False or an empty list, the name alone for True."""
    words: list[str] = []
    for name, value in chosen.items():
        if isinstance(value, list | tuple):
            words += [name, *map(str, value)] if value else []
        elif value is True:
            words.append(name)
        elif value is not None and value is not False:
            words += [name, str(value)]
    return words


def send(commands: Mapping[str, Sequence[str]], args: argparse.Namespace, folder: Path) -> int:
    """Send the commands, and say which jobs they are."""
    from mvl_auto.jobs.submit import submit

    for name, job in submit(commands, args.submit, dict(args.submit_option), folder).items():
        print(f"{name}: job {job.job}, log in {job.log}")
    return DONE
