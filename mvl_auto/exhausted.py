"""What the computer has run out of, told in one line: memory, open files, processes, places for temporary files.

Libraries say it in many ways: Python and numpy raise MemoryError, torch a RuntimeError, the operating system an OSError
with its number, and a library that cannot be loaded an ImportError. No library is imported here to recognize them.
"""

from __future__ import annotations

import errno
import os
import re
from math import prod

from mvl_auto.errors import MvlError
from mvl_auto.text import count_text, memory_text

LESS_MEMORY = "Close other programs, use fewer --workers, or a machine with more memory (`ulimit -v` shows a limit)."
LESS_GPU_MEMORY = "Free the memory of the GPU (nvidia-smi shows who uses it), or give --device cpu."
MORE_FILES = "Raise the limit with `ulimit -n 4096` and run the same command again."
MORE_PROCESSES = "Use fewer --workers, or raise the limit (`ulimit -u` shows it)."
A_FOLDER = "Set $TMPDIR to a folder that can be written."

MEMORY = re.compile(
    r"can't allocate memory|not enough memory|bad_alloc|failed to map segment|Cannot allocate memory"
    r"|Unable to allocate|cannot allocate memory|\bMemoryError\b"
    r"|could not create a primitive"  # oneDNN
)
FILES = re.compile(r"Too many open files")
TEMPORARY = re.compile(r"No usable temporary directory")
PROCESSES = re.compile(r"can't start new thread|unable to start new thread|Resource temporarily unavailable")
WANTED = re.compile(r"(?:tried to allocate|Tried to allocate|Unable to allocate) (\d+(?:\.\d+)?) ?(bytes|[KMGT]iB)?")
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
# bytes of addresses that libraries take when they are loaded, and for each thread of linear algebra. OpenBLAS, which
# numpy and scipy have each, tries for ever to get the latter; torch's libraries abort the process where they find less
ROOM_FOR_NUMPY, ROOM_FOR_TORCH, ROOM_FOR_A_THREAD = 350 * 10**6, 840 * 10**6, 80 * 10**6
MOST_THREADS = 64  # that the builds of OpenBLAS in numpy and scipy start
MORE_ROOM = "Raise the limit, or set OMP_NUM_THREADS to fewer threads."
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
    if isinstance(error, FileNotFoundError) and TEMPORARY.search(text):
        return MvlError(f"there is no folder for temporary files that can be written{at}", remedy=A_FOLDER)
    if number == errno.EAGAIN or (told and PROCESSES.search(text)):
        return MvlError(f"no further thread or process could be started{at}", remedy=MORE_PROCESSES)
    return None


def check_room_for_libraries(torch: bool = False) -> None:
    """Raise MvlError where a limit (`ulimit -v`) leaves too little for numpy and scipy to be loaded, or for torch."""
    limit = _limit("RLIMIT_AS")
    threads = _threads_of_linear_algebra()
    needed = (ROOM_FOR_TORCH if torch else ROOM_FOR_NUMPY) + threads * ROOM_FOR_A_THREAD
    if limit is not None and limit < needed:
        who = "PyTorch needs" if torch else "NumPy and SciPy need"
        raise MvlError(
            f"the memory is limited to {memory_text(limit)} (`ulimit -v`), and {who} {memory_text(needed)} to be "
            f"loaded for {count_text(threads, 'thread')}",
            remedy=MORE_ROOM,
        )


def check_descriptors(needed: int) -> None:
    """Raise MvlError where fewer than `needed` further files can be opened by this process."""
    limit = _limit("RLIMIT_NOFILE")
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):  # no such folder: nothing is known
            return
        used = limit or 0
    if limit is not None and limit - used < needed:
        raise MvlError(f"too few files can be opened{_limit_of_files()}", remedy=MORE_FILES)


def _wanted(error: BaseException) -> str:
    """How much could not be had, where the error tells: numpy's has the shape and the type of the array."""
    shape, item = getattr(error, "shape", None), getattr(getattr(error, "dtype", None), "itemsize", None)
    if isinstance(shape, tuple) and isinstance(item, int):
        size = prod(shape) * item
        return f" ({memory_text(size)} were wanted for an array of {' x '.join(map(str, shape))})"
    if found := WANTED.search(str(error)):
        return f" ({memory_text(int(float(found[1]) * UNITS[found[2] or 'bytes']))} were wanted)"
    return ""


def _threads_of_linear_algebra() -> int:
    """How many OpenBLAS will start when it is loaded: one for each core that it may use, or as many as are allowed."""
    allowed = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_THREADS, int(allowed) if allowed.isdecimal() and int(allowed) else cores)


def _limit_of_files() -> str:
    limit = _limit("RLIMIT_NOFILE")
    return "" if limit is None else f" (the limit is {limit})"


def _limit(name: str) -> int | None:
    """A limit of this process; None where there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(getattr(resource, name))[0]
    return None if limit == resource.RLIM_INFINITY else limit
