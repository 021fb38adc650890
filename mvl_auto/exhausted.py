"""What the computer has run out of, told in one line: memory, open files, threads and processes.

Libraries say it in many ways: Python and numpy raise MemoryError, torch a RuntimeError, the operating system an OSError
with its number, and a library that cannot be loaded an ImportError. No library is imported here to recognise them.
"""

from __future__ import annotations

import errno
import re
from math import prod

from mvl_auto.errors import MvlError
from mvl_auto.text import memory_text

LESS_MEMORY = "Close other programs, use fewer --workers, or a machine with more memory (`ulimit -v` shows a limit)."
LESS_GPU_MEMORY = "Free the memory of the GPU (nvidia-smi shows who uses it), or give --device cpu."
MORE_FILES = "Raise the limit with `ulimit -n 4096` and run the same command again."
MORE_PROCESSES = "Use fewer --workers, or raise the limit (`ulimit -u` shows it)."

MEMORY = re.compile(
    r"can't allocate memory|not enough memory|bad_alloc|failed to map segment|Cannot allocate memory"
    r"|Unable to allocate|cannot allocate memory|\bMemoryError\b"
)
FILES = re.compile(r"Too many open files")
PROCESSES = re.compile(r"can't start new thread|unable to start new thread|Resource temporarily unavailable")
WANTED = re.compile(r"(?:tried to allocate|Tried to allocate|Unable to allocate) (\d+(?:\.\d+)?) ?(bytes|[KMGT]iB)?")
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
GPU = "OutOfMemoryError"  # torch's class


def exhaustion(error: BaseException, doing: str = "") -> MvlError | None:
    """The one line for an error that says that the computer has run out of something; None for any other.

    doing: what was being done, as a verb ("preprocessing"); "" where that is not known.
    """
    if isinstance(error, MvlError):
        return None
    at = f" while {doing}" if doing else ""
    text = str(error)
    if any(kind.__name__ == GPU for kind in type(error).__mro__):
        return MvlError(f"the GPU ran out of memory{at}{_wanted(error)}", remedy=LESS_GPU_MEMORY)
    number = error.errno if isinstance(error, OSError) else None
    told = isinstance(error, OSError | RuntimeError | ImportError)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or (told and MEMORY.search(text)):
        return MvlError(f"the memory ran out{at}{_wanted(error)}", remedy=LESS_MEMORY)
    if number in (errno.EMFILE, errno.ENFILE) or (told and FILES.search(text)):
        return MvlError(f"too many files are open{at}{_limit_of_files()}", remedy=MORE_FILES)
    if number == errno.EAGAIN or (told and PROCESSES.search(text)):
        return MvlError(f"no further thread or process could be started{at}", remedy=MORE_PROCESSES)
    return None


def _wanted(error: BaseException) -> str:
    """How much could not be had, where the error tells: numpy's has the shape and the type of the array."""
    shape, dtype = getattr(error, "shape", None), getattr(error, "dtype", None)
    if isinstance(shape, tuple) and hasattr(dtype, "itemsize"):
        size = prod(shape) * dtype.itemsize
        return f" ({memory_text(size)} were wanted for an array of {' x '.join(map(str, shape))})"
    if found := WANTED.search(str(error)):
        return f" ({memory_text(int(float(found[1]) * UNITS[found[2] or 'bytes']))} were wanted)"
    return ""


def _limit_of_files() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return ""
    return f" (the limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"
