"""Commands of mvl_auto in this process, and what lies in a folder before and after them."""

from __future__ import annotations

import hashlib
import importlib
import os
from pathlib import Path

GROWING = "log.txt"  # tells of every start, also of one that was refused


def run_here(name: str, words: list[str], folder: Path, root: Path) -> int:
    """The exit code of `mvl_<name> words`, started in `folder`."""
    before = Path.cwd(), os.environ.get("MVL_ROOT")
    os.chdir(folder)
    os.environ["MVL_ROOT"] = str(root)
    try:
        code = importlib.import_module(f"mvl_auto.cli.{name}").main(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os.chdir(before[0])
        if before[1] is None:
            del os.environ["MVL_ROOT"]
        else:
            os.environ["MVL_ROOT"] = before[1]
    return int(code)


def snapshot(folder: Path) -> dict[str, str]:
    """What lies below a folder: path -> where a link leads, "folder", or the sha256 of a file (but of log.txt)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file() and path.name != GROWING:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "file"
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Paths that were made, removed or changed in between."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def left_in(folder: Path) -> list[str]:
    """Names of the files in a folder but its lock, sorted; none where there is no folder."""
    return sorted(file.name for file in folder.glob("*") if file.name != ".lock")
