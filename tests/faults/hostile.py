"""Hostile and damaged inputs as generators, each with what must come of it.

    python -m tests.faults.hostile            all of them, and a table of what did not come as it should

An input changes a small root that has been planned, prepared and "trained" (`base`), and names the command that meets
it. The command must end in time and in memory, with one of the exit codes, without a traceback, with its reason in one
printable line, and with every file outside of the root as it was.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from corpus import GROUPS, Hostile
from prepared_root import base

from mvl_auto.printable import printable

LONGEST = 10.0  # s beyond what a good input takes
MOST_MEMORY = 1000.0  # MB beyond what a good input takes
GENEROUS = 6.0  # on a machine that does other things too


@dataclass(frozen=True)
class Outcome:
    hostile: Hostile
    code: int
    seconds: float
    megabytes: float
    said: str
    strays: list[str]

    @property
    def problem(self) -> str:
        """What is wrong; empty where nothing is."""
        if self.code == -9:
            return f"did not end within {LONGEST * GENEROUS:.0f} s"
        if self.code == 70 or "Traceback" in self.said:
            return "a traceback: " + (self.said.strip().splitlines() or [""])[-1]
        if self.code not in self.hostile.codes:
            return f"exit code {self.code}: {self.said[-300:]}"
        if self.megabytes > MOST_MEMORY:
            return f"{self.megabytes:.0f} MB"
        if self.strays:
            return f"changed outside of the root: {', '.join(self.strays)}"
        if printable(self.said, keep="\n\t") != self.said:
            return f"not printable: {self.said!r:.300}"
        return ""


# ------------------------------------------------------------------------------------- running


@contextmanager
def runner(folder: Path, make: Callable[[Path], object] = base) -> Iterator[Callable[[Hostile], Outcome]]:
    """A function that runs one input after the other, each on a fresh copy of one root. make: makes that root."""
    made = folder / "base"
    make(made)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, str(Path(__file__).parents[1] / "support/zygote.py")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as zygote:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        assert zygote.stdout.readline() == "ready\n"

        def run(hostile: Hostile) -> Outcome:
            place = folder / "place"
            shutil.rmtree(place, ignore_errors=True)
            root = place / "around" / "root"
            shutil.copytree(made, root)
            hostile.spoil(root)
            before = listing(place, root)
            request = {"words": list(hostile.command), "folder": str(root)}
            request["environment"] = environment | {"MVL_ROOT": str(root)}
            print(json.dumps(request | {"seconds": LONGEST * GENEROUS}), file=zygote.stdin, flush=True)
            answer = json.loads(zygote.stdout.readline())
            answer["said"] = answer.pop("stdout") + answer.pop("stderr")
            after = listing(place, root)
            strays = sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))
            return Outcome(hostile, strays=strays, **answer)

        yield run
        zygote.stdin.close()


def listing(place: Path, root: Path) -> dict[Path, float]:
    """What lies around the root, and when it was changed."""
    return {
        path: path.lstat().st_mtime
        for path in place.rglob("*")
        if not path.is_relative_to(root) and path not in root.parents
    }


def main() -> int:
    wanted = sys.argv[1:] or list(GROUPS)
    with tempfile.TemporaryDirectory(prefix="mvl-hostile-") as folder, runner(Path(folder)) as run:
        outcomes = []
        for hostile in (each for name in wanted for each in GROUPS[name]()):
            outcomes.append(run(hostile))
            if outcomes[-1].problem:
                print(f"{hostile.name}: {outcomes[-1].problem}", flush=True)
    bad = [outcome for outcome in outcomes if outcome.problem]
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    largest = max(outcomes, key=lambda outcome: outcome.megabytes)
    print(f"{len(outcomes)} inputs, {len(bad)} problems")
    print(f"slowest: {slowest.seconds:.1f} s, {slowest.hostile.name}")
    print(f"largest: {largest.megabytes:.0f} MB, {largest.hostile.name}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
