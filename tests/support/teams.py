"""Runs a function in several forks of this process that train together, as torchrun would start them."""

from __future__ import annotations

import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401  DistributedDataParallel imports it: here once, instead of in every fork

PATIENCE = 60  # s


def in_ranks(function: Callable[[int], Any], folder: Path, ranks: int = 2) -> list[Any]:
    """What function(rank) returned in each process, or the exception that it raised, or the code that it ended with.

    folder: for <rank>.pickle, <rank>.out and <rank>.err of each.
    """
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_fork(function, folder, rank, ranks, port) for rank in range(ranks)]
    codes = [_wait(child) for child in children]
    files = [folder / f"{rank}.pickle" for rank in range(ranks)]
    return [
        pickle.loads(file.read_bytes()) if file.is_file() else code  # noqa: S301  our own
        for file, code in zip(files, codes, strict=True)
    ]


def _fork(function: Callable[[int], Any], folder: Path, rank: int, ranks: int, port: int) -> int:
    if pid := os.fork():
        return pid
    try:
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
        try:
            result = function(rank)
        except BaseException as error:  # noqa: BLE001  the test looks at it
            traceback.print_exc()
            result = error
        (folder / f"{rank}.pickle").write_bytes(pickle.dumps(result))
    finally:
        os._exit(0)


def _wait(child: int) -> int:
    end = time.monotonic() + PATIENCE
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        assert time.monotonic() < end, "a process does not end"
        time.sleep(0.01)
