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
SIZES = (SMALL, MEDIUM, LARGE)

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
    voxels_per_step: int | None  # a CPU is short of time before it is short of memory
    iterations: int  # of an easy task without a time budget
    least_iterations: int  # of an easy task: time is not spent on larger networks while it buys fewer
    mirror: Literal["right_left", "all"]  # of volumes (planners.schedule)
    reason: str


PATCH_TOKENS_MIN = 4  # along an axis, where the image has as many
BATCH_SHARE = 0.05  # of the dataset's voxels that one batch may hold (nnU-Net: max_dataset_covered)

# steps below which more of them are worth more than a larger network, for an easy task
CPU_LEAST = 600  # of batch 4: 0.840 Dice on Hippocampus, 0.875 after 2600 (docs/experiments.md, docs/planner.md)
GPU_LEAST = 2500  # nnU-Net on Hippocampus: 0.884 Dice after ten epochs of 250 steps, 0.889 after a thousand

CPU_3D = Ladder(
    batch_size=2,
    steps=(Step(patch_voxels=64**3), Step(batch_size=4)),
    voxels_per_step=540_000,
    iterations=2500,
    least_iterations=CPU_LEAST,
    mirror="right_left",
    reason="on a CPU time is short before memory is: about a second a step on two cores",
)
CPU_2D = Ladder(
    batch_size=4,
    steps=(Step(patch_voxels=320**2), Step(batch_size=16)),
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
    voxels_per_step=None,
    iterations=25_000,
    least_iterations=GPU_LEAST,
    mirror="all",
    reason="context first (the patch), then the trunk, then a less noisy gradient (the batch)",
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
    voxels_per_step=None,
    iterations=25_000,
    least_iterations=GPU_LEAST,
    mirror="all",
    reason="context first (the patch), then a batch as nnU-Net's, then the trunk",
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

REFERENCE_BATCH = 2 * 128**3  # voxels: nnU-Net's usual batch
EASY_STEPS = 100  # batches of that size that hold the whole training set once, up to which a task is easy
LONGEST = 10.0  # a hard task is trained this many times longer than an easy one
