"""Files that are whole or not there: write beside and rename, JSON, hashes.

Only regular files are read: opening a named pipe or a device would wait for ever. A JSON file has a largest size, and
a key that occurs twice in one object is an error, since one of the two values would be lost without a word.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mvl_auto.errors import MvlError
from mvl_auto.exhausted import MORE_FILES, exhaustion
from mvl_auto.printable import shown
from mvl_auto.text import memory_text

HASH_CHUNK = 1 << 20  # bytes read at a time
LARGEST_JSON = 64 << 20  # bytes: the fingerprint of 20,000 cases; read, it takes about ten times that
FULL = {errno.ENOSPC, errno.EDQUOT}
OUT_OF_FILES = {errno.EMFILE, errno.ENFILE}
FOR_ALL = FULL | OUT_OF_FILES | {errno.EROFS, errno.EACCES, errno.EPERM}  # these hold for the next file as for this one
MAY_READ = "Check that you may read it and that its disk works."
MAY_WRITE = "Free space or choose a place that you may write to."

Hashes = dict[Path, str]  # sha256 of files that have been read

log = logging.getLogger(__name__)


class CannotWrite(MvlError):
    """A place is full or read-only, so the next file will not be written there either."""


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` when the block ends well.

    The temporary name keeps the suffixes of `path`, since many writers choose the format by them.
    Raises MvlError when the folder cannot be written or the disk is full (CannotWrite); nothing is left behind.
    """
    with writing_all(path) as (beside,):
        yield beside


