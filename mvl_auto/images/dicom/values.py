"""Numbers and text out of a pydicom data set; what pydicom raises becomes one line that names the file."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mvl_auto.errors import MvlError

EXPORT_AGAIN = "Copy or export it again."
LONGEST_REASON = 120  # characters of another library's message


@contextmanager
def reading_dicom(path: Path) -> Iterator[None]:
    """Turn what pydicom and its decoders raise for damaged bytes into an MvlError; keep their warnings off the screen.

    Values that break a rule of DICOM (a UID with letters) are taken as they are: only what is needed is checked.
    """
    from pydicom.config import disable_value_validation
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except (
        InvalidDicomError,
        BytesLengthException,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
        NotImplementedError,
        RuntimeError,
        MemoryError,
        struct.error,
        zlib.error,
    ) as error:  # pydicom's, of damaged bytes
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is not None:  # the disk's
            raise
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> MvlError:
    return MvlError(f"is damaged or cut short ({_reason(error)})", file=path, remedy=EXPORT_AGAIN)


def numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """The values of an element as floats; None where it is missing or empty.

    Raises ValueError when there are not `count`, or one is not finite.
    """
    value = dataset.get(keyword)
    if value is None or value == "" or value == []:
        return None
    found = tuple(float(item) for item in ([value] if isinstance(value, (str, int, float)) else value))
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError(f"{keyword} is {value}")
    return found


def number(dataset: Any, keyword: str) -> float | None:
    """The value of an element with one number; None where it is missing or empty. Raises ValueError."""
    found = numbers(dataset, keyword, 1)
    return None if found is None else found[0]


def text(dataset: Any, keyword: str) -> str:
    """The value of an element as text; empty where it is missing."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def whole(dataset: Any, keyword: str) -> int:
    """The value of an element that must be there. Raises ValueError."""
    value = number(dataset, keyword)
    if value is None:
        raise ValueError(f"{keyword} is missing")
    return int(value)


def _reason(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."
