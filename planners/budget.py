"""The budget of a training: memory and time, and the kind of device that they are on."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mvl_auto.errors import MvlError
from mvl_auto.planners.presets import GIB

Device = Literal["cpu", "gpu"]
HOST_SHARE = 3  # on a CPU training may take a third of the memory: data loading and other programs need the rest
GPU_PRESETS = {"S": 8 * GIB, "M": 16 * GIB, "L": 24 * GIB, "XL": 80 * GIB}  # as they are sold
CPU_PRESET = "cpu"
PRESETS = (*GPU_PRESETS, CPU_PRESET)
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, Windows' subsystem for Linux


@dataclass(frozen=True)
class Budget:
    """memory: bytes that training may take on the device. seconds: that the training of one fold takes."""

    memory: int
    device: Device = "cpu"
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.memory <= 0:
            raise MvlError(
                f"the memory budget must be positive, not {self.memory} bytes", remedy="Give one such as 8GB."
            )
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise MvlError(
                f"the time budget must be positive and finite, not {self.seconds} seconds",
                remedy="Give one such as 30m.",
            )


def preset_budget(name: str, seconds: float | None = None) -> Budget:
    """S, M, L, XL: a GPU of 8, 16, 24 or 80 GiB, here or elsewhere. cpu: the CPU of this machine.

    Raises MvlError for an unknown name, and for seconds with a GPU preset: speed must be measured on the device itself.
    """
    if name == CPU_PRESET:
        return budget_here(device="cpu", seconds=seconds)
    if name not in GPU_PRESETS:
        raise MvlError(f"unknown preset '{name}'", remedy=f"Choose one of {', '.join(PRESETS)}.")
    if seconds is not None:
        raise MvlError(
            f"preset {name} plans for any GPU of its size, but a time budget must be measured on the GPU that trains",
            remedy=f"On that GPU, give --memory {GPU_PRESETS[name] // GIB}GiB with --time, without --preset.",
        )
    return Budget(GPU_PRESETS[name], "gpu")


def budget_here(memory: int | None = None, device: str | None = None, seconds: float | None = None) -> Budget:
    """The budget of this machine, for what is not given: the free memory of its GPU, or a third of its memory.

    What was found is rounded down to whole GiB (quarters below one), so that planning twice gives the same plan.
    device: "cpu" or anything that names a GPU ("cuda", "cuda:1", "gpu"); None: a GPU if there is one.
    """
    free = None if device == "cpu" or (device is None and not may_have_gpu()) else _gpu_memory(device)
    if free is None and device not in (None, "cpu"):
        raise MvlError(f"no device '{device}' was found here", remedy="Use --device cpu, or leave --device out.")
    kind: Device = "cpu" if free is None else "gpu"
    found = host_memory() // HOST_SHARE if free is None else free
    return Budget(_round_down(found) if memory is None else memory, kind, seconds)


def choose_budget(memory: int | None, preset: str | None, seconds: float | None, device: str) -> Budget:
    if preset is None:
        return budget_here(memory, None if device == "auto" else device, seconds)
    if memory is not None:
        raise MvlError(
            f"both a preset ({preset}) and a memory ({memory} bytes) are given", remedy="Give only one of them."
        )
    return preset_budget(preset, seconds)


def host_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less in a container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in map(Path, CGROUP_LIMITS):
        if file.is_file() and (limit := file.read_text().strip()).isdigit():
            total = min(total, int(limit))
    return total


def may_have_gpu() -> bool:
    """Whether to ask torch for a GPU, which takes seconds: false only where no GPU driver is installed."""
    return sys.platform != "linux" or any(map(os.path.exists, GPU_DRIVERS))


def _gpu_memory(device: str | None) -> int | None:
    from mvl_auto.planners.cost.memory import gpu_memory

    return gpu_memory(device)


def _round_down(size: int) -> int:
    unit = GIB if size >= GIB else GIB // 4
    return max(size // unit, 1) * unit
