"""Runs commands of mvl_auto in forks of one process that has imported them: hundreds of them in a minute.

Reads one request a line from stdin (JSON: words, folder, root, seconds), answers with one line: the exit code (-9 for
one that was ended because it took longer), the seconds, the memory in MB beyond that of the process itself, and what it
said. An exception that reaches the surface has exit code 70.
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
from typing import Any

COMMANDS = ("plan_and_preprocess", "train", "predict", "evaluate", "doctor", "explain")
TRACEBACK = 70


def main() -> None:
    for name in COMMANDS:
        importlib.import_module(f"mvl_auto.cli.{name}")
    for name in ("api", "training", "inference", "planners", "evaluation", "preprocessing", "runs", "planners.doctor"):
        importlib.import_module(f"mvl_auto.{name}")
    import torch  # noqa: F401

    if (pid := os.fork()) == 0:
        os._exit(0)
    baseline = _wait(pid, time.monotonic() + 60)[1]
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(baseline, **json.loads(line))), flush=True)


def run(baseline: int, words: list[str], folder: str, root: str, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+b") as said:
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            _run_here(words, folder, root, said.fileno())
        code, usage = _wait(pid, started + seconds)
        said.seek(0)
        text = said.read().decode("utf-8", errors="replace")
    return {
        "code": code,
        "seconds": time.monotonic() - started,
        "megabytes": max(0, usage - baseline) / 1024,
        "said": text[-20_000:],
    }


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


def _run_here(words: list[str], folder: str, root: str, output: int) -> None:
    code = TRACEBACK
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace", closefd=False)
        os.chdir(folder)
        os.environ["MVL_ROOT"] = root
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
