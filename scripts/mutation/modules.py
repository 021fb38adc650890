"""Which modules are mutated, and the tests that belong to each: those that are quick."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Group:
    """Modules whose mistakes are counted together. Files and tests are patterns below the repository."""

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]


def _in(folder: str, names: str, prefix: str = "") -> tuple[str, ...]:
    return tuple(f"{folder}/{prefix}{name}.py" for name in names.split())


GROUPS = (
    Group(
        "mvl_auto/network",
        _in("mvl_auto/network", "enrich fusion layers loss model optimizer stem step trunk"),
        (
            *_in("tests/network", "block_forms enrich fusion layers loss model step trunk", "test_"),
            "tests/training/test_loop.py",
        ),
    ),
    Group(
        "mvl_auto/training",
        _in("mvl_auto/training", "augmentation batches cases loop patches schedule session"),
        _in("tests/training", "augmentation batches loop patches schedule sending", "test_"),
    ),
    Group(
        "preprocessing",
        _in("preprocessing", "case interpolation normalize resample"),
        _in("tests/preprocessing", "case normalize resample", "test_"),
    ),
    Group(
        "inference",
        _in("inference", "label_files output restore sliding_window windows"),
        _in("tests/inference", "label_files output restore sliding_window windows", "test_"),
    ),
    Group(
        "evaluation",
        _in(
            "evaluation",
            "boundary case lesions metrics nearest overlap pairs raters statistics summary surfaces surfels",
        ),
        _in("tests/evaluation", "boundary case lesions overlap raters statistics summary surfaces", "test_"),
    ),
    Group(
        "mvl_auto/images",
        _in("mvl_auto/images", "crop geometry nifti spacing"),
        _in("tests/images", "crop formats geometry nifti spacing volume", "test_"),
    ),
    Group(
        "mvl_auto/plans",
        _in("mvl_auto/plans", "block document fingerprint labels plan"),
        _in("tests/plans", "block limits plans", "test_"),
    ),
    Group(
        "mvl_auto/llm",
        _in("mvl_auto/llm", "architectures block card controls"),
        _in("tests/llm", "architectures block card controls parity", "test_"),
    ),
    Group(
        "mvl_auto/ablation",
        _in("mvl_auto/ablation", "arms estimate few_shot tables record"),
        _in("tests/ablation", "arms evidence few_shot", "test_"),
    ),
    Group(
        "planners",
        (
            *_in("planners", "budget normalization planner schedule search search_space selection spacing splits task"),
            *_in("planners/cost", "block estimate step timing"),
            *_in("planners/fingerprint", "anomalies case dataset intensities"),
        ),
        (
            *_in("tests/planners", "schemes search spacing splits thresholds", "test_"),
            *_in("tests/planners/cost", "block estimate timing", "test_"),
            *_in("tests/planners/fingerprint", "dataset intensities", "test_"),
        ),
    ),
)


def files_of(patterns: Sequence[str], folder: Path) -> list[str]:
    """The files of these patterns below a folder. Raises FileNotFoundError where a pattern finds none."""
    return [name for pattern in patterns for name in _found(pattern, folder)]


def _found(pattern: str, folder: Path) -> Iterator[str]:
    files = sorted(folder.glob(pattern))
    if not files:
        raise FileNotFoundError(f"{pattern}: no such file in {folder}; mend the table in scripts/mutation/modules.py")
    yield from (str(file.relative_to(folder)) for file in files if file.name != "conftest.py")
