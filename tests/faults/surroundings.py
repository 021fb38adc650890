"""Each command in surroundings that it does not expect: it gives the same result, or ends in one line.

    python -m tests.faults.surroundings                    every command everywhere, and how each ended
    python -m tests.faults.surroundings --only locale      surroundings with this in their name

Where nothing that a command needs is missing, it must end as in a friendly place, with the same files byte for byte but
for times. Where something is missing (stdout is full, no folder for temporary files), it must say so in one line.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.kill import digest, prepare, restore

if (support := str(Path(__file__).parents[1] / "support")) not in sys.path:
    sys.path.insert(0, support)

from commands import AS_A_USER, TINY_BLOCK

LONGEST = 300.0  # s of a command
CPU = ("--device", "cpu")
SMALL = ("--patch-size", "8", "8", "8", "--depth", "1", "--width", "16", "--batch-size", "1")
PLAN = ("plan_and_preprocess", "-d", "7", "--llm", TINY_BLOCK, "--memory", "1GB", *SMALL, *CPU, "--workers", "2")
TRAIN = ("train", "7", "--steps", "2", *CPU, "--workers", "1")
PREDICT = ("predict", "-i", "imgs", "-d", "7", "-f", "0", *CPU)
BEFORE = (  # what the commands start from
    PLAN,
    (*TRAIN, "0"),
    (*PREDICT, "-o", "preds"),
    (*PREDICT, "-o", "others", "--no-mirroring"),
    ("evaluate", "-r", "refs", "-p", "preds"),
    ("evaluate", "-r", "refs", "-p", "others"),
)
NEEDS_NOTHING = {"plan", "evaluate", "doctor", "block"}  # but raw data and folders of labels
COMMANDS: dict[str, Sequence[str]] = {
    "plan": (*PLAN, "-c", "3d_fullres", "2d"),
    "train": (*TRAIN, "0", "-n", "another"),
    "predict": (*PREDICT, "-o", "new"),
    "evaluate": ("evaluate", "-r", "refs", "-p", "copy", "-o", "scores"),
    "compare": ("compare", "preds", "others", "-o", "compared"),
    "report": ("report", "-d", "7"),
    "audit": ("audit", "-d", "7", *CPU),
    "doctor": ("doctor", "-d", "7", "--workers", "2", "--fix", "raw/Dataset008_Repaired"),
    "ablate": ("ablate", "-d", "7", "--steps", "2", *CPU, "--dry-run"),
    "explain": ("explain", "-i", "imgs", "-o", "explained", "-d", "7", *CPU),
    "pretrain": ("pretrain", "-d", "7", "--steps", "2", *CPU, "--workers", "1"),
    "block": ("block", "list"),
}


@dataclass(frozen=True)
class Surroundings:
    """environment: variables; None takes one away. shell: what a shell does before it becomes the command. behind:
    redirections of the command. prefix: a program that starts it. folder: where the root lies, below the temporary
    folder. missing: whether something is missing that a command may need.
    """

    environment: Mapping[str, str | None] = field(default_factory=dict)
    shell: str = ":"
    behind: str = ""
    prefix: Sequence[str] = ()
    folder: str = "place"
    missing: bool = False


NOT_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
STRANGER = ["setpriv", "--reuid=54321", "--inh-caps=+dac_override,+fowner", "--ambient-caps=+dac_override,+fowner"]
OWN_MOUNTS = ["unshare", "-m"]
NO_TEMPORARY = " && ".join(  # read-only, with what is in them: the environment of these tests may be. Not the root
    ['mount --bind "$MVL_ROOT" "$MVL_ROOT"']
    + [
        f"mount --rbind {place} {place} && mount -o remount,ro,bind {place}"
        for place in ("/tmp", "/var/tmp", "/dev/shm")
    ]
)
SURROUNDINGS: dict[str, Surroundings] = {
    "stdin closed": Surroundings(behind="<&-"),
    "stdout closed": Surroundings(behind=">&-"),
    "stderr closed": Surroundings(behind="2>&-"),
    "all closed": Surroundings(behind="<&- >&- 2>&-"),
    "stdout full": Surroundings(behind=">/dev/full", missing=True),
    "stderr full": Surroundings(behind="2>/dev/full"),
    "no HOME": Surroundings({"HOME": None}),
    "HOME is no folder": Surroundings({"HOME": "/dev/null/home"}),
    "HOME cannot be written": Surroundings({"HOME": "/sys"}),
    "no passwd entry": Surroundings({"HOME": None, "USER": None, "LOGNAME": None}, prefix=STRANGER),
    "no passwd entry, HOME /": Surroundings({"HOME": "/", "USER": None, "LOGNAME": None}, prefix=STRANGER),
    "working folder gone": Surroundings(shell='mkdir "$GONE" && cd "$GONE" && rmdir "$GONE"', missing=True),
    "locale not UTF-8": Surroundings(NOT_UTF8, missing=True),
    "locale not UTF-8, path is": Surroundings(NOT_UTF8, folder="Größe Ω", missing=True),
    "TMPDIR long": Surroundings({"TMPDIR": "LONG"}),
    "TMPDIR not there": Surroundings({"TMPDIR": "/nowhere"}),
    "TMPDIR cannot be written": Surroundings({"TMPDIR": "CLOSED"}, prefix=AS_A_USER),
    "no place for temporary files": Surroundings(
        {"TMPDIR": None}, shell=NO_TEMPORARY + " && cd /proc", prefix=OWN_MOUNTS, missing=True
    ),
    "/dev/shm small": Surroundings(shell="mount -t tmpfs -o size=64k none /dev/shm", prefix=OWN_MOUNTS),
    "/dev/shm read-only": Surroundings(shell="mount -t tmpfs -o ro none /dev/shm", prefix=OWN_MOUNTS),
    "no PATH": Surroundings({"PATH": None}),
    "no variables": Surroundings(prefix=["env", "-i", "MVL_ROOT=ROOT", "OMP_NUM_THREADS=1"]),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--only", default="", metavar="TEXT", help="surroundings with this in their name")
    parser.add_argument("--folder", type=Path, help="where the files lie meanwhile (default: a temporary folder)")
    args = parser.parse_args(argv)
    wanted = [name for name in SURROUNDINGS if args.only in name]
    found = []
    with tempfile.TemporaryDirectory(prefix="mvl-around-", dir=args.folder) as folder:
        for each in try_everywhere(Path(folder), args.commands, wanted):
            found.append(each)
            how = f"exit code {each.code}, {each.seconds:.1f} s" if each.code is not None else "no end"
            print(f"{each.command:9} {each.surroundings:30} {how:22} {each.problem or 'well'}", flush=True)
    bad = sum(bool(each.problem) for each in found)
    print(f"{len(found)} tried, {bad} problems")
    return 1 if bad else 0


@dataclass(frozen=True)
class Tried:
    """code: None where it did not end. problem: empty where all is well."""

    command: str
    surroundings: str
    code: int | None
    seconds: float
    problem: str


def try_everywhere(folder: Path, commands: Sequence[str], surroundings: Sequence[str]) -> Iterator[Tried]:
    for place in dict.fromkeys(SURROUNDINGS[name].folder for name in surroundings):
        root, before = folder / place / "root", folder / "before"
        prepare(root)
        shutil.copytree(root / "refs", root / "copy")
        for words in () if NEEDS_NOTHING.issuperset(commands) else BEFORE:
            done = run(words, root, Surroundings())
            if done.returncode:
                raise RuntimeError(f"{words}: {done.stderr[-500:]!r}")
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(root, before, symlinks=True)
        for command in commands:
            restore(before, root)
            usual = run(COMMANDS[command], root, Surroundings())
            expected = digest(root)
            for name in surroundings:
                if SURROUNDINGS[name].folder == place:
                    restore(before, root)
                    yield _try(command, name, root, usual.returncode, expected)


def _try(command: str, name: str, root: Path, usual: int, expected: Mapping[str, str]) -> Tried:
    begun = time.monotonic()
    try:
        done = run(COMMANDS[command], root, SURROUNDINGS[name])
    except subprocess.TimeoutExpired:
        return Tried(command, name, None, LONGEST, f"did not end within {LONGEST:.0f} s")
    seconds = time.monotonic() - begun
    return Tried(command, name, done.returncode, seconds, problem_of(done, usual, SURROUNDINGS[name], root, expected))


def problem_of(
    done: subprocess.CompletedProcess[bytes], usual: int, around: Surroundings, root: Path, expected: Mapping[str, str]
) -> str:
    """What is wrong with how a command ended and with what it left; empty where nothing is."""
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
    if "Traceback" in said or "Exception ignored" in said:
        return f"a traceback: {said[-1500:]}"
    if around.missing and done.returncode in (1, 2):
        return "" if last.startswith("mvl_") else f"its last line is no reason: {said[-300:]}"
    if done.returncode != usual:
        return f"not {usual}: {said[-600:]}"
    found = digest(root)
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"differs: {', '.join(different[:5])}" if different else ""


def run(words: Sequence[str], root: Path, around: Surroundings) -> subprocess.CompletedProcess[bytes]:
    program = Path(sys.executable).with_name(f"mvl_{words[0]}")
    environment = os.environ | {"MVL_ROOT": str(root), "OMP_NUM_THREADS": "1", "GONE": str(root.parent / "gone")}
    places = {"ROOT": str(root), "LONG": str(_folder(root.parent / ("x" * 100) / ("y" * 90)))}
    places["CLOSED"] = str(_folder(root.parent / "closed", 0o555))
    for name, value in around.environment.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = places.get(value, value)
    prefix = [word.replace("=ROOT", f"={root}") for word in around.prefix]
    shell = f'{around.shell} && exec "$0" "$@" {around.behind}'
    absolute = [str(root / word) if (root / word).exists() or word in NEW else word for word in words[1:]]
    return subprocess.run(
        [*prefix, "/bin/sh", "-c", shell, program, *absolute],
        cwd=root, env=environment, capture_output=True, timeout=LONGEST,
    )  # fmt: skip


NEW = {"preds", "others", "new", "scores", "compared", "explained", "raw/Dataset008_Repaired"}  # what commands make


def _folder(path: Path, mode: int = 0o777) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    return path


if __name__ == "__main__":
    sys.exit(main())
