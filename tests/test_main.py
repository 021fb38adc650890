"""python -m mvl_auto."""

from __future__ import annotations

import importlib
import subprocess
import sys


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mvl_auto", *words], capture_output=True, text=True)


def test_the_commands_by_name():
    for name in ("train", "mvl_train"):
        done = run(name, "--version")
        assert (done.returncode, done.stdout.split()[0]) == (0, "mvl_train")


def test_no_word_lists_the_commands_and_a_wrong_one_too():
    done = run()
    assert done.returncode == 0
    assert {"train", "predict", "doctor"} <= set(done.stdout.replace(",", "").split())
    for name in done.stdout.partition("commands:")[2].replace(",", "").split():
        assert callable(importlib.import_module(f"mvl_auto.cli.{name}").main)
    done = run("segment")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "no command 'segment'" in done.stderr
