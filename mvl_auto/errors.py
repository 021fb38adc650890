"""Errors with a cause that the user can remove.

    MvlError          one line: which file, what is wrong with it, what to do    (exit code 2)
      PartlyFailed    some cases failed, the others are done                     (exit code 1)

Any other exception that reaches a command is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

from mvl_auto.printable import printable


class MvlError(Exception):
    """A problem with the user's input, in one line, without letters that a terminal would act on.

    file: what the message is about, named first. what: what was found, and what was expected.
    remedy: what to do about it, an imperative sentence. others: what else is wrong with the same thing (`all_noted`).
    """

    def __init__(self, what: str, *, file: str | PathLike[str] | None = None, remedy: str = "") -> None:
        self.file = file
        self.what = what
        self.remedy = remedy
        self.others: tuple[MvlError, ...] = ()
        line = what if file is None else f"{file}: {what}"
        line = line.rstrip(".") + "."
        super().__init__(printable(" ".join(f"{line} {remedy}".split())))


class PartlyFailed(MvlError):
    """Some cases failed and the others are done: the same command again does what is missing (exit code 1).

    result: what came of the others, where the work got as far as that.
    """

    result: Any = None


@contextmanager
def noting(problems: list[MvlError]) -> Iterator[None]:
    """Add the MvlError that the block raises to `problems` and go on: for checks that do not need each other."""
    try:
        yield
    except MvlError as error:
        problems.append(error)


def all_noted(problems: list[MvlError]) -> MvlError:
    """The first of at least one problem, to be raised; the rest are its `others`."""
    first, *others = problems
    first.others = tuple(others)
    return first


class Stopped(KeyboardInterrupt):
    """Long work was stopped by a signal, after it had saved what it had done.

    number: of the signal; a command's exit code is 128 + number, as shells have it. done: what was saved, in words.
    """

    def __init__(self, number: int, done: str) -> None:
        self.number = number
        self.done = done
        super().__init__(done)
