"""The commands, run as a user runs them, with an exit code, stdout and stderr.

Each runs in a fork of one process that has imported what they need, which spares seconds for each; `installed` runs the
program of this environment instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

TINY_BLOCK = "random:hidden=32,heads=4,kv_heads=2,ffn=64,seed=0"
AS_A_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
LONGEST = 600  # seconds; a command that hangs is a failure, not a suite that never ends


def mvl(command: str, *args: object, root: Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `mvl_<command>` with MVL_ROOT set, and no other variable of ours."""
    words = [command, *map(str, args)]
    request = {"words": words, "folder": str(cwd or root), "environment": environment_of(root), "seconds": LONGEST}
    zygote = the_zygote()
    print(json.dumps(request), file=zygote.stdin, flush=True)
    answer = json.loads(zygote.stdout.readline())
    return subprocess.CompletedProcess(words, answer["code"], answer["stdout"], answer["stderr"])


def installed(command: str, *args: object, root: Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The same by the program that is installed in this environment, in a process of its own."""
    return subprocess.run(
        [Path(sys.executable).with_name(f"mvl_{command}"), *map(str, args)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment_of(root),
        cwd=cwd or root,
        timeout=LONGEST,
    )


def environment_of(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("MVL_ROOT", "nnUNet_raw")}
    return kept | {"MVL_ROOT": str(root), "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "120"}


@cache
def the_zygote() -> Any:
    """The process that the commands are forks of; it ends when the process of the tests does, as its stdin ends."""
    program = [sys.executable, str(Path(__file__).with_name("zygote.py"))]
    settings = environment_of(Path.cwd())
    zygote = subprocess.Popen(program, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert zygote.stdout is not None
    assert zygote.stdout.readline() == "ready\n"
    return zygote


def succeed(
    command: str, *args: object, root: Path, cwd: Path | None = None, run: Callable[..., Any] | None = None
) -> str:
    """Run it, expect exit code 0, and return what it printed on stdout."""
    done = (run or mvl)(command, *args, root=root, cwd=cwd)
    if done.returncode:
        pytest.fail(
            f"mvl_{command} {' '.join(map(str, args))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout


def refuse(command: str, *args: object, root: Path, cwd: Path | None = None) -> str:
    """Run it, expect exit code 2, and return the one line on stderr."""
    done = mvl(command, *args, root=root, cwd=cwd)
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"mvl_{command}: ")]
    assert (done.returncode, len(lines)) == (2, 1), f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == lines[0], f"not the last line:\n{done.stderr}"
    return lines[0]


def as_a_user(*command: str) -> str:
    """What a process prints that may read only what its files' permissions let it; root may read all."""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("no setpriv: root reads whatever the permissions say")
        command = (*AS_A_USER, *command)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
