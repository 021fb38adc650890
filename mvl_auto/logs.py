"""Log files: one per run, with the time of day, whatever the screen shows.

The library logs through `logging.getLogger(__name__)`, all of it below the logger "mvl_auto". What of it
reaches the screen is the command's business (`mvl_auto.cli.common`); what goes into a run's own file
is the stage's, with `log_file`.
"""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mvl_auto.files import cannot_write
from mvl_auto.version import __version__

LOGGER = logging.getLogger("mvl_auto")
LOGGER.addHandler(logging.NullHandler())  # where lines go is decided by whoever calls from Python
LINE = "%(asctime)s %(levelname)s %(message)s"


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append what mvl_auto logs, from INFO on, to `path` while the block runs.

    A run that goes on after a stop goes on in the same file. Raises MvlError when it cannot be written at the start;
    when its disk is full later, the run goes on without it, and a warning at the end says so.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error
    handler.setFormatter(logging.Formatter(LINE))
    level = LOGGER.level
    LOGGER.setLevel(min(LOGGER.getEffectiveLevel(), logging.INFO))
    LOGGER.addHandler(handler)
    try:
        handler.handle(_record(f"mvl_auto {__version__}, Python {platform.python_version()}: {' '.join(sys.argv)}"))
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


class _FileHandler(logging.FileHandler):
    """Never stops the work that it tells of, and never speaks for itself. failure: why lines are missing."""

    failure: OSError | None = None

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
