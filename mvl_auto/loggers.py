"""Loggers: where the figures of a training go besides progress.csv. TensorBoard, or a function of the user's.

docs/loggers.md has the functions for MLflow and for Weights & Biases.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from mvl_auto.errors import MvlError
from mvl_auto.extras import need

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Logger = Callable[[Path, int, Mapping[str, float]], object]
"""Gets the folder of the fold, the step, and the figures by name: "loss", "learning_rate", "Dice/anterior", ..."""

TENSORBOARD = "tensorboard"  # the word, and the folder of the events
FORMS = f"Give {TENSORBOARD}, FILE.py:FUNCTION or MODULE:FUNCTION."

log = logging.getLogger(__name__)


class TensorBoard:
    """Writes events into <fold>/tensorboard. A resumed run hides those of steps that are taken again."""

    def __init__(self) -> None:
        self.writers: dict[Path, SummaryWriter] = {}

    def __call__(self, folder: Path, step: int, figures: Mapping[str, float]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer = self.writers.get(folder)
        if writer is None:
            writer = self.writers[folder] = SummaryWriter(str(folder / TENSORBOARD), purge_step=step)
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()


def logger_of(word: str | Logger | None) -> Logger | None:
    """The logger that "tensorboard", "FILE.py:FUNCTION" or "MODULE:FUNCTION" means, or of a function; guarded.

    Raises MvlError where the package, the file or the function is missing, or importing it fails.
    """
    if word is None:
        return None
    return Guarded(_named(word) if isinstance(word, str) else word)


def _named(word: str) -> Logger:
    if word == TENSORBOARD:
        need("tensorboard", "--logger tensorboard")
        return TensorBoard()
    place, colon, name = word.rpartition(":")
    if not (colon and place and name.isidentifier()):
        raise MvlError(f"{word} is no logger", remedy=FORMS)
    function = getattr(_module_of(place), name, None)
    if not callable(function):
        raise MvlError(f"{place} has no function {name}", remedy=FORMS)
    return cast(Logger, function)


def _module_of(place: str) -> ModuleType:
    """A file that ends in .py, else a module that Python finds."""
    is_file = place.endswith(".py")
    if is_file and not Path(place).is_file():
        raise MvlError(f"{place} is no file", remedy=FORMS)
    try:
        return _run_file(place) if is_file else importlib.import_module(place)
    except Exception as error:  # whatever the user's code raises
        raise MvlError(f"{place} cannot be imported: {type(error).__name__}: {error}", remedy=FORMS) from error


def _run_file(place: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mvl_auto_logger_{Path(place).stem}", place)
    assert spec is not None  # the ending says that it is Python's
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Guarded:
    """A logger that a training survives: after its first error it is called no more, and a warning says why."""

    def __init__(self, logger: Logger) -> None:
        self.logger: Logger | None = logger

    def __call__(self, folder: Path, step: int, figures: Mapping[str, float]) -> None:
        if self.logger is None:
            return
        try:
            self.logger(folder, step, figures)
        except Exception as error:  # noqa: BLE001  a server that is not reached is no reason to lose a training
            log.warning("the logger failed at step %d and is called no more: %s: %s", step, type(error).__name__, error)
            self.logger = None
