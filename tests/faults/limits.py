"""Each stage where something is scarce: it ends in one line or with the right result, and loses nothing.

    python -m tests.faults.limits             every stage under every limit, and a table of what did not end well

The limits: a disk with little room (a file system in memory of a few kB more than is used; without the right to mount
one, a largest file), a folder that is read-only, little memory, few file descriptors, and the same command twice at
once. After each, the same command without the limit must give what an uninterrupted run gives (tests/faults/kill.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.faults.kill import LONGEST, STAGES, digest, prepare, restore, resume, run_to_end, start

if (support := str(Path(__file__).parents[1] / "support")) not in sys.path:
    sys.path.insert(0, support)

from commands import AS_A_USER

ONE_LINE = (0, 1, 2)  # exit codes
RESULT = {"plan": "preprocessed", "train": "results", "predict": "preds", "evaluate": "preds"}
UNFINISHED = (".writing-", ".unfinished")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and what it said on stderr."""

    code: int
    said: str


Run = Callable[[Sequence[str], Path], list[Ended]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--limits", nargs="+", choices=LIMITS, default=list(LIMITS))
    args = parser.parse_args(argv)
    bad = tried = 0
    with tempfile.TemporaryDirectory(prefix="mvl-limits-") as folder:
        for stage, limit, ends, problem in try_stages(Path(folder), args.stages, args.limits):
            codes = ", ".join(str(end.code) for end in ends)
            print(f"{stage:9} {limit:22} exit code {codes:5} {problem or 'well'}", flush=True)
            tried, bad = tried + 1, bad + bool(problem)
    print(f"{tried} tried, {bad} problems")
    return 1 if bad else 0


def try_stages(
    folder: Path, stages: Sequence[str], limits: Sequence[str]
) -> Iterator[tuple[str, str, list[Ended], str]]:
    """Yield stage, limit, how the command ended and what is wrong ("" where nothing is)."""
    root, before = folder / "root", folder / "before"
    prepare(root)
    for stage, command in STAGES.items():
        if not set(stages) & set(list(STAGES)[list(STAGES).index(stage) :]):
            return
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(root, before, symlinks=True)
        run_to_end(command, root)
        expected = digest(root)
        for limit in limits if stage in stages else ():
            restore(before, root)
            had = digest(root)
            ends = LIMITS[limit](command, root)
            yield stage, limit, ends, fault(ends, root, had) or resume(command, root, expected)
        restore(before, root)
        run_to_end(command, root)


def fault(ends: Sequence[Ended], root: Path, had: dict[str, str]) -> str:
    """What is wrong with how a command ended and with what it left; empty where nothing is."""
    for end in ends:
        if end.code not in ONE_LINE or "Traceback" in end.said:
            return f"exit code {end.code}: {end.said[-400:]}"
        if end.code and not (end.said.strip().splitlines() or [""])[-1].startswith("mvl_"):
            return f"its last line is no reason: {end.said[-400:]}"
    if left := [str(path) for path in root.rglob("*") if any(name in path.name for name in UNFINISHED)]:
        return f"half-written: {', '.join(left[:3])}"
    found = digest(root)
    lost = [name for name in had if name not in found]
    return f"lost: {', '.join(lost[:3])}" if lost else ""


# ------------------------------------------------------------------------------------- the limits


def _ended(*processes: subprocess.Popen[str]) -> list[Ended]:
    said = [process.communicate(timeout=LONGEST)[1] for process in processes]
    return [Ended(process.returncode, text) for process, text in zip(processes, said, strict=True)]


def _begin(command: Sequence[str], root: Path, shell: str = "", prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
    """shell: what a shell does before it becomes the command. prefix: a program that starts it."""
    return start(command, root, prefix, shell, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ulimit(words: str) -> Run:
    return lambda command, root: _ended(_begin(command, root, f"ulimit {words}"))


def small_disk(free: int) -> Run:
    """free: kB that the disk has beside what lies on it. What it holds in the end is copied back."""

    def run(command: Sequence[str], root: Path) -> list[Ended]:
        if not may_mount():
            return ulimit(f"-f {free * 2}")(command, root)  # in blocks of 512 bytes
        used = int(subprocess.run(["du", "-sk", root], capture_output=True, text=True).stdout.split()[0])
        copy = shutil.copytree(root, root.with_name("copy"), symlinks=True)
        size = 2 * used + 1000 + free
        shell = (
            f"mount -t tmpfs -o size={size}k none {root} || exit 99; cp -a {copy}/. {root}; cd {root}; "
            f"room=$(df -k --output=avail . | tail -1); head -c $(( (room - {free}) * 1024 )) /dev/zero > .filling; "
            f'"$0" "$@"; code=$?; rm -rf .filling {copy} && cp -a {root} {copy} && exit $code #'
        )
        ends = _ended(_begin(command, root, shell, ["unshare", "-m"]))
        shutil.rmtree(root)
        copy.rename(root)
        return ends

    return run


def may_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    )


def read_only(command: Sequence[str], root: Path) -> list[Ended]:
    """All folders below the root, and itself, without the right to write, for a user who is not root."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]
    with ExitStack() as stack:
        for path in folders:
            mode = path.stat().st_mode
            path.chmod(mode & ~0o222)
            stack.callback(path.chmod, mode)
        return _ended(_begin(command, root, prefix=AS_A_USER if os.geteuid() == 0 else ()))


def twice(command: Sequence[str], root: Path) -> list[Ended]:
    return _ended(_begin(command, root), _begin(command, root))


LIMITS: dict[str, Run] = {
    "disk: 0 kB free": small_disk(0),
    "disk: 40 kB free": small_disk(40),
    "disk: 400 kB free": small_disk(400),
    "disk: 8 MB free": small_disk(8000),
    "read-only": read_only,
    "memory: 300 MB": ulimit("-v 300000"),
    "memory: 1.1 GB": ulimit("-v 1100000"),
    "memory: 1.3 GB": ulimit("-v 1300000"),
    "descriptors: 16": ulimit("-n 16"),
    "descriptors: 24": ulimit("-n 24"),
    "descriptors: 48": ulimit("-n 48"),
    "twice at once": twice,
}


if __name__ == "__main__":
    sys.exit(main())
