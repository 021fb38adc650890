"""How a stage reports its progress, without the library ever printing.

A stage takes `progress: Progress = silent` and reports to it; the commands pass one that draws
(`mvl_auto.bars`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def noting_stages(progress: Progress) -> tuple[Progress, Callable[[BaseException], str]]:
    """The same progress, and a function that says which bar was open when an error was raised ("" for none)."""
    ended: list[tuple[BaseException, str]] = []

    @contextmanager
    def noted(what: str, total: float, unit: str = "case", done: float = 0) -> Iterator[Advance]:
        with progress(what, total, unit, done) as advance:
            try:
                yield advance
            except BaseException as error:
                ended[:] = [(error, what)] if not any(error is known for known, _ in ended) else ended
                raise

    def stage_of(error: BaseException) -> str:
        return next((what for known, what in ended if known in (error, error.__cause__, error.__context__)), "")

    return noted, stage_of
