"""stdout and stderr that are closed, full, or in a narrow encoding: none of them may change what a command does."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def prepare_streams() -> None:
    """Before anything is opened or printed.

    A closed stream becomes the null device, or the next file that is opened would get its number and what is printed.
    A terminal or log in a narrow encoding shows ? for a letter that it does not have.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  for as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def is_full(error: OSError) -> bool:
    """Whether stdout is the reason for this error; then what is left for it is thrown away."""
    if error.filename is not None or error.errno not in FULL:
        return False
    try:
        print(flush=True)
    except OSError:
        discard_stdout()
        return True
    return False


def discard_stdout() -> None:
    """Throw away what is left for stdout, or Python would complain about it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
