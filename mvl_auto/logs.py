"""Log files: one per run, with the time of day, independent of what the screen shows.

The library logs through `logging.getLogger(__name__)`, all of it below the logger "mvl_auto". What of it
reaches the screen is the command's business (`mvl_auto.cli.common`); what goes into a run's own file
is the stage's, with `log_file`.
"""

from __future__ import annotations

import errno
import logging
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mvl_auto.errors import MvlError
from mvl_auto.files import cannot_write, open_own
from mvl_auto.printable import printable
from mvl_auto.version import __version__

LOGGER = logging.getLogger("mvl_auto")
LOGGER.addHandler(logging.NullHandler())  # where lines go is decided by whoever calls from Python
LINE = "%(asctime)s %(levelname)s %(message)s"
LOG = "log.txt"  # in the folder that a stage works in


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append what mvl_auto logs, from INFO on, to `path` while the block runs.

    A resumed run appends to the same file. Raises MvlError when the file cannot be written at the start, or is a link;
    when its disk is full later, the run goes on without it, and a warning at the end says so.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _FileHandler(path, encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) or path.is_symlink():
            raise MvlError(
                "is a link, and logs are not written through links", file=path, remedy="Remove it."
            ) from None
        raise cannot_write(path, error) from error
    handler.setFormatter(PrintableFormatter(LINE))
    level = LOGGER.level
    LOGGER.setLevel(min(LOGGER.getEffectiveLevel(), logging.INFO))
    LOGGER.addHandler(handler)
    try:
        handler.handle(_record(f"mvl_auto {__version__}, Python {platform.python_version()}: {shlex.join(sys.argv)}"))
        yield
    except BaseException as error:
        handler.handle(_record(f"stopped by {type(error).__name__}: {error}".rstrip(": "), logging.ERROR))
        raise
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        handler.close()
    if handler.failure is not None:
        LOGGER.warning("%s lacks lines, it could not be written (%s)", path, handler.failure.strerror)


class PrintableFormatter(logging.Formatter):
    """Writes out what a terminal would act on; the ends of lines of a traceback stay."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


class _FileHandler(logging.FileHandler):
    """A full disk never stops the run, nor is it reported on the screen. failure: why lines are missing."""

    failure: OSError | None = None

    def _open(self) -> Any:
        return open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=open_own)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.failure = self.failure or error
        else:
            super().handleError(record)  # a bug of ours

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:  # what could not be written before is tried once more
            self.failure = self.failure or error


def _record(message: str, level: int = logging.INFO) -> logging.LogRecord:
    return LOGGER.makeRecord(LOGGER.name, level, __file__, 0, message, (), None)
