"""Kill each stage at random moments, run the same command again, and compare with an uninterrupted run.

    python -m tests.faults.kill --rounds 50 --seed 1

A round copies what the stage starts from, starts the command in a process group of its own, ends the whole group (or,
every second time, the main process alone) with SIGKILL after a random time, checks that no process is left, and runs
the command to its end. The result must be the same, byte for byte but for the times of day and durations.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from builders import make_dataset
from commands import TINY_BLOCK

HERE = ["--device", "cpu", "--workers"]
STAGES = {
    "plan": ["plan_and_preprocess", "-d", "7", "--llm", TINY_BLOCK, "--memory", "1GB", *HERE, "2"],
    "train": ["train", "7", "fold0", "--steps", "8", *HERE, "1"],
    "predict": ["predict", "-i", "imgs", "-o", "preds", "-d", "7", "--device", "cpu"],
    "evaluate": ["evaluate", "-r", "refs", "-p", "preds"],
}  # fmt: skip
LONGEST = 300.0  # s of a command
PATIENCE = 30.0  # s for the processes of a command that was killed to end
TIMES = {"elapsed", "seconds", "created", "date"}  # keys of JSON files
# files that hold times, or follow them
VOLATILE = {"log.txt", ".lock", "report.html", "audit.html", "progress.png", "earlier.safetensors"}
CLOCKED = {"seconds", "waited", "share_waited"}  # columns of progress.csv


@dataclass(frozen=True)
class Round:
    """What came of one kill. problem: empty where all is well."""

    stage: str
    after: float  # s
    alone: bool  # the main process only
    was_running: bool
    problem: str


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="kills of each stage (default: 50)")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mvl-kill-") as folder:
        found = []
        for each in kill_stages(Path(folder), args.stages, args.rounds, args.seed):
            found.append(each)
            how = "main process" if each.alone else "whole group"
            state = each.problem or ("same result" if each.was_running else "had ended before")
            print(f"{each.stage:9} {each.after:6.2f} s  {how:12}  {state}", flush=True)
    bad = [each for each in found if each.problem]
    print(f"{len(found)} kills, {sum(each.was_running for each in found)} of running commands, {len(bad)} problems")
    return 1 if bad else 0


def kill_stages(folder: Path, stages: Sequence[str], rounds: int, seed: int) -> Iterator[Round]:
    """Yield each round; every stage starts from the uninterrupted result of the stage before."""
    generator = random.Random(seed)
    root, before = folder / "root", folder / "before"
    prepare(root)
    for place, (stage, command) in enumerate(STAGES.items()):
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(root, before, symlinks=True)
        started = time.monotonic()
        run_to_end(command, root)
        length = time.monotonic() - started
        expected = digest(root)
        for number in range(rounds if stage in stages else 0):
            restore(before, root)
            after, alone = generator.uniform(0, length), bool((number + place) % 2)
            running, problem = kill(command, root, after, alone)
            problem = problem or resume(command, root, expected)
            yield Round(stage, after, alone, running, problem)
            if problem:  # the next stage starts from a sound result
                restore(before, root)
                run_to_end(command, root)


def prepare(root: Path) -> None:
    """A raw dataset, and two images to predict with their references."""
    dataset = make_dataset(root / "raw", "nnunet", cases=5, shape=(12, 14, 13))
    for part, name in (("imagesTr", "imgs"), ("labelsTr", "refs")):
        (root / name).mkdir()
        for file in sorted((dataset / part).iterdir())[:2]:
            shutil.copy(file, root / name / file.name.replace("_0000.", "."))


def kill(command: Sequence[str], root: Path, after: float, alone: bool) -> tuple[bool, str]:
    """Whether the command was still running when it was killed, and what is wrong (a process that is left)."""
    process = start(command, root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after)
    running = process.poll() is None
    family = psutil.Process(process.pid).children(recursive=True) if running else []
    if running and alone:
        process.kill()
    elif running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(LONGEST)
    _, left = psutil.wait_procs(family, timeout=PATIENCE)
    for orphan in left:
        orphan.kill()
    return running, f"{len(left)} processes outlived their parent" if left else ""


def resume(command: Sequence[str], root: Path, expected: dict[str, str]) -> str:
    """What is wrong after the command has run again; empty where nothing is."""
    try:
        run_to_end(command, root)
    except RuntimeError as error:
        return str(error)
    found = digest(root)
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"differs: {', '.join(different[:5])}" if different else ""


def run_to_end(command: Sequence[str], root: Path) -> None:
    process = start(command, root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=LONGEST)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {said[-500:]}")


def start(
    command: Sequence[str], root: Path, prefix: Sequence[str] = (), shell: str = "", **pipes: Any
) -> subprocess.Popen[str]:
    """prefix: a program that starts it. shell: what a shell does before it becomes the command."""
    words = [*prefix, "sh", "-c", f'{shell or ":"}\nexec "$0" "$@"'] if prefix or shell else []
    program = Path(sys.executable).with_name(f"mvl_{command[0]}")
    environment = os.environ | {"MVL_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*words, program, *command[1:]], cwd=root, env=environment, start_new_session=True, text=True, **pipes
    )


def restore(before: Path, root: Path) -> None:
    shutil.rmtree(root)
    shutil.copytree(before, root, symlinks=True)


def digest(root: Path) -> dict[str, str]:
    """sha256 of every file below the root, without logs, locks and times."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name not in VOLATILE)
    return {str(path.relative_to(root)): hashlib.sha256(timeless(path)).hexdigest() for path in files}


def timeless(path: Path) -> bytes:
    """The bytes of a file without the times in it: durations in JSON, CSV, and in the metadata of a checkpoint.

    predictions.json and PreviousCase name checkpoints by their hash, which has the duration in it.
    """
    if path.suffix == ".safetensors" and path.parent.name.startswith(("fold", "pretraining")):
        from safetensors.numpy import load_file

        arrays = load_file(path)
        return b"".join(name.encode() + array.tobytes() for name, array in sorted(arrays.items()))
    if path.suffix == ".json":
        return json.dumps(without_times(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True).encode()
    if path.name == "progress.csv":
        rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [number for number, column in enumerate(rows[0]) if column not in CLOCKED]
        return repr([[row[number] for number in kept] for row in rows]).encode()
    return path.read_bytes()


def without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: without_times(value) for key, value in content.items() if key not in TIMES | {"checkpoints"}}
    return [without_times(value) for value in content] if isinstance(content, list) else content


if __name__ == "__main__":
    sys.exit(main())