@contextmanager
def writing_all(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """As `writing`, for several files of one folder, renamed in their order: the last one tells of the others.

    A temporary folder is made and removed once for all of them, which takes longer than to write a small file.
    """
    first = Path(paths[0])
    try:
        first.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=first.parent))
    except OSError as error:
        raise cannot_write(first, error) from error
    beside = tuple(folder / Path(path).name for path in paths)
    try:
        yield beside
        for made, path in zip(beside, paths, strict=True):
            os.replace(made, path)
    except OSError as error:
        raise cannot_write(first, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy the bytes of a file, nothing else. Raises MvlError when either cannot be read or written."""
    with ExitStack() as opened:
        with reading(source):
            stream = opened.enter_context(open_regular(source))
        with writing(target) as beside, open(beside, "wb") as copy:
            while True:
                with reading(source):  # so that the blame lies where it belongs
                    chunk = stream.read(HASH_CHUNK)
                if not chunk:
                    break
                copy.write(chunk)


def clear_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing in `folder` or one level below. Call with the lock held."""
    for leftover in [*folder.glob(".writing-*"), *folder.glob("*/.writing-*")]:
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def nothing_unfinished(folder: Path) -> Iterator[None]:
    """`clear_unfinished` before the block, after killed processes, and after it, for the workers that it stopped.

    Enter with the lock held, and before the workers start.
    """
    clear_unfinished(folder)
    try:
        yield
    finally:
        clear_unfinished(folder)


def cannot_write(path: Path, error: OSError) -> MvlError:
    """The one line for a folder that is read-only or full (CannotWrite), or not a folder."""
    reason = error.strerror or str(error)
    if error.errno in FULL:
        reason += _space_left(path)
    kind = CannotWrite if error.errno in FOR_ALL else MvlError
    return kind(
        f"cannot be written ({reason})",
        file=path,
        remedy=MORE_FILES if error.errno in OUT_OF_FILES else MAY_WRITE,
    )


def _space_left(path: Path) -> str:
    """What the disk still has, which explains why a smaller file could be written, and a quota."""
    try:
        free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free
    except OSError:
        return ""
    return f"; {memory_text(free)} are free there"


def ensure_writable_folder(folder: Path) -> Path:
    """Create `folder` and prove that a file can be written there, before hours of work rely on it.

    The file has no name that another process could take away. Raises MvlError naming the folder.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, prefix=".writing-") as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def write_text(path: Path, text: str) -> None:
    """Raises MvlError when it cannot be written, or names a file whose name is not text (`check_text`)."""
    check_text(text, path)
    with writing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def check_text(text: str, file: Path | None = None) -> None:
    """Raise MvlError where text holds bytes of a path that are no letters in the encoding of this locale.

    Python has them as lone surrogates, which nothing can write. file: what the text is for.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        part = text[: error.start].rpartition("\n")[2] + text[error.start :].partition("\n")[0]
        encoding = sys.getfilesystemencoding()
        raise MvlError(
            f"{shown(part.strip(), 200)} is not text in the encoding of this locale ({encoding})", file=file,
            remedy="Set LC_ALL=C.UTF-8, or rename the file or folder.",
        ) from error  # fmt: skip


def write_json(path: Path, content: Any) -> None:
    """Write JSON that diffs well: indented, insertion order, a newline at the end."""
    write_text(path, as_json(content))


def as_json(content: Any) -> str:
    """The text of `write_json`."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path, remedy: str = "", most: int = LARGEST_JSON) -> Any:
    """Read JSON. most: bytes of the largest file that is read.

    Raises MvlError when the file is missing, too large, cannot be read, is no JSON or has a key twice in one object.
    """
    return parse_json(read_bytes(path, most=most, remedy=remedy), path, remedy)


def parse_json(text: bytes | str, path: Path, remedy: str = "") -> Any:
    """JSON that was read from `path`. Raises MvlError as `read_json` does."""
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))  # Windows puts a byte order mark, or UTF-16
        return json.loads(text, object_pairs_hook=_without_twins)
    except RecursionError as error:
        raise MvlError("is not valid JSON (it is nested too deeply)", file=path, remedy=remedy) from error
    except ValueError as error:  # also for numbers of thousands of digits
        raise MvlError(f"is not valid JSON ({error})", file=path, remedy=remedy) from error


def _without_twins(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        raise ValueError(f"the key {shown(twice)} occurs twice in one object")
    return found


@contextmanager
def reading(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn an error of the operating system about reading `path`, in the block, into an MvlError that names it.

    remedy: other than to check that it may be read. A named pipe or a device is refused before the block runs.
    """
    try:
        check_regular(path)
        yield
    except FileNotFoundError as error:
        raise MvlError("is missing", file=path, remedy=remedy) from error
    except OSError as error:
        raise _cannot_read(path, error, remedy) from error
    except MemoryError as error:
        told = exhaustion(error, f"reading {path}")
        assert told is not None
        raise told from error


def check_regular(path: Path) -> None:
    """Raise OSError for what is neither a file nor a folder: a read from it may never end, or never run out."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file")


def open_regular(path: Path) -> BinaryIO:
    """The stream of a file. Raises OSError, also for what is not a regular file; never waits for a pipe's writer."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def open_own(path: str | Path, flags: int) -> int:
    """Open a regular file to be added to, which has no other name: its descriptor, as an `opener` of `open`.

    Whoever may write into a folder must not choose by a link what lines are added to. Raises OSError.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    if stat.S_ISREG(found.st_mode):
        raise OSError(errno.EMLINK, "it is a link: the file has another name too")
    raise OSError(errno.EINVAL, "it is not a regular file")


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted. Raises MvlError when it cannot be looked into."""
    with reading(folder):
        names = os.listdir(folder)
        os.stat(os.path.join(folder, os.curdir))  # fails where names may be listed, but no file may be opened
    return [Path(folder, name) for name in sorted(names)]


def is_there(path: Path) -> bool:
    """Whether a file or folder exists. Raises MvlError when a folder on the way there cannot be looked into."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file can have such a name
        return False
    except OSError as error:
        raise _cannot_read(path, error) from error
    return True


def _cannot_read(path: Path, error: OSError, remedy: str = "") -> MvlError:
    if error.errno in OUT_OF_FILES:
        remedy = MORE_FILES
    return MvlError(f"cannot be read ({error.strerror or error})", file=path, remedy=remedy or MAY_READ)


def read_bytes(path: Path, hashes: Hashes | None = None, most: int | None = None, remedy: str = "") -> bytes:
    """The bytes of a file; `hashes` takes up their sha256. most: bytes of the largest file that is read.

    Raises MvlError when the file is missing, larger, or cannot be read.
    """
    with reading(path, remedy), open_regular(path) as stream:
        data = stream.read() if most is None else stream.read(most + 1)
    if most is not None and len(data) > most:
        raise MvlError(f"is larger than the {most / 1e6:.0f} MB that such a file can have", file=path, remedy=remedy)
    if hashes is not None:
        hashes[path] = hashlib.sha256(data).hexdigest()
    return data


def sha256_of_file(path: Path) -> str:
    """Raises OSError."""
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_json(content: Any) -> str:
    """Hash of the meaning of a JSON value: key order and white space do not count."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
