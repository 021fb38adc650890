"""The candidates for one configuration, in the order of preference, and the search for the largest that fits.

The objective: all networks that are considered form one list, the candidates. None is smaller than the one before it in
patch, batch, trunk or frozen block. The best plan is the last candidate that the budget of memory and of time allows.
So a larger budget never gives a smaller anything, and the order in which candidates grow (planners.presets) is the
order of preference.

The frozen block and its mappers are in every candidate from the first on.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mvl_auto.planners.presets import (
    ISOTROPY,
    PATCH_TOKENS_MIN,
    SMALL,
    STAGES_MIN,
    TOKEN_MAX,
    TOKEN_VOXELS,
    TOKENS_MIN,
    TRUNK_TOKENS,
    TRUNKS,
    SearchOrder,
    Trunk,
)
from mvl_auto.plans import BlockSizes, Shape

LARGEST_PATCH = {2: 2048**2, 3: 256**3}  # voxels to start shrinking from (nnU-Net)
ROUNDING = 1e-6  # tokens: the cube root of 256^3 is a little less than 256


@dataclass(frozen=True)
class Candidate:
    """One network, patch and batch that may be planned. block: the frozen block, None for a network without.

    whole_schedule: whether a time budget must allow all the steps of a training without one before it is spent on this
    candidate, not just the minimum.
    """

    patch_size: Shape
    batch_size: int
    trunk: Trunk
    block: BlockSizes | None = None
    whole_schedule: bool = field(default=False, compare=False)

    @property
    def patch_voxels(self) -> int:
        return math.prod(self.patch_size)


def choose_strides(spacing_mm: Sequence[float], shape: Sequence[float]) -> tuple[Shape, ...]:
    """Strides from the voxels to the tokens, finest first, per axis 1 or 2.

    An axis that is at least twice as coarse as the finest waits until the others have caught up (nnU-Net's
    get_pool_and_conv_props); one that would be left with fewer than two tokens is not halved. There are three strides,
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


def list_patches(spacing_mm: Sequence[float], shape: Sequence[float], token_size: Shape) -> list[Shape]:
    """Patch sizes in voxels from the largest to the smallest, each inside the one before, multiples of the token size.

    The largest is as long in mm along every axis, of 256^3 voxels (2D: 2048^2), and no larger than the median image:
    rounded down to whole tokens, as voxels beyond the image are padding that costs time. Then the axis that is largest
    in relation to the median image is shortened by one token at a time (nnU-Net).
    """
    volume = LARGEST_PATCH[len(shape)]
    edge_mm = (volume * math.prod(spacing_mm)) ** (1 / len(shape))
    patch = [
        max(1, math.floor(min(edge_mm / mm, n) / t + ROUNDING)) * t
        for mm, n, t in zip(spacing_mm, shape, token_size, strict=True)
    ]
    least = [min(n, PATCH_TOKENS_MIN * t) for n, t in zip(patch, token_size, strict=True)]
    patches = [tuple(patch)]
    while patch != least:
        shrinkable = [axis for axis in range(len(patch)) if patch[axis] > least[axis]]
        longest = max(shrinkable, key=lambda axis: (patch[axis] / shape[axis], -axis))
        patch[longest] -= token_size[longest]
        patches.append(tuple(patch))
    return patches


def list_candidates(
    order: SearchOrder,
    patches: Sequence[Shape],
    batch_voxels: float,
    blocks: Sequence[BlockSizes] = (),
    largest: Trunk | None = None,
    timed: bool = False,
) -> list[Candidate]:
    """The candidates for one configuration, smallest first.

    patches: largest first. batch_voxels: the most that a batch may hold beyond the first batch size. blocks: the
    eligible ones, lightest first. largest: the largest trunk, None for any. timed: whether there is a time budget, for
    the growths that need one.
    """
    growing = list(reversed(patches))
    found = [Candidate(growing[0], order.batch_size, order.trunk, blocks[0] if blocks else None)]
    growths = [(growth, False) for growth in order.growths] + [(growth, True) for growth in order.more_time if timed]
    for growth, whole_schedule in growths:
        now = replace(found[-1], whole_schedule=whole_schedule)
        most = math.inf if whole_schedule else order.voxels_per_step or math.inf
        if growth.trunk is not None and (largest is None or TRUNKS.index(growth.trunk) <= TRUNKS.index(largest)):
            found.append(replace(now, trunk=growth.trunk))
        elif growth.wider_blocks:
            found += [replace(now, block=block) for block in blocks[1:]]
        elif growth.batch_size is not None:
            limit = min(batch_voxels, most)
            sizes = range(now.batch_size + 1, growth.batch_size + 1)
            found += [replace(now, batch_size=n) for n in sizes if n * math.prod(now.patch_size) <= limit]
        elif growth.patch_voxels is not None:
            limit = min(growth.patch_voxels, most / now.batch_size)
            larger = [patch for patch in growing if math.prod(now.patch_size) < math.prod(patch) <= limit]
            found += [replace(now, patch_size=patch) for patch in larger]
    return found


def limit_trunk(patches: Sequence[Shape], token_size: Shape) -> Trunk | None:
    """The small trunk, as the largest, where even the largest patch has fewer than twelve tokens; else None (any)."""
    tokens = math.prod(patches[0]) // math.prod(token_size)
    return SMALL if tokens < TRUNK_TOKENS else None


def find_largest_that_fits(
    candidates: Sequence[Candidate],
    cost: Callable[[Candidate], float],
    guess: Callable[[Candidate], float],
    limit: float,
) -> Candidate | None:
    """The last candidate whose cost is at most `limit`; None when not even the first one's is.

    cost: slow, and no smaller for a later candidate. guess: quick, and about proportional to the cost; it says which
    candidate to look at next, so that few costs are measured.
    """
    guesses = [guess(candidate) for candidate in candidates]
    fits, fails, scale, stride = -1, len(candidates), 1.0, 1
    while fails - fits > 1:
        likely = bisect_right(guesses, limit / scale) - 1
        if not fits < likely < fails:  # the guess says nothing new: go from the known end in growing strides
            likely = fits + stride if likely <= fits else fails - stride
            stride *= 2
        probe = min(max(likely, fits + 1), fails - 1)
        measured = cost(candidates[probe])
        scale = measured / guesses[probe]
        fits, fails = (probe, fails) if measured <= limit else (fits, probe)
    return None if fits < 0 else candidates[fits]
