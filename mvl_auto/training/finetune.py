"""Fine-tuning: a run that begins with the weights of another one, as far as they fit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mvl_auto.errors import MvlError
from mvl_auto.network.fusion import HEADS
from mvl_auto.network.optimizer import trainable
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.text import list_text, percent_text

LEAST_SHARE = 0.05  # of the numbers: some vectors are of one length in any two networks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taken:
    """Names of weights of the new network: what became of each."""

    whole: tuple[str, ...]  # taken as they are
    adapted: tuple[str, ...]  # kernels on the image, spread over another number of channels
    fresh: tuple[str, ...]  # as drawn: not in the other network, or of another shape there


def start_from(network: nn.Module, source: Path) -> Taken:
    """Give the network the averaged weights of a trained one, and log which do not fit.

    source: a checkpoint, or the folder of a fold, of a pretraining or of a run. Raises MvlError when there is none, or
    hardly any fits.
    """
    file = ckpt.find_checkpoint(source)
    weights = ckpt.read_tensors(file, (ckpt.AVERAGED,))[ckpt.AVERAGED]
    if ckpt.read_state(file.parent, file.name).objective == "reconstruction":  # its outputs are intensities
        weights = {name: weight for name, weight in weights.items() if not name.startswith(HEADS)}
    taken = take_what_fits(network, weights)
    own = trainable(network)
    share = sum(own[name].numel() for name in taken.whole) / sum(weight.numel() for weight in own.values())
    if share < LEAST_SHARE:
        raise MvlError(
            f"fits {percent_text(share)} of this network's weights",
            file=file,
            remedy="Choose a run of the same network.",
        )
    log.info(
        "%s: %d of %d weights are taken%s",
        file,
        len(taken.whole) + len(taken.adapted),
        len(taken.whole) + len(taken.adapted) + len(taken.fresh),
        f"; new are {list_text(taken.fresh, 12)}" if taken.fresh else "",
    )
    return taken


@torch.no_grad()
def take_what_fits(network: nn.Module, weights: dict[str, Tensor]) -> Taken:
    """Copy into the network the weights whose name and shape it has.

    Of a kernel that differs in its input channels alone, the mean over those of the other network goes to each of its
    own, so that an image that is the same in every channel gives the same output as before.
    """
    whole, adapted, fresh = [], [], []
    for name, own in trainable(network).items():
        other = weights.get(name)
        if other is not None and other.shape == own.shape:
            own.copy_(other)
            whole.append(name)
        elif other is not None and own.ndim > 2 and other.ndim == own.ndim and _same_but_inputs(own, other):
            own.copy_(other.mean(dim=1, keepdim=True) * (other.shape[1] / own.shape[1]))
            adapted.append(name)
        else:
            fresh.append(name)
    return Taken(tuple(whole), tuple(adapted), tuple(fresh))


def _same_but_inputs(own: Tensor, other: Tensor) -> bool:
    return own.shape[:1] == other.shape[:1] and own.shape[2:] == other.shape[2:]
