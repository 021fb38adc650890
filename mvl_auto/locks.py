"""A folder that one process holds, or several that only read: two commands never write in one place at once."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.files import CannotWrite, cannot_write

LOCK = ".lock"
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, doing: str, wait: bool = False) -> Iterator[None]:
    """Hold `folder` for this process alone; the operating system lets go when the process dies.

    doing: what a process that holds it does there ("preprocessing"), for the message of the one that is refused.
    While another process holds it: wait for that one, or raise MvlError at once.
    """
    import filelock

    lock = filelock.FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_lock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            if not wait:
                raise _held(folder, doing) from error
            log.info("another process is %s in %s: waiting for it", doing, folder)
            lock.acquire()
    except OSError as error:
        raise _cannot_lock(folder, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def shared_lock(folder: Path, doing: str) -> Iterator[None]:
    """Hold `folder` together with others that share it, against any process that asks for it alone (`locked`).

    doing: what a process that holds it alone does there, for the message. Raises MvlError when one does.
    Where the operating system has no shared locks (Windows), nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(folder, doing) from error
        except OSError as error:
            raise _cannot_lock(folder, error) from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def writing_folder(folder: Path, doing: str) -> Iterator[Path]:
    """Yield an empty folder beside `folder` to fill; rename it to `folder` when the block ends well.

    What a killed process left of it is removed by the next. doing: as in `locked`, which keeps a second process out.
    Raises MvlError when `folder` exists and is not empty, or cannot be written; nothing is left behind.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise MvlError("is there already", file=folder, remedy="Give a folder that does not exist yet, or is empty.")
    beside = folder.with_name(f".{folder.name}.unfinished")
    if beside.is_symlink():
        raise MvlError("is a link, and what it leads to would be emptied", file=beside, remedy="Remove it.")
    with locked(beside, doing):
        try:
            for leftover in beside.iterdir():
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                elif leftover.name != LOCK:
                    leftover.unlink()
            yield beside
            (beside / LOCK).unlink()
            if folder.exists():
                folder.rmdir()
            os.replace(beside, folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _cannot_lock(folder: Path, error: OSError) -> MvlError:
    """The one line for a folder in which no lock can be had."""
    if error.errno not in NO_LOCKS:
        return cannot_write(folder, error)
    return CannotWrite(
        f"its disk has no locks ({error.strerror or error}), which keep two commands from writing there at once",
        file=folder,
        remedy="Choose a root on another disk, or mount this one with locks.",
    )


def _check_lock(path: Path) -> None:
    """Raise MvlError for a lock that is a link, of either kind: some versions of filelock empty what they open."""
    if os.path.lexists(path) and (path.is_symlink() or path.stat().st_nlink > 1):
        raise MvlError("is a link, so it is not a lock of mvl_auto", file=path, remedy="Remove it.")


def _held(folder: Path, doing: str) -> MvlError:
    return MvlError(f"another process is {doing} here", file=folder, remedy="Wait until it has ended, or stop it.")
