"""The package's modules and their files, in the repository."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
IN_TOP_FOLDERS = {"planners", "preprocessing", "inference", "evaluation"}  # setup.py maps them into the package


def source_files() -> dict[str, Path]:
    """Module name below mvl_auto ("planners.spacing", "errors", "" for the package) -> its file."""
    folders = {"": REPOSITORY / "mvl_auto"} | {stage: REPOSITORY / stage for stage in IN_TOP_FOLDERS}
    files = {}
    for package, folder in folders.items():
        for file in folder.rglob("*.py"):
            parts = [package, *file.relative_to(folder).with_suffix("").parts]
            files[".".join(part for part in parts if part and part != "__init__")] = file
    return files
