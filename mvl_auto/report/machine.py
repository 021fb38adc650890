"""The machine and the versions that a network was trained with: environment.json beside its checkpoint.

write_environment(fold_folder)       training calls it once, when it starts
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import Field

from mvl_auto.plans import Document, write_document

ENVIRONMENT = "environment.json"
PACKAGES = ("torch", "numpy", "scipy", "SimpleITK", "nibabel", "transformers", "safetensors")


class Environment(Document):
    """environment.json."""

    system: str
    python: str
    processor: str
    cores: int = Field(description="that this process may use")
    memory_bytes: int = Field(description="0: not known")
    gpus: tuple[str, ...]
    packages: dict[str, str] = Field(description="name -> version")


def describe_environment() -> Environment:
    """This machine and these versions. Imports nothing heavy."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Environment(
        system=platform.platform(),
        python=platform.python_version(),
        processor=_processor(),
        cores=cores,
        memory_bytes=_memory(),
        gpus=_gpus(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
    )


def write_environment(folder: Path) -> None:
    """Write environment.json into a fold's folder. Raises MvlError when it cannot be written."""
    write_document(Path(folder) / ENVIRONMENT, describe_environment())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _gpus(proc: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, ...]:
    """From the driver's own files: neither torch nor nvidia-smi is started for a line of text."""
    names = []
    for path in sorted(proc.glob("*/information")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return tuple(names)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
