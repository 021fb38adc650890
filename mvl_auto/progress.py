"""How a stage reports its progress, without the library ever printing.

A stage takes `progress: Progress = silent` and reports to it; the commands pass one that draws
(`mvl_auto.bars`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

ONLY_IN_FILE = "only_in_file"  # an attribute of log records that are too long for a screen


class Advance(Protocol):
    def __call__(self, amount: float = 1, note: str = "") -> None:
        """Move on by `amount` units; `note` is shown behind the bar (a loss, a file name)."""


class Progress(Protocol):
    def __call__(self, what: str, total: float, unit: str = "case", done: float = 0) -> AbstractContextManager[Advance]:
        """Open a bar. what: a verb ("preprocessing"). total, done: in `unit`."""


@contextmanager
def silent(what: str, total: float, unit: str = "case", done: float = 0) -> Iterator[Advance]:
    def advance(amount: float = 1, note: str = "") -> None:
        return None

    yield advance
