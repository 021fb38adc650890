"""Signals that ask a run to stop: it finishes its step and saves first; a second signal ends it at once.

Of several processes of one training a second signal means nothing: torchrun passes on what Slurm has sent already.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass
class StopRequest:
    """number: of the signal that came; None as long as there was none."""

    number: int | None = None


@contextmanager
def stop_requests(repeated: bool = False) -> Iterator[StopRequest]:
    """Signals are noted while the block runs, instead of ending the process. repeated: a second one too.

    Only the main thread can do this; elsewhere nothing changes. A signal that is ignored, as nohup does with SIGHUP,
    stays ignored.
    """
    request = StopRequest()
    before: dict[int, Any] = {}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number
        if not repeated:
            put_back()

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, note)
    try:
        yield request
    finally:
        put_back()
