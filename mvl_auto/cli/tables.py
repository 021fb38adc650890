"""A table of text: columns as wide as they need to be, long words wrapped in the last one."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

GAP = "  "
NARROWEST = 30  # characters left for the last column, however narrow the screen


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Lines of text, without a newline at the end. width: characters (default: the terminal's)."""
    width = width or shutil.get_terminal_size((100, 24)).columns
    columns = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    before_last = sum(columns[:-1]) + len(GAP) * (len(columns) - 1)
    columns[-1] = min(columns[-1], max(width - before_last, NARROWEST))
    rules = ["-" * column for column in columns]
    return "\n".join(_line(row, columns) for row in [header, rules, *rows])


def _line(row: Sequence[str], columns: Sequence[int]) -> str:
    *cells, last = row
    start = GAP.join([*(cell.ljust(column) for cell, column in zip(cells, columns[:-1], strict=True)), ""])
    wrapped = textwrap.wrap(last, columns[-1], break_on_hyphens=False) or [""]
    return "\n".join((start if k == 0 else " " * len(start)) + part for k, part in enumerate(wrapped)).rstrip()
