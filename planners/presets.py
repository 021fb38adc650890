"""The numbers that the planner chooses among, each with its reason. Tuned here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GIB = 1 << 30

# ------------------------------------------------------------------------------------------ the network's grids

TOKEN_VOXELS = 256  # a token covers at least as many: 8x8x8 = 512 isotropic, 16x16 in 2D; fewer make attention slow
TOKEN_MAX = 16  # voxels of a token along an axis: finer detail is left to the stem
STAGES_MIN = 3  # halvings from the voxels to the tokens: half and quarter resolution are the skips
TOKENS_MIN = 2  # along an axis: an axis is not halved further once fewer tokens would cover the median image
ISOTROPY = 2.0  # an axis is halved while it is less than this coarser than the finest one (nnU-Net)

# ------------------------------------------------------------------------------------------ the network's size


@dataclass(frozen=True)
class Size:
    """How wide and deep. stem: channels of the finest level, doubled at each further one."""

    name: str
    stem: int
    width: int
    depth: int
    heads: int
    reason: str


SMALL = Size("small", 24, 192, 6, 6, "0.85 Dice after ten minutes on two CPU cores (Hippocampus, docs/experiments.md)")
MEDIUM = Size("medium", 32, 384, 8, 6, "a ViT-S of two thirds of its depth: what 8 GB leave over beside the patch")
LARGE = Size("large", 48, 768, 12, 12, "a ViT-B, as UNETR's trunk (Hatamizadeh et al. 2022)")
SMALL_DEEP = Size("small, deeper", 24, 192, 8, 6, "the small trunk in the depth of the next")
MEDIUM_DEEP = Size("medium, deeper", 32, 384, 12, 6, "a ViT-S in its full depth")
SIZES = (SMALL, SMALL_DEEP, MEDIUM, MEDIUM_DEEP, LARGE)  # each at least as large in all as the one before
TRUNK_TOKENS = 12  # of the largest patch: below, attention has too little to compare for a larger trunk than the small

# ------------------------------------------------------------------------------------------ patch and batch


@dataclass(frozen=True)
class Step:
    """One stretch of the way from the smallest plan to the largest: grow one thing up to here.

    patch_voxels, batch_size, size: where the stretch ends; None leaves it where it is. wider_blocks: through the
    frozen blocks that there are, up to the widest.
    """

    patch_voxels: int | None = None
    batch_size: int | None = None
    size: Size | None = None
    wider_blocks: bool = False


@dataclass(frozen=True)
class Ladder:
    """The order in which the budget is spent: each step begins where the one before has ended."""

    batch_size: int  # at the start
    steps: tuple[Step, ...]
    more_time: tuple[Step, ...]  # after them, where a time is given that buys `iterations` there
    voxels_per_step: int | None  # in `steps`: a CPU is short of time before it is short of memory
    iterations: int  # of an easy task without a time budget
    least_iterations: int  # of an easy task: time is not spent on larger networks while it buys fewer
    mirror: Literal["right_left", "all"]  # of volumes (planners.schedule)
    reason: str


PATCH_TOKENS_MIN = 4  # along an axis, where the image has as many
BATCH_SHARE = 0.05  # of the dataset's voxels that one batch may hold (nnU-Net: max_dataset_covered)

# steps below which more of them are worth more than a larger network, for an easy task
CPU_LEAST = 600  # of batch 4: 0.840 Dice on Hippocampus (docs/experiments.md), 0.875 after 2600 (design's prototype)
GPU_LEAST = 2500  # nnU-Net's on Hippocampus: 0.884 Dice after ten epochs of 250 steps, 0.889 after a thousand

CPU_3D = Ladder(
    batch_size=2,
    steps=(Step(patch_voxels=64**3), Step(batch_size=4)),
    more_time=(
        Step(patch_voxels=96**3),
        Step(size=SMALL_DEEP),
        Step(size=MEDIUM),
        Step(batch_size=4),
        Step(patch_voxels=128**3),
        Step(size=MEDIUM_DEEP),
        Step(size=LARGE),
        Step(batch_size=8),
    ),
    voxels_per_step=540_000,
    iterations=2500,
    least_iterations=CPU_LEAST,
    mirror="right_left",
    reason="on a CPU time is short before memory is: about a second a step on two cores",
)
CPU_2D = Ladder(
    batch_size=4,
    steps=(Step(patch_voxels=320**2), Step(batch_size=16)),
    more_time=(
        Step(patch_voxels=512**2),
        Step(size=SMALL_DEEP),
        Step(size=MEDIUM),
        Step(batch_size=16),
        Step(patch_voxels=1024**2),
        Step(size=MEDIUM_DEEP),
        Step(size=LARGE),
    ),
    voxels_per_step=540_000,
    iterations=2500,
    least_iterations=CPU_LEAST,
    mirror="right_left",
    reason="on a CPU time is short before memory is: about a second a step on two cores",
)
GPU_3D = Ladder(
    batch_size=2,
    steps=(
        Step(patch_voxels=128**3),
        Step(size=MEDIUM),
        Step(batch_size=4),
        Step(wider_blocks=True),
        Step(patch_voxels=192**3),
        Step(size=LARGE),
        Step(batch_size=8),
        Step(patch_voxels=256**3),
    ),
    more_time=(),
    voxels_per_step=None,
    iterations=25_000,
    least_iterations=GPU_LEAST,
    mirror="all",
    reason="context (the patch), the trunk and a less noisy gradient (the batch) grow in turns, in this order",
)
GPU_2D = Ladder(
    batch_size=4,
    steps=(
        Step(patch_voxels=512**2),
        Step(batch_size=12),
        Step(size=MEDIUM),
        Step(wider_blocks=True),
        Step(patch_voxels=1024**2),
        Step(batch_size=24),
        Step(size=LARGE),
        Step(patch_voxels=2048**2),
    ),
    more_time=(),
    voxels_per_step=None,
    iterations=25_000,
    least_iterations=GPU_LEAST,
    mirror="all",
    reason="context (the patch), a batch as nnU-Net's and the trunk grow in turns, in this order",
)
LADDERS = {("cpu", 2): CPU_2D, ("cpu", 3): CPU_3D, ("gpu", 2): GPU_2D, ("gpu", 3): GPU_3D}

# ------------------------------------------------------------------------------------------ memory

RESERVED = {"cpu": 600 << 20, "gpu": 1 << 30}  # bytes beside the tensors: Python with torch; CUDA's context, workspaces
FRAGMENTATION = 1.05  # what an allocator holds over what is in use

# ------------------------------------------------------------------------------------------ configurations

LOWRES_COVERAGE = 0.25  # of the median image that a patch must cover, or a lower resolution is planned (nnU-Net)
LOWRES_WORTH = 2.0  # how many times fewer voxels it must have (nnU-Net)
CPU_COVERAGE = 0.02  # on a CPU, below this the low resolution is recommended: the full one would take days
CROP_MATTERS = 0.75  # median share of the image left by the crop below which normalisation is masked (nnU-Net)
OVERSAMPLE_FOREGROUND = 0.33  # nnU-Net

# ------------------------------------------------------------------------------------------ how long to train

REFERENCE_PATCH = 128**3  # voxels: nnU-Net's usual patch
EASY_PATCHES = 5.0  # of that size that hold the median image, up to which a task is easy (the Decathlon's Heart has 4)
HARD_PATCHES = 12.0  # from which it is hard (its Pancreas)
RARE = 0.003  # share of the image that an object takes, below which it is rare: harder to find, as in a larger image
LONGEST = 10.0  # a hard task is trained this many times longer than an easy one
