"""What goes wrong for a reason that the user can mend.

    MvlError          one line: which file, what is wrong with it, what to do    (exit code 2)
      PartlyFailed    some cases failed, the others are done                     (exit code 1)

Anything else that reaches the surface is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from os import PathLike


class MvlError(Exception):
    """A problem with the user's input, told in one line.

    file: what the message is about, named first. what: what was found, and what was expected.
    remedy: what to do about it, an imperative sentence.
    """

    def __init__(self, what: str, *, file: str | PathLike[str] | None = None, remedy: str = "") -> None:
        self.file = file
        self.what = what
        self.remedy = remedy
        line = what if file is None else f"{file}: {what}"
        line = line.rstrip(".") + "."
        super().__init__(" ".join(f"{line} {remedy}".split()))


class PartlyFailed(MvlError):
    """Some cases failed and the others are done: the same command again does what is missing (exit code 1)."""
