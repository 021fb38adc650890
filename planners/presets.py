"""The numbers that the planner chooses among, each with its reason. They are tuned here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

GIB = 1 << 30

# ------------------------------------------------------------------------------------------ the network's grids

TOKEN_VOXELS = 256  # a token covers at least as many: 8x8x8 = 512 isotropic, 16x16 in 2D; fewer make attention slow
TOKEN_MAX = 16  # voxels of a token along an axis: finer detail is left to the stem
STAGES_MIN = 3  # halvings from the voxels to the tokens: half and quarter resolution are the skips
TOKENS_MIN = 2  # along an axis: an axis is not halved further once fewer tokens would cover the median image
ISOTROPY = 2.0  # an axis is halved while it is less than this coarser than the finest one (nnU-Net)

# ------------------------------------------------------------------------------------------ the trunk

HEAD_CHANNELS = 64  # of an attention head: fewer and wider heads take less time than many narrow ones


@dataclass(frozen=True)
class Trunk:
    """Width and depth of the network. stem: channels of the finest level, doubled at each coarser one.

    Stem channels are multiples of 16: others leave lanes of the vector units empty.
    """

    name: str
    stem: int
    width: int
    depth: int
    reason: str

    @property
    def heads(self) -> int:
        return choose_heads(self.width)


def choose_heads(width: int) -> int:
    """Heads of 64 channels; the next smaller number of heads that divides the width where 64 does not."""
    heads = max(1, width // HEAD_CHANNELS)
    while width % heads:
        heads -= 1
    return heads


SMALL = Trunk(
    "small",
    16,
    192,
    6,
    "in ten minutes on Hippocampus 1246 steps and 0.856 Dice; 734 and 0.843 with a stem of 24, six heads and the patch "
    "rounded up (two CPU cores)",
)
SHALLOW = Trunk(
    "shallow",
    16,
    192,
    2,
    "for images that one patch holds: in the same time it takes 1.5 times the steps of one of depth 6, and on "
    "Hippocampus its Dice is 0.876 for 0.871 (two folds, two CPU cores)",
)
MEDIUM = Trunk("medium", 32, 384, 8, "a ViT-S of two thirds of its depth, which 8 GB leave room for beside the patch")
LARGE = Trunk("large", 48, 768, 12, "a ViT-B, as UNETR's trunk (Hatamizadeh et al. 2022)")
SMALL_DEEP = Trunk("small, deeper", 16, 192, 8, "the small trunk with the depth of the next one")
MEDIUM_DEEP = Trunk("medium, deeper", 32, 384, 12, "a ViT-S in its full depth")
TRUNKS = (SHALLOW, SMALL, SMALL_DEEP, MEDIUM, MEDIUM_DEEP, LARGE)  # none is smaller in anything than the one before
TRUNK_TOKENS = 12  # of the largest patch: attention over fewer tokens does not need a larger trunk than the small one

# ------------------------------------------------------------------------------------------ patch and batch


@dataclass(frozen=True)
class Growth:
    """One stretch of the search order: grow one thing up to this value.

    patch_voxels, batch_size, trunk: where the stretch ends; None leaves it as it is. wider_blocks: go through the
    eligible frozen blocks, up to the widest.
    """

    patch_voxels: int | None = None
    batch_size: int | None = None
    trunk: Trunk | None = None
    wider_blocks: bool = False


@dataclass(frozen=True)
class SearchOrder:
    """The order in which a budget is spent: each growth begins where the one before has ended."""

    batch_size: int  # at the start
    trunk: Trunk  # at the start
    growths: tuple[Growth, ...]
    more_time: tuple[Growth, ...]  # after them, where a time is given that allows `steps` there
    voxels_per_step: int | None  # in `growths`: on a CPU time runs out before memory does
    steps: int  # training steps of an easy task without a time budget
    min_steps: int  # of an easy task: a time budget is not spent on larger networks while it allows fewer
    mirror: Literal["right_left", "all"]  # of volumes (planners.schedule)
    reason: str


PATCH_TOKENS_MIN = 4  # along an axis, where the image has as many
BATCH_SHARE = 0.05  # of the dataset's voxels that one batch may hold (nnU-Net: max_dataset_covered)

# training steps below which more of them are worth more than a larger network, for an easy task
CPU_MIN_STEPS = 1200  # of batch 2: as many patches as 600 of batch 4, which gave 0.840 Dice on Hippocampus
CPU_MIN_STEPS_2D = 600  # whose batches are 4 or more
GPU_MIN_STEPS = 2500  # nnU-Net's on Hippocampus: 0.884 Dice after ten epochs of 250 steps, 0.889 after a thousand

CPU_REASON = "on a CPU time runs out before memory does, and more steps have been worth more than a larger step"
GPU_REASON = "patch (context), trunk and batch (a less noisy gradient) grow in turns, in this order"

CPU_3D = SearchOrder(
    batch_size=2,  # as many patches in half as large batches gave a better network (docs/experiments.md)
    trunk=SMALL,
    growths=(Growth(patch_voxels=64**3),),
    more_time=(
        Growth(patch_voxels=96**3),
        Growth(trunk=SMALL_DEEP),
        Growth(trunk=MEDIUM),
        Growth(batch_size=4),
        Growth(patch_voxels=128**3),
        Growth(trunk=MEDIUM_DEEP),
        Growth(trunk=LARGE),
        Growth(batch_size=8),
    ),
    voxels_per_step=540_000,
    steps=5000,
    min_steps=CPU_MIN_STEPS,
    mirror="right_left",
    reason=CPU_REASON,
)
SMALL_IMAGE = 64**3  # voxels of the median image, up to which the shallow trunk is planned: one patch holds it
CPU_3D_SMALL_IMAGES = replace(
    CPU_3D,
    trunk=SHALLOW,
    more_time=(Growth(trunk=SMALL), *CPU_3D.more_time),
    steps=7500,  # as long as 5000 of the small trunk
)
CPU_2D = SearchOrder(
    batch_size=4,
    trunk=SMALL,
    growths=(Growth(patch_voxels=320**2), Growth(batch_size=16)),
    more_time=(
        Growth(patch_voxels=512**2),
        Growth(trunk=SMALL_DEEP),
        Growth(trunk=MEDIUM),
        Growth(batch_size=16),
        Growth(patch_voxels=1024**2),
        Growth(trunk=MEDIUM_DEEP),
        Growth(trunk=LARGE),
    ),
    voxels_per_step=540_000,
    steps=2500,
    min_steps=CPU_MIN_STEPS_2D,
    mirror="right_left",
    reason=CPU_REASON,
)
GPU_3D = SearchOrder(
    batch_size=2,
    trunk=SMALL,
    growths=(
        Growth(patch_voxels=128**3),
        Growth(trunk=MEDIUM),
        Growth(batch_size=4),
        Growth(wider_blocks=True),
        Growth(patch_voxels=192**3),
        Growth(trunk=LARGE),
        Growth(batch_size=8),
        Growth(patch_voxels=256**3),
    ),
    more_time=(),
    voxels_per_step=None,
    steps=25_000,
    min_steps=GPU_MIN_STEPS,
    mirror="all",
    reason=GPU_REASON,
)
GPU_2D = SearchOrder(
    batch_size=4,
    trunk=SMALL,
    growths=(
        Growth(patch_voxels=512**2),
        Growth(batch_size=12),
        Growth(trunk=MEDIUM),
        Growth(wider_blocks=True),
        Growth(patch_voxels=1024**2),
        Growth(batch_size=24),
        Growth(trunk=LARGE),
        Growth(patch_voxels=2048**2),
    ),
    more_time=(),
    voxels_per_step=None,
    steps=25_000,
    min_steps=GPU_MIN_STEPS,
    mirror="all",
    reason=GPU_REASON,
)
SEARCH_ORDERS = {("cpu", 2): CPU_2D, ("cpu", 3): CPU_3D, ("gpu", 2): GPU_2D, ("gpu", 3): GPU_3D}

# ------------------------------------------------------------------------------------------ memory

RESERVED = {"cpu": 600 << 20, "gpu": 1 << 30}  # bytes beside the tensors: Python with torch; CUDA's context, workspaces
FRAGMENTATION = 1.05  # what an allocator holds, relative to what is in use

# ------------------------------------------------------------------------------------------ configurations

LOWRES_COVERAGE = 0.25  # of the median image that a patch must cover, or a lower resolution is planned (nnU-Net)
LOWRES_WORTH = 2.0  # how many times fewer voxels it must have (nnU-Net)
CPU_COVERAGE = 0.02  # on a CPU, below this the low resolution is recommended: the full one would take days
CROP_MATTERS = 0.75  # median share of the image left by the crop below which normalization is masked (nnU-Net)
OVERSAMPLE_FOREGROUND = 0.33  # nnU-Net
MANY_LABELS = 8  # from here on a patch shows few of the labels: Dice is taken over the batch

# ------------------------------------------------------------------------------------------ how long to train

REFERENCE_PATCH = 128**3  # voxels: nnU-Net's usual patch
EASY_PATCHES = 5.0  # of that size that hold the median image, up to which a task is easy (the Decathlon's Heart has 4)
HARD_PATCHES = 12.0  # from which it is hard (its Pancreas)
RARE = 0.003  # share of the image that an object takes, below which it is rare: harder to find, as in a larger image
LONGEST = 10.0  # a hard task is trained this many times longer than an easy one
