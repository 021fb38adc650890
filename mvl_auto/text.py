"""Numbers as people write them, and back: sizes of memory, durations, shapes, shares, counts, short lists of names.

Every message, table and help text of the project takes them from here, so that one thing looks the same everywhere:
`8.00 GB`, `12 min`, `32 x 48 x 32`, `25 %`, `1 case`, `a, b, c and 4 more`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
PREFIXES = "KMGT"
BYTES = (
    {"B": 1}
    | {f"{prefix}B": 1000**power for power, prefix in enumerate(PREFIXES, 1)}
    | {f"{prefix}IB": 1024**power for power, prefix in enumerate(PREFIXES, 1)}
)
DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
DEVICE = re.compile(r"auto|cpu|mps|cuda(?::\d{1,4})?")
MEMORY = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?I?B)", re.IGNORECASE)
WHOLE_MINUTES = 600  # s: from here on a duration is told without its seconds
LISTED = 3  # names that a message shows before "and 4 more"


def parse_duration(text: str) -> float:
    """Seconds of "90s", "10m", "1h30m", or of a plain number of seconds. Raises ValueError for anything else."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
        if DURATION.fullmatch(text.lower()):
            parts = re.findall(r"([\d.]+)([smhd])", text.lower())
            seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"'{text}' is not a duration: give 90s, 10m, 1h30m or a number of seconds")
    return seconds


def parse_memory(text: str) -> int:
    """Bytes of "8GB" (10^9), "500MB", "8GiB" (2^30). Raises ValueError for anything else."""
    match = MEMORY.fullmatch(text.strip())
    size = round(float(match["number"]) * BYTES[match["unit"].upper()]) if match else 0
    if size <= 0:
        raise ValueError(f"'{text}' is not an amount of memory: give 8GB, 500MB or 8GiB")
    return size


def duration_text(seconds: float) -> str:
    """The two largest units, rounded: `0.35 s`, `90 s`, `2 min 30 s`, `33 min`, `3 h 20 min`, `2 d 5 h`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    rounded = round(seconds) if seconds < WHOLE_MINUTES else 60 * round(seconds / 60)
    days, rest = divmod(rounded, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))]
    first = next(place for place, part in enumerate(parts) if not part.startswith("0 "))
    return " ".join(part for part in parts[first : first + 2] if not part.startswith("0 "))


def exact_duration(seconds: float) -> str:
    """A word that `parse_duration` reads as the very same number: `5400s`, `0.1`."""
    return f"{seconds:.0f}s" if float(seconds).is_integer() else repr(float(seconds))


def clock_text(seconds: float) -> str:
    """As on a stopwatch: 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def memory_text(size: float) -> str:
    """Bytes as `7 kB`, `7.1 MB`, `8.00 GB` (10^9, from 100 MB on), `120 GB`."""
    for unit, name, digits, most in ((1e3, "kB", 0, 1e5), (1e6, "MB", 1, 1e8), (1e9, "GB", 2, 1e11)):
        if size < most:
            return f"{size / unit:.{digits}f} {name}"
    return f"{size / 1e9:.0f} GB"


def shape_text(numbers: Iterable[float], between: str = " x ") -> str:
    """Numbers of several axes in one: `32 x 48 x 32`, `0.8 x 1 x 1`; at most six digits of each."""
    return between.join(f"{number:.6g}" for number in numbers)


def percent_text(share: float) -> str:
    """A share of 1 in three digits: `25 %`, `0.0312 %`."""
    return f"{100 * share:.3g} %"


def count_text(number: int, noun: str, plural: str = "") -> str:
    """`1 case`, `2 cases`, `0 cases`; plural: where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def list_text(names: Iterable[object], most: int = LISTED) -> str:
    """The first names, and how many more there are: `a, b, c and 4 more`."""
    words: Sequence[str] = [str(name) for name in names]
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")
