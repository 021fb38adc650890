"""Helper processes of any kind: they end with their parent, and need neither its script nor a long TMPDIR.

Used by the worker processes of this folder and by those that make training batches (`end_with_parent` in the worker,
`starting_workers` around their start).
"""

from __future__ import annotations

import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.connection import wait
from types import ModuleType

from mvl_auto.exhausted import check_descriptors, check_room_for_libraries

LONGEST_SOCKET_PATH = 100  # bytes: the kernel allows 108 for a socket, 104 on macOS
SOCKET_NAME = len("/pymp-12345678/listener-12345678")  # what multiprocessing appends to the temporary folder
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has only SIGTERM, which ends a process as surely

LIKELY = {
    "SIGKILL": "most likely the system ran out of memory; try fewer workers",
    "SIGUSR2": "it could not send what it had made; most likely too many files are open (ulimit -n)",
    "SIGBUS": "most likely the shared memory (/dev/shm) is full; try fewer workers, or a container with more",
}

CANNOT_SEND = getattr(signal, "SIGUSR2", signal.SIGTERM)  # ends a worker whose result cannot be sent
LEAST_DESCRIPTORS = 16  # free ones for the start of a worker: pipes, a socket, the server that forks it

_starting = threading.RLock()


def end_with_parent() -> None:
    """Called in a worker: from now on it ends as soon as its parent does, whichever way the parent ends.

    A thread waits for the end of the parent: the operating system closes a pipe that only the parent holds. So it
    works on every platform, after kill -9 too, and while the worker computes or waits for a full pipe.
    """
    threading.Thread(target=_wait_and_end, name="end with parent", daemon=True).start()


def _wait_and_end() -> None:
    parent = parent_process()
    assert parent is not None, "called in the main process"
    wait([parent.sentinel])
    os.kill(os.getpid(), KILL)  # SIGTERM may have a handler that was inherited from the parent


@contextmanager
def starting_workers() -> Iterator[None]:
    """Around the start of worker processes: they ignore Ctrl-C from their first moment on, and need no `__main__`.

    Python's multiprocessing would run the user's script again in each worker, which fails without an
    `if __name__ == "__main__"` guard. Our workers run functions of installed modules alone.
    Raises MvlError where too few files may be opened, or a limit leaves too little memory: the server that forks
    workers would say so in a traceback, or wait for ever.
    """
    check_descriptors(LEAST_DESCRIPTORS)
    check_room_for_libraries()
    with _starting, _without_main(), interrupts_ignored():
        use_short_socket_paths()
        yield


def use_short_socket_paths() -> None:
    """Let multiprocessing put its sockets elsewhere where TMPDIR is too long for one (AF_UNIX: 108 bytes)."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) + SOCKET_NAME <= LONGEST_SOCKET_PATH:
        return
    before = tempfile.tempdir
    for short in SHORT_FOLDERS:
        if os.path.isdir(short) and os.access(short, os.W_OK | os.X_OK):
            tempfile.tempdir = short
            try:
                multiprocessing.util.get_temp_dir()  # made once for this process and all that it starts
            finally:
                tempfile.tempdir = before
            return


@contextmanager
def _without_main() -> Iterator[None]:
    """While it lasts, `__main__` is an empty module, so that no worker is told to import the real one."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def cause_of_end(exitcode: int | None) -> str:
    """How a process ended, for a message: `exit code 3`, `SIGTERM`."""
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return f"{name}: {LIKELY[name]}" if name in LIKELY else name
