"""The search for the largest network that a budget pays for.

The objective. All plans that are considered lie on one ladder: each rung is at least as large as the one below it, in
patch, in batch, in trunk and in frozen block. The best plan is the highest rung that the budget pays for, in memory and
in time. So a larger budget never gives a smaller anything, and the order in which the ladder grows (planners.presets)
is the order of preference.

The fixed costs, the frozen block and its mappers first, are in every rung from the lowest on.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mvl_auto.planners.presets import (
    ISOTROPY,
    PATCH_TOKENS_MIN,
    SIZES,
    SMALL,
    STAGES_MIN,
    TOKEN_MAX,
    TOKEN_VOXELS,
    TOKENS_MIN,
    TRUNK_TOKENS,
    Ladder,
    Size,
)
from mvl_auto.plans import BlockSizes, Shape

LARGEST_PATCH = {2: 2048**2, 3: 256**3}  # voxels to start shrinking from (nnU-Net)


@dataclass(frozen=True)
class Rung:
    """One candidate. block: the frozen one, None for a network without.

    whole_schedule: whether it is worth its time only where that buys all the steps of a training without a budget of
    time, not just the least.
    """

    patch_size: Shape
    batch_size: int
    size: Size
    block: BlockSizes | None = None
    whole_schedule: bool = field(default=False, compare=False)

    @property
    def patch_voxels(self) -> int:
        return math.prod(self.patch_size)


def stages(spacing_mm: Sequence[float], shape: Sequence[float]) -> tuple[Shape, ...]:
    """Strides from the voxels down to the tokens, finest first, per axis 1 or 2.

    An axis that is at least twice as coarse as the finest waits until the others have caught up (nnU-Net's
    get_pool_and_conv_props); one that would be left with fewer than two tokens is not halved. There are three stages,
    or more until a token covers 256 voxels.
    spacing_mm, shape: of the median image.
    """
    spacing, voxels, token = list(spacing_mm), list(shape), [1] * len(shape)
    strides: list[Shape] = []
    while len(strides) < STAGES_MIN or math.prod(token) < TOKEN_VOXELS:
        large = [n >= 2 * TOKENS_MIN and t < TOKEN_MAX for n, t in zip(voxels, token, strict=True)]
        finest = min((mm for mm, may in zip(spacing, large, strict=True) if may), default=0.0)
        stride = tuple(2 if may and mm < ISOTROPY * finest else 1 for mm, may in zip(spacing, large, strict=True))
        if len(strides) >= STAGES_MIN and math.prod(stride) == 1:
            break
        strides.append(stride)
        spacing = [mm * step for mm, step in zip(spacing, stride, strict=True)]
        voxels = [n / step for n, step in zip(voxels, stride, strict=True)]
        token = [t * step for t, step in zip(token, stride, strict=True)]
    return tuple(strides)


def patches(spacing_mm: Sequence[float], shape: Sequence[float], token_size: Shape) -> list[Shape]:
    """Patch sizes from the largest down to the smallest, each inside the one before, multiples of the token size.

    The largest is as long in mm along every axis, of 256^3 voxels (2D: 2048^2), but not larger than the median image.
    Then the axis that is largest in relation to the median image is shortened by one token at a time (nnU-Net).
    """
    volume = LARGEST_PATCH[len(shape)]
    edge_mm = (volume * math.prod(spacing_mm)) ** (1 / len(shape))
    patch = [
        max(1, math.ceil(min(edge_mm / mm, n) / t)) * t for mm, n, t in zip(spacing_mm, shape, token_size, strict=True)
    ]
    least = [min(n, PATCH_TOKENS_MIN * t) for n, t in zip(patch, token_size, strict=True)]
    chain = [tuple(patch)]
    while patch != least:
        shrinkable = [axis for axis in range(len(patch)) if patch[axis] > least[axis]]
        longest = max(shrinkable, key=lambda axis: (patch[axis] / shape[axis], -axis))
        patch[longest] -= token_size[longest]
        chain.append(tuple(patch))
    return chain


def rungs(
    ladder: Ladder,
    patch_chain: Sequence[Shape],
    batch_voxels: float,
    blocks: Sequence[BlockSizes] = (),
    largest: Size | None = None,
    timed: bool = False,
) -> list[Rung]:
    """The ladder for one configuration, lowest rung first.

    patch_chain: largest first. batch_voxels: that a batch may hold beyond the ladder's first batch size.
    blocks: those that may be planned, lightest first. largest: the largest trunk, None for any.
    timed: whether there is a budget of time, for the steps that need one.
    """
    growing = list(reversed(patch_chain))
    climbed = [Rung(growing[0], ladder.batch_size, SMALL, blocks[0] if blocks else None)]
    ways = [(step, False) for step in ladder.steps] + [(step, True) for step in ladder.more_time if timed]
    for step, whole_schedule in ways:
        now = replace(climbed[-1], whole_schedule=whole_schedule)
        most = math.inf if whole_schedule else ladder.voxels_per_step or math.inf
        if step.size is not None and (largest is None or SIZES.index(step.size) <= SIZES.index(largest)):
            climbed.append(replace(now, size=step.size))
        elif step.wider_blocks:
            climbed += [replace(now, block=block) for block in blocks[1:]]
        elif step.batch_size is not None:
            limit = min(batch_voxels, most)
            sizes = range(now.batch_size + 1, step.batch_size + 1)
            climbed += [replace(now, batch_size=n) for n in sizes if n * math.prod(now.patch_size) <= limit]
        elif step.patch_voxels is not None:
            limit = min(step.patch_voxels, most / now.batch_size)
            larger = [patch for patch in growing if math.prod(now.patch_size) < math.prod(patch) <= limit]
            climbed += [replace(now, patch_size=patch) for patch in larger]
    return climbed


def largest_trunk(patch_chain: Sequence[Shape], token_size: Shape) -> Size | None:
    """The small trunk where even the largest patch has a handful of tokens; None, any, elsewhere."""
    tokens = math.prod(patch_chain[0]) // math.prod(token_size)
    return SMALL if tokens < TRUNK_TOKENS else None


def highest(
    candidates: Sequence[Rung], cost: Callable[[Rung], float], guess: Callable[[Rung], float], limit: float
) -> Rung | None:
    """The highest rung whose cost is at most `limit`; None when not even the lowest's is.

    guess: proportional to the cost, about, and quick: it says where to look, so that few costs are taken.
    """
    guesses = [guess(rung) for rung in candidates]
    fits, fails, scale, stride = -1, len(candidates), 1.0, 1
    while fails - fits > 1:
        likely = bisect_right(guesses, limit / scale) - 1
        if not fits < likely < fails:  # the guess has nothing more to say: ever longer strides from the known end
            likely = fits + stride if likely <= fits else fails - stride
            stride *= 2
        probe = min(max(likely, fits + 1), fails - 1)
        taken = cost(candidates[probe])
        scale = taken / guesses[probe]
        fits, fails = (probe, fails) if taken <= limit else (fits, probe)
    return None if fits < 0 else candidates[fits]
