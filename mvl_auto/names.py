"""Names that come from files and from the command line: which of them may become part of a path.

A dataset, a run, a case and a fold are folders or files under the root, and their names come from files that anyone
may have written. So each is checked where it enters (`checked_name`, or the type `Name` in a contract model).
Label and channel names never become paths; mvl_auto.printable keeps their control characters away from a terminal.
"""

from __future__ import annotations

import unicodedata
from os import PathLike
from typing import Any

from mvl_auto.errors import MvlError
from mvl_auto.printable import is_hidden, shown

MOST_BYTES = 150  # of a name in UTF-8: file systems allow 255, and endings, fold folders and "previous" are added
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
SEPARATORS = "/\\"
RENAME = "Rename it."


def checked_name(text: Any, what: str = "name", file: str | PathLike[str] | None = None, remedy: str = RENAME) -> str:
    """`text`, where it may be one part of a path. Raises MvlError with the reason where it may not.

    what: the kind of name, for the message ("run", "case"). file: the file that the name comes from.
    """
    if reason := fault_of_name(text):
        raise MvlError(f"the {what} {shown(text)} cannot be a file name: {reason}", file=file, remedy=remedy)
    return str(text)


def fault_of_name(text: Any) -> str | None:
    """Why `text` may not be one part of a path; None where it may."""
    if not isinstance(text, str):
        return "it is not text"
    if not text or text.isspace():
        return "it is empty"
    if any(unicodedata.category(letter) == "Cs" for letter in text):
        return "it is not valid UTF-8"
    if text in (".", ".."):
        return "it means another folder"
    if any(separator in text for separator in SEPARATORS):
        return "it contains / or \\"
    if any(is_hidden(letter) for letter in text):
        return "it contains control characters"
    if text.split(".")[0].rstrip().upper() in RESERVED:
        return "Windows reserves it for a device"
    if len(text.encode()) > MOST_BYTES:
        return f"it is longer than {MOST_BYTES} bytes"
    return None
