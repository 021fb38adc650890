"""Text of others on a terminal: letters that would move its cursor, change its title or hide other letters.

Names of labels, channels and files come from whoever made a dataset. Each line that mvl_auto logs or raises goes
through `printable`, so that a letter that is not seen is written out instead.
"""

from __future__ import annotations

import unicodedata
from typing import Any

HIDDEN = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control characters, lone surrogates, ends of lines
DIRECTION = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}  # turn the text behind them around


def printable(text: str, keep: str = "") -> str:
    """`text` with control characters, lone surrogates and marks of direction written as \\x1b or \\u202e.

    keep: letters that stay as they are, as the ends of lines in a traceback.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(letter) if is_hidden(letter) and letter not in keep else letter for letter in text)


def shown(text: Any, longest: int = 60) -> str:
    """Any value of a file in quotes, printable and at most `longest` characters of it: for messages."""
    words = printable(text if isinstance(text, str) else repr(text))
    return f"'{words}'" if len(words) <= longest else f"'{words[:longest]}...'"


def is_hidden(letter: str) -> bool:
    """Whether a terminal acts on this letter, or shows nothing of it."""
    return letter in DIRECTION or unicodedata.category(letter) in HIDDEN


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
