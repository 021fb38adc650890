"""Where results go: never over a file that was read, and nothing stays of a command that was refused.

Files and folders are compared by device and inode, which are the same for all names of a file: a link does not hide
that a result would replace what it was made from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.locks import LOCK, locked
from mvl_auto.logs import LOG

Identity = tuple[int, int]  # device and inode: the same for all names of a file or folder

ANOTHER = "Choose another place with -o."
TRACES = frozenset({LOCK, LOG})  # what a command writes into its folder before it knows whether it can work


def identify(path: Path) -> Identity | None:
    """None where nothing exists. Links are followed."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: no file can have such a name
        return None
    return found.st_dev, found.st_ino


def check_not_read(written: Iterable[Path], read: Iterable[Path], remedy: str = ANOTHER) -> None:
    """Raise MvlError where one of the files that will be written is one of those that are read, under any name.

    Only files that exist can be replaced, so `read` is not looked at where none of `written` does.
    """
    there = {identity: path for path in written if (identity := identify(path)) is not None}
    if not there:
        return
    for path in read:
        if (identity := identify(path)) in there:
            assert identity is not None
            same = there[identity]
            other = "" if os.path.abspath(path) == os.path.abspath(same) else f" (as {path})"
            raise MvlError(
                f"would be replaced, but it is one of the files that are read{other}", file=same, remedy=remedy
            )


def check_apart(folder: Path, read: Iterable[Path], remedy: str = ANOTHER) -> None:
    """Raise MvlError where a file or folder that is read lies in `folder`, or below it, whatever links lead there."""
    place = Path(os.path.realpath(folder))
    for path in read:
        names = (os.path.realpath(path), os.path.realpath(os.path.dirname(path)))
        if any(Path(name).is_relative_to(place) for name in names):
            what = f"results would be written there, but {path}, which is read, lies in it"
            raise MvlError(what, file=folder, remedy=remedy)


@contextmanager
def leaving_no_trace(*folders: Path, traces: Iterable[str] = TRACES) -> Iterator[None]:
    """Folders that the block writes to: where it raises MvlError before it has written a result, they are as before.

    folders: innermost first; none of them need exist. traces: names of files in them that are no results. Files of
    these names that were there before stay, and so does a folder in which anything else has appeared.
    """
    before = [(Path(folder), _names(folder), _missing(Path(folder))) for folder in folders]
    try:
        yield
    except MvlError:
        for folder, names, missing in before:
            _remove_new(folder, names, frozenset(traces))
            for each in missing:
                with suppress(OSError):  # it is not there, or not empty
                    each.rmdir()
        raise


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _missing(folder: Path) -> list[Path]:
    """`folder` and those above it, innermost first, that do not exist."""
    return [each for each in (folder, *folder.parents) if not os.path.lexists(each)]


def _remove_new(folder: Path, before: frozenset[str], traces: frozenset[str]) -> None:
    """Remove the traces that were not there before, unless there is something else that was not, or another process."""
    with ExitStack() as stack:
        new = _names(folder) - before
        if not new or not new <= traces:
            return
        if LOCK in new:
            try:
                stack.enter_context(locked(folder, "working"))  # whoever waits for this lock sees that it is gone
            except MvlError:
                return
        if not _names(folder) - before <= traces:
            return
        for name in sorted(new, key=lambda name: name == LOCK):  # the lock last
            with suppress(OSError):
                (folder / name).unlink()
