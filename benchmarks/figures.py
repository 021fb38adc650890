"""Keep what a benchmark measured as a small JSON file: tests/test_docs.py reads README's numbers from docs/figures."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path

from cpu import cpu

REPOSITORY = Path(__file__).parents[1]
BUSY = 0.5  # load per core, before the benchmark began, beyond which a figure is of a busy machine
BEFORE = os.getloadavg()[0]


def add_keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the figures there too, as JSON")


def keep(file: Path | None, figures: Mapping[str, float | int | str]) -> None:
    """Write figures, the command, the day, the commit and the machine. Does nothing where file is None."""
    if file is None:
        return
    words = ["python", os.path.relpath(sys.argv[0], REPOSITORY), *_without_folders(sys.argv[1:])]
    load = BEFORE / (os.cpu_count() or 1)
    commit = subprocess.run(
        ["git", "-C", REPOSITORY, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    told = {
        "command": shlex.join(words),
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "cpu": cpu(),
        "torch": version("torch"),
        "machine": f"busy: load {load:.1f} a core" if load > BUSY else "quiet",
        "figures": dict(figures),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    part.rename(file)


def _without_folders(words: list[str]) -> list[str]:
    """The arguments with the folders of this machine left out of their paths."""
    return [Path(word).name if os.path.isabs(word) else word for word in words]
