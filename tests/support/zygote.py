"""Runs commands of mvl_auto in forks of one process that has imported them: hundreds of them in a minute.

Reads one request a line from stdin (JSON: words, folder, environment, seconds), answers with one line: the exit code
(-9 for one that was ended because it took longer), the seconds, the memory in MB beyond that of the process itself, and
the last of what it said on stdout and stderr. An exception that reaches the surface has exit code 70.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from typing import IO, Any

COMMANDS = ("plan_and_preprocess", "train", "predict", "evaluate", "doctor", "explain", "report", "compare", "block")
TRACEBACK = 70
MOST_SAID = 1 << 20


def main() -> None:
    for name in COMMANDS:
        importlib.import_module(f"mvl_auto.cli.{name}")
    for name in ("api", "training", "inference", "planners", "evaluation", "preprocessing", "runs", "planners.doctor"):
        importlib.import_module(f"mvl_auto.{name}")
    warm_up()
    if (pid := os.fork()) == 0:
        os._exit(0)
    baseline = _wait(pid, time.monotonic() + 60)[1]
    say("ready")
    for line in sys.stdin:
        say(json.dumps(run(baseline, **json.loads(line))))


def warm_up() -> None:
    """Measure the memory of one network, as every planning does: what that imports takes seconds."""
    from memory_grid import step_of
    from networks import tiny

    from mvl_auto.planners.cost.memory import training_memory

    training_memory(step_of(tiny(), (16, 16, 16), 1, 1, 2, False))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(baseline: int, words: list[str], folder: str, environment: dict[str, str], seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+b") as stdout, tempfile.TemporaryFile("w+b") as stderr:
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            _run_here(words, folder, environment, (stdout.fileno(), stderr.fileno()))
        code, usage = _wait(pid, started + seconds)
        return {
            "code": code,
            "seconds": time.monotonic() - started,
            "megabytes": max(0, usage - baseline) / 1024,
            "stdout": _text(stdout),
            "stderr": _text(stderr),
        }


def _text(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode("utf-8", errors="replace")[-MOST_SAID:]


def _wait(pid: int, until: float) -> tuple[int, int]:
    """Exit code, and largest memory in kB."""
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss
        if time.monotonic() > until:
            os.killpg(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss
        time.sleep(0.005)


def _run_here(words: list[str], folder: str, environment: dict[str, str], outputs: tuple[int, int]) -> None:
    code = TRACEBACK
    try:
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace", closefd=False)
        os.chdir(folder)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        sys.argv = [f"mvl_{words[0]}", *words[1:]]
        try:
            code = importlib.import_module(f"mvl_auto.cli.{words[0]}").main(words[1:])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  what reaches the surface is what is looked for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
