"""The parts of a training step, each in two ways, in turn: what docs/experiments.md says about layouts, norms and loss.

    python benchmarks/layers.py [--threads 1] [--rounds 15] [--only WORD]

Forward and backward on random data of the sizes of the planner's network for Hippocampus. The ways take turns in each
round; printed are the best CPU milliseconds of each, which other processes change less than the clock's, and the ratio.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from statistics import median

import torch
from cpu import cpu
from torch import nn
from torch.nn import functional

from mvl_auto.network.depthwise import depthwise as depthwise_layer
from mvl_auto.network.fusion import FusionLevel

BATCH, CHANNELS, GRID, PATCH, CLASSES = 4, 24, (24, 28, 20), (40, 56, 40), 3
WIDTH, TOKENS = 192, (4, 6, 4)  # of the trunk
Work = Callable[[], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", metavar="WORD", help="only parts that have this in their name")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{cpu()}, {args.threads} thread(s), torch {torch.__version__}\n")
    print("| part | first ms | second ms | second / first | middle half of the rounds |\n|---|---|---|---|---|")
    for name, make in PARTS.items():
        if args.only in name:
            torch.manual_seed(0)
            print_row(name, *make(), args.rounds)


def print_row(name: str, first: Work, second: Work, rounds: int) -> None:
    taken = [(one(first), one(second)) for _ in range(rounds + 1)][1:]
    best = [1000 * min(each) for each in zip(*taken, strict=True)]
    ratios = sorted(after / before for before, after in taken)
    quarter = len(ratios) // 4
    spread = f"{ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f}"
    print(f"| {name} | {best[0]:.1f} | {best[1]:.1f} | {median(ratios):.2f} | {spread} |", flush=True)


def one(work: Work) -> float:
    """CPU seconds of forward and backward."""
    begun = time.process_time()
    work().sum().backward()
    return time.process_time() - begun


def layouts() -> tuple[Work, Work]:
    """A 3x3x3 convolution of 2 x CHANNELS to CHANNELS, as channels last and as torch's default has it."""
    layer = nn.Conv3d(2 * CHANNELS, CHANNELS, 3, padding=1)
    image = torch.randn(BATCH, 2 * CHANNELS, *GRID)
    last = nn.Conv3d(2 * CHANNELS, CHANNELS, 3, padding=1).to(memory_format=torch.channels_last_3d)
    images = image.to(memory_format=torch.channels_last_3d)
    return lambda: last(images.requires_grad_()), lambda: layer(image.requires_grad_())


def norms() -> tuple[Work, Work]:
    group, instance = nn.GroupNorm(8, CHANNELS), nn.InstanceNorm3d(CHANNELS, affine=True)
    image = torch.randn(BATCH, CHANNELS, *GRID).to(memory_format=torch.channels_last_3d).requires_grad_()
    return lambda: group(image), lambda: instance(image)


def depthwise() -> tuple[Work, Work]:
    wide, thin = nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1), nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1, groups=24)
    wide, thin = (layer.to(memory_format=torch.channels_last_3d) for layer in (wide, thin))
    image = torch.randn(BATCH, CHANNELS, *GRID).to(memory_format=torch.channels_last_3d).requires_grad_()
    return lambda: thin(image), lambda: wide(image)


def gradients() -> tuple[Work, Work]:
    """The depthwise convolution of a block of the trunk, with our gradients and with torch's."""
    layer = depthwise_layer(3, WIDTH).to(memory_format=torch.channels_last_3d)
    image = torch.randn(2, WIDTH, *TOKENS).to(memory_format=torch.channels_last_3d).requires_grad_()
    torchs = functools.partial(functional.conv3d, padding=1, groups=WIDTH)
    return lambda: layer(image), lambda: torchs(image, layer.weight, layer.bias)


def fusion() -> tuple[Work, Work]:
    """The finest level of the decoder without its convolutions, as it is, and with each source brought there apart."""
    level = FusionLevel(3, channels=16, coarser=32, up=(2, 2, 2), width=WIDTH, reach=(4, 4, 4))
    level.refine = nn.Identity()
    level = level.to(memory_format=torch.channels_last_3d)
    shapes = [(2, 32, 8, 12, 8), (2, 16, 16, 24, 16), (2, WIDTH, *TOKENS), (2, WIDTH, *TOKENS)]
    coarser, skip, *depths = (
        torch.randn(*shape).to(memory_format=torch.channels_last_3d).requires_grad_() for shape in shapes
    )

    def apart() -> torch.Tensor:
        sources = [level.from_skip(skip), *(up(x) for up, x in zip(level.from_tokens, depths, strict=True))]
        sources.append(level.from_coarser(coarser))
        weights = level.weights.softmax(dim=0) * len(sources)
        mixed = sources[0] * weights[0]
        for source, weight in zip(sources[1:], weights[1:], strict=True):
            mixed = torch.addcmul(mixed, source, weight)
        return mixed

    return lambda: level(coarser, skip, depths), apart


def losses() -> tuple[Work, Work]:
    """Soft Dice and cross-entropy of the same logits, stored with voxels or with classes running fastest."""
    label = torch.randint(0, CLASSES, (BATCH, *PATCH))
    voxels = torch.randn(BATCH, CLASSES, *PATCH).requires_grad_()
    classes = voxels.detach().to(memory_format=torch.channels_last_3d).requires_grad_()
    target = functional.one_hot(label, CLASSES).movedim(-1, 1).float()

    def loss(logits: torch.Tensor) -> torch.Tensor:
        share = logits.softmax(1)
        overlap = (share * target).sum((2, 3, 4))
        dice = 2 * overlap / (share.sum((2, 3, 4)) + target.sum((2, 3, 4)))
        return functional.cross_entropy(logits, label) - dice.mean()

    return lambda: loss(voxels), lambda: loss(classes)


PARTS = {
    "3x3x3 convolution 48 to 24: channels last / torch's default": layouts,
    "norm, 24 channels, channels last: 8 groups / instance": norms,
    "3x3x3 convolution, 24 channels: depthwise / dense": depthwise,
    "depthwise 3x3x3 convolution, 192 channels on 4x6x4 tokens: our gradients / torch's": gradients,
    "sources of the finest level of the decoder: tokens in one product, weights in the kernels / apart": fusion,
    "Dice and cross-entropy: voxels fastest / classes fastest": losses,
}


if __name__ == "__main__":
    main()
