"""The map of the house: who may import whom (docs/architecture.md), read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from source_files import source_files

STAGES = {"planners", "preprocessing", "training", "inference", "evaluation"}
MODELS = {"network", "llm"}
RUNS = {"runs"}  # what a run is on disk: it builds networks to load their weights into
SURFACE = {"ablation", "api", "audit", "cli", "demo", "public", "report", "results", "__main__"}  # on top of the stages


FILES = source_files()
ROOMS = {module.split(".")[0] for module in FILES}
SHARED = (
    ROOMS - STAGES - MODELS - RUNS - SURFACE
)  # errors, files, paths, plans, ...: every other file of mvl_auto, and itself

MAY_IMPORT = (
    dict.fromkeys(SHARED, SHARED)
    | dict.fromkeys(MODELS, SHARED | MODELS)
    | {
        "runs": SHARED | MODELS,
        "planners": SHARED | {"network"},  # to measure what it plans
        "preprocessing": SHARED,
        "training": SHARED
        | MODELS
        | RUNS
        | {"preprocessing", "inference", "evaluation", "report"},  # to prepare, validate, report
        "inference": SHARED | MODELS | RUNS | {"preprocessing"},  # the same code prepares a training case and an image
        "evaluation": SHARED,
        "report": SHARED | RUNS | {"evaluation", "planners"},  # scores, and the plan in words
        "ablation": SHARED | MODELS | RUNS | STAGES | {"report"},  # it trains runs, and reads them
        "audit": SHARED | MODELS | RUNS | STAGES | {"report"},
        "api": SHARED | MODELS | RUNS | STAGES | {"ablation", "audit", "report", "results"},
        "cli": SHARED | MODELS | RUNS | STAGES | SURFACE,
        "demo": SHARED | MODELS | RUNS | STAGES | {"api"},
        "public": SHARED | {"api"},
        "results": SHARED | {"training"},
        "": SHARED | {"ablation", "api", "public", "inference"},
        "__main__": {"cli"},
    }
)
MAY_IMPORT_TORCH = MODELS | {
    "training",
    "inference",
    "loggers",
    "runs",
    "ablation.run",
    "ablation.free_looks",
    "planners.cost.memory",
    "planners.cost.dummy",
    "planners.cost.timing",
}
TORCH_FAMILY = {"torch", "transformers", "peft"}


def room(module: str) -> str:
    """Where a module belongs: "planners" for planners.spacing, "errors" for errors."""
    return module.split(".")[0]


def imports(file: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever it does; type-checking blocks count too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def rooms_imported(file: Path) -> set[str]:
    """The parts of mvl_auto that a file imports; names that the package itself defines are the package."""
    found = set()
    for name in imports(file):
        if name == "mvl_auto" or name.startswith("mvl_auto."):
            below = room(name.removeprefix("mvl_auto").lstrip("."))
            found.add(below if below in ROOMS else "")
    return found


def test_every_folder_of_the_house_is_looked_at():
    assert STAGES | MODELS | RUNS | SURFACE <= ROOMS
    shared = {"errors", "files", "paths", "datasets", "images", "jobs", "plans", "cache", "progress", "version", "logs"}
    assert shared | {""} <= SHARED


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_stay_on_the_map(module):
    here = room(module)
    strangers = rooms_imported(FILES[module]) - MAY_IMPORT[here] - {here}
    assert not strangers, f"mvl_auto.{module} may not import {', '.join(sorted(strangers))}"


@pytest.mark.parametrize("module", sorted(FILES))
def test_torch_stays_in_its_rooms(module):
    if room(module) not in MAY_IMPORT_TORCH and module not in MAY_IMPORT_TORCH:
        assert not {room(name) for name in imports(FILES[module])} & TORCH_FAMILY


@pytest.mark.parametrize("module", sorted(module for module in FILES if room(module) not in {"cli"}))
def test_the_library_neither_prints_nor_exits(module):
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "exit", "quit", "sys.exit", "os._exit"}, f"line {node.lineno}: {called}"


def test_importing_the_package_imports_neither_torch_nor_numpy():
    script = (
        "import sys, mvl_auto; print(*sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'numpy', 'pydantic'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("stage", ["planners", "preprocessing", "evaluation"])
def test_stages_without_a_network_do_not_load_torch(stage):
    script = f"import sys, mvl_auto.{stage}, mvl_auto.api; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
