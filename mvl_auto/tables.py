"""Tables of text and of HTML: columns as wide as they need to be, long words wrapped in the last one, or last few."""

from __future__ import annotations

import html
import itertools
import re
import shutil
import textwrap
from collections.abc import Sequence

from mvl_auto.printable import printable

GAP = "  "
NARROWEST = 30  # characters left for a column that is wrapped, however narrow the screen
TIGHTEST = 12  # for any other column, where the screen is too narrow for the table
WIDTH = 80  # characters of a line, where there is no terminal
BREAKS = re.compile(r"(\s+|(?<=/)(?=\S))")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, wrapped: int = 1) -> str:
    """Lines of text, without a newline at the end, as wide as the terminal at most, but for a very narrow one.

    width: characters (default: the terminal's). wrapped: how many of the last columns share what the others leave;
    where that is not enough, the widest of the others are wrapped too.
    """
    header, rows = _printable(header), [_printable(row) for row in rows]
    width = width or shutil.get_terminal_size((WIDTH, 24)).columns
    columns = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    left = width - sum(columns[:-wrapped]) - len(GAP) * (len(columns) - 1)
    for column in range(len(columns) - wrapped, len(columns)):
        share = left // (len(columns) - column)
        columns[column] = min(columns[column], max(share, NARROWEST))
        left -= columns[column]
    while (beyond := sum(columns) + len(GAP) * (len(columns) - 1) - width) > 0 and max(columns) > TIGHTEST:
        widest = max(range(len(columns)), key=columns.__getitem__)
        others = max([TIGHTEST, *(column for n, column in enumerate(columns) if n != widest and column < max(columns))])
        columns[widest] -= max(1, min(beyond, columns[widest] - others))
    rules = ["-" * column for column in columns]
    return "\n".join(_line(row, columns) for row in [header, rules, *rows])


def _printable(row: Sequence[str]) -> list[str]:
    """Cells may hold names of labels and files, which must not act on the terminal."""
    return [printable(cell) for cell in row]


class Tabular:
    """A result that prints as a short table, and shows as one in a notebook. A class says its rows in `as_table`."""

    def as_table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """The header, and the rows."""
        raise NotImplementedError(f"{type(self).__name__} says no rows")

    def __str__(self) -> str:
        return table(*self.as_table())

    def _repr_html_(self) -> str:
        """What Jupyter shows."""
        header, rows = self.as_table()
        body = "".join(_html_row(row, "td") for row in rows)
        return f"<table><thead>{_html_row(header, 'th')}</thead><tbody>{body}</tbody></table>"


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _line(row: Sequence[str], columns: Sequence[int]) -> str:
    """A row, in as many lines as its longest cell needs."""
    cells = [_wrapped(cell, width) for cell, width in zip(row, columns, strict=True)]
    lines = itertools.zip_longest(*cells, fillvalue="")
    return "\n".join(GAP.join(map(str.ljust, parts, columns)).rstrip() for parts in lines)


def _wrapped(cell: str, width: int) -> list[str]:
    """Lines of a cell: broken at spaces, and a path behind its slashes."""
    if len(cell) <= width:
        return [cell]
    wrapper = textwrap.TextWrapper(width, break_on_hyphens=False)
    wrapper.wordsep_simple_re = BREAKS
    return wrapper.wrap(cell)
