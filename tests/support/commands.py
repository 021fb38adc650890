"""The installed commands, run as a user runs them: in processes of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TINY_BLOCK = "random:hidden=32,heads=4,kv_heads=2,ffn=64,seed=0"
AS_A_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
LONGEST = 600  # seconds; a command that hangs is a failure, not a suite that never ends


def mvl(command: str, *args: object, root: Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `mvl_<command>` of this environment with MVL_ROOT set, two threads, and no other variable of ours."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MVL_ROOT", "nnUNet_raw")}
    environment |= {"MVL_ROOT": str(root), "OMP_NUM_THREADS": "2", "COLUMNS": "120"}
    program = Path(sys.executable).with_name(f"mvl_{command}")
    return subprocess.run(
        [program, *map(str, args)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        cwd=cwd or root,
        timeout=LONGEST,
    )


def succeed(command: str, *args: object, root: Path, cwd: Path | None = None) -> str:
    """Run it, expect exit code 0, and return what it printed on stdout."""
    done = mvl(command, *args, root=root, cwd=cwd)
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
