"""How the threads of one process wait for each other: decided before torch is imported, by how busy the machine is.

A training step makes its threads wait some thousand times. Where they spin, they go on at once, and a step on quiet
cores is faster. But a spinning thread keeps the core that another process wants, or that the thread it waits for wants:
beside ten busy processes a step takes 18 s against 0.7 s (docs/experiments.md, benchmarks/waiting.py).
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from pathlib import Path

SPIN, SPINS = "GOMP_SPINCOUNT", "100000"  # of GNU's OpenMP, which torch's wheels for Linux have: some tenths of a ms
POLICY, SLEEP = "OMP_WAIT_POLICY", "PASSIVE"
STAT = Path("/proc/stat")
LOOK = 0.1  # s
QUIET = 0.15  # share of the machine's cores that others may use while threads spin
IDLE = (3, 4)  # places of "idle" and "iowait" in the first line of /proc/stat


def choose_waiting(environment: MutableMapping[str, str], may_spin: bool) -> None:
    """Set how threads wait, unless the user has. may_spin: whether the command computes in threads for long."""
    if SPIN in environment or POLICY in environment:
        return
    if may_spin and busy_share() < QUIET:
        environment[SPIN] = SPINS
    else:
        environment[POLICY] = SLEEP


def busy_share(stat: Path = STAT, seconds: float = LOOK) -> float:
    """The share of the cores that is in use, seen for so long; 1 where the system does not tell."""
    try:
        before = _times(stat)
        time.sleep(seconds)
        after = _times(stat)
    except (OSError, ValueError):
        return 1.0
    passed = [b - a for a, b in zip(before, after, strict=True)]
    total = sum(passed)
    return 1.0 if total <= 0 else 1 - sum(passed[place] for place in IDLE) / total


def _times(stat: Path) -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal of all cores since the start, in ticks (man 5 proc)."""
    name, *ticks = stat.read_text(encoding="utf-8").partition("\n")[0].split() or [""]
    if name != "cpu" or len(ticks) < 8:
        raise ValueError(name)
    return [int(tick) for tick in ticks[:8]]
