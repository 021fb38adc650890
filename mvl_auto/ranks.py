"""Which of the processes of a distributed training this one is, as torchrun says it in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from mvl_auto.errors import MvlError

ALL_SET = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # by torchrun, and by whoever starts processes like it


@dataclass(frozen=True)
class Rank:
    """number: of this process among all `ranks`; 0 leads. local: its number on this machine, among `local_ranks`."""

    number: int = 0
    ranks: int = 1
    local: int = 0
    local_ranks: int = 1

    @property
    def leads(self) -> bool:
        return self.number == 0

    def __str__(self) -> str:
        return f"process {self.number + 1} of {self.ranks}"


SINGLE = Rank()


def rank_here(environment: Mapping[str, str] = os.environ) -> Rank:
    """Of this process; alone where no launcher has started it. Raises MvlError when the launcher's words are wrong."""
    if not all(environment.get(name) for name in ALL_SET):
        return SINGLE
    number, ranks = _whole(environment, "RANK", 0), _whole(environment, "WORLD_SIZE", 1)
    local, local_ranks = _whole(environment, "LOCAL_RANK", number), _whole(environment, "LOCAL_WORLD_SIZE", ranks)
    if not (number < ranks and local < local_ranks <= ranks):
        raise MvlError(
            f"RANK {number} of WORLD_SIZE {ranks}, LOCAL_RANK {local} of LOCAL_WORLD_SIZE {local_ranks} cannot be",
            remedy="Start with torchrun, or unset RANK.",
        )
    return Rank(number, ranks, local, local_ranks)


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isascii() or not text.isdigit():
        raise MvlError(f"the environment has {name}={text}, which is no number", remedy="Start with torchrun.")
    return int(text)
