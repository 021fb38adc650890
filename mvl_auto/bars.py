"""How far the work is: a bar with rate and time left on a terminal, a line now and then anywhere else.

Both are a `mvl_auto.progress.Progress`. In a log file or a batch system a bar would be thousands of
lines: there a line is written at every tenth of the work, at least one in half a minute, and never two
within two seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from mvl_auto.progress import Advance, Progress
from mvl_auto.text import clock_text, count_text

LINES = 10  # lines in all, if the work is neither fast nor slow
SHORTEST_PAUSE = 2.0  # s between two lines
LONGEST_PAUSE = 30.0  # s without a line
BAR = "{desc}: {percent:3d}%|{bar}| {done}/{whole} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def bars(stream: TextIO | None = None) -> Progress:
    """Bars in a notebook, or where `stream` (default: stderr) is a terminal; lines where it is not."""
    if stream is None and in_notebook():
        return notebook_bars()
    stream = stream or sys.stderr
    return terminal_bars(stream) if stream.isatty() else plain_lines(stream)


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and "IPKernelApp" in shell.config


def notebook_bars() -> Progress:
    """tqdm's widgets, or its text where ipywidgets is not installed."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ipywidgets is missing
        from tqdm.auto import tqdm
    made = _never_rounding_up(tqdm)

    @contextmanager
    def bar(what: str, total: float, unit: str = "case", done: float = 0) -> Iterator[Advance]:
        with made(total=total, initial=done, desc=what, unit=unit, bar_format=BAR) as drawn:
            yield _advance_of(drawn)

    return bar


def terminal_bars(stream: TextIO) -> Progress:
    from tqdm import tqdm

    made = _never_rounding_up(tqdm)

    @contextmanager
    def bar(what: str, total: float, unit: str = "case", done: float = 0) -> Iterator[Advance]:
        with made(
            total=total, initial=done, desc=what, unit=unit, file=stream, dynamic_ncols=True, bar_format=BAR
        ) as drawn:
            yield _advance_of(drawn)

    return bar


def _never_rounding_up(tqdm: Any) -> Any:
    """A class of tqdm's bars whose 599.7 of 600 s are 99 % and 599."""

    class Bar(tqdm):
        @property
        def format_dict(self) -> dict[str, Any]:
            known = super().format_dict
            percent, done = _rounded_down(known["n"], known["total"])
            return known | {"percent": percent, "done": done, "whole": _counted(known["total"], known["unit"])}

    return Bar


def _advance_of(drawn: Any) -> Advance:
    """The function that moves a bar of tqdm's."""

    def advance(amount: float = 1, note: str = "") -> None:
        if note:
            drawn.set_postfix_str(note, refresh=False)
        drawn.update(amount)

    return advance


def plain_lines(stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Progress:
    """clock: seconds, of which only differences count."""

    @contextmanager
    def lines(what: str, total: float, unit: str = "case", done: float = 0) -> Iterator[Advance]:
        start, last_line, latest_note = clock(), clock(), ""
        already, tenth = done, _tenth(done, total)

        def advance(amount: float = 1, note: str = "") -> None:
            nonlocal done, latest_note, last_line, tenth
            done, latest_note = done + amount, note or latest_note
            pause = clock() - last_line
            if done >= total:
                return  # the closing line follows
            if pause >= LONGEST_PAUSE or (pause >= SHORTEST_PAUSE and _tenth(done, total) > tenth):
                last_line, tenth = clock(), _tenth(done, total)
                write(_left(done - already, total - done, clock() - start))

        def write(time_note: str) -> None:
            percent, whole = _rounded_down(done, total)
            words = [f"{percent} %", f"{whole}/{_counted(total, unit)}", time_note, latest_note]
            with suppress(OSError):  # a full disk under a log is no reason to stop the work
                stream.write(f"{what}: {', '.join(filter(None, words))}\n")
                stream.flush()

        yield advance
        write(f"took {clock_text(clock() - start)}")

    return lines


def _rounded_down(done: float, total: float) -> tuple[int, int]:
    """Percent and units that are done for sure; sums of many small steps may lack a billionth of the last unit."""
    reached = total - done <= 1e-6 * total
    return (100, round(total)) if reached else (int(100 * done / total), int(done + 1e-6))


def _counted(total: float, unit: str) -> str:
    """`1 case`, `4 steps`, `600 s`."""
    return f"{total:.0f} s" if unit == "s" else count_text(round(total), unit)


def _tenth(done: float, total: float) -> int:
    return int(LINES * done / total) if total else 0


def _left(finished: float, remaining: float, seconds: float) -> str:
    return f"{clock_text(seconds * remaining / finished)} left" if finished > 0 else ""
