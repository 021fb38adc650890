"""The processes that train one network together, each on its share of every batch.

Every process computes the loss of the whole batch: what the loss adds up over samples and voxels is added up over the
processes too (`total`), and its gradient flows through the process's own samples. The sum of the gradients over the
processes is then the gradient of one process with the whole batch, also where the shares differ in size or in what is
annotated. Torch's DistributedDataParallel takes their mean, so each is multiplied by the number of processes first.

What the processes say to each other beside that (who has been asked to stop, how late it is) goes through the CPU, with
a patience of its own: the others wait while the one that leads saves or looks at validation patches.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mvl_auto.errors import MvlError
from mvl_auto.network.device import choose_device
from mvl_auto.ranks import SINGLE, Rank, rank_here

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

PATIENCE = timedelta(days=1)  # one that dies is noticed at once, by its closed connection
LOST = re.compile(r"gloo|nccl|connection|socket|broken pipe|store", re.IGNORECASE)  # in what torch says of a lost peer


@dataclass(frozen=True)
class Team:
    """rank: of this process. talk: the group for what goes through the CPU; None for a process alone."""

    rank: Rank = SINGLE
    talk: ProcessGroup | None = None

    @property
    def size(self) -> int:
        return self.rank.ranks

    @property
    def leads(self) -> bool:
        return self.rank.leads

    def total(self, part: Tensor) -> Tensor:
        """The sum over all processes; the gradient goes to this process's own part alone."""
        return part if self.size == 1 else _Total.apply(part)

    def agree(self, elapsed: float, signal: int | None) -> tuple[float, int | None]:
        """The seconds of the process that leads, and a signal that any of them has got."""
        elapsed, signals = self.largest(elapsed if self.leads else 0.0, signal or 0)
        return elapsed, int(signals) or None

    def largest(self, *numbers: float) -> list[float]:
        """Of each of the numbers, the largest that any process says."""
        if self.talk is None:
            return list(numbers)
        said = torch.tensor(numbers, dtype=torch.float64)
        torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MAX, group=self.talk)
        found: list[float] = said.tolist()
        return found

    def wait(self) -> None:
        """Until all processes are here."""
        if self.talk is not None:
            torch.distributed.all_reduce(torch.zeros(1), group=self.talk)

    @contextmanager
    def lead_first(self) -> Iterator[None]:
        """The others enter the block when the one that leads has left it: what it writes is there for them."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network that adds up its gradients over the processes; it has the same weights as `network`.

        What does not train (the frozen block) is never sent: each process has read it from the same file.
        """
        if self.size == 1:
            return network
        still = [name for name, p in network.named_parameters() if not p.requires_grad]
        still += [name for name, _ in network.named_buffers()]
        wrapper = nn.parallel.DistributedDataParallel
        wrapper._set_params_and_buffers_to_ignore_for_model(network, still)
        return wrapper(network, find_unused_parameters=has_idle_weights(network))


ALONE = Team()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def has_idle_weights(network: nn.Module) -> bool:
    """Whether some weights get no gradient in some steps: those around a block that is attached later in the run."""
    settings = getattr(network, "settings", None)
    return settings is not None and settings.llm.present and settings.llm.start > 0


@contextmanager
def together(device: str) -> Iterator[tuple[Team, torch.device]]:
    """The processes that this one trains with, and the device of this one. device: as the user names it.

    Inside another such block the processes are those of that one. Raises MvlError when the device is not to be had, and
    from the block when another of the processes has ended.
    """
    rank = rank_here()
    chosen = choose_device(device, rank)
    if rank.ranks == 1:
        yield ALONE, chosen
        return
    outermost = not torch.distributed.is_initialized()
    try:
        if outermost:
            if chosen.type == "cuda":
                torch.cuda.set_device(chosen)
            torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        talk = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        with warnings.catch_warnings():  # of a convolution over one voxel, where two layouts are the same
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield Team(rank, talk), chosen
    except RuntimeError as error:
        if not LOST.search(str(error)):
            raise
        raise MvlError(
            f"another process of this training has ended, so this one ({rank}) ends too",
            remedy="See what that one said; the same command resumes from the last checkpoint.",
        ) from error
    finally:
        if outermost and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
