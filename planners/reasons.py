"""The plan in words: for each number the rule that chose it, with the figures that went into it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mvl_auto.planners.block import SMOLLM2, Block
from mvl_auto.planners.cost import Bought
from mvl_auto.planners.normalisation import relative_size_after_crop
from mvl_auto.planners.presets import CROP_MATTERS, LOWRES_COVERAGE, Ladder
from mvl_auto.planners.schedule import difficulty, least_iterations, tells_sides_apart
from mvl_auto.planners.spacing import ANISOTROPY_FACTOR, COARSE_AXIS_PERCENTILE, coarse_axis
from mvl_auto.planners.task import Task
from mvl_auto.plans import Configuration

WHAT_ENDS = {
    "ladder": "nothing larger would be planned",
    "memory": "the next larger plan does not fit",
    "time": "a step of the next larger plan takes too long",
}


def reasons(task: Task, configuration: Configuration, ladder: Ladder, bought: Bought) -> dict[str, str]:
    """field -> why."""
    size = bought.rung.size
    told = {
        "spacing": _spacing(task, configuration),
        "patch_size": _patch(configuration, ladder),
        "batch_size": _batch(configuration, ladder),
        "token_size": _token(configuration),
        "network": f"{size.name}: width {size.width}, depth {size.depth}, {size.heads} heads; {size.reason}",
        "memory": _memory(task, bought),
        "normalization_schemes": _normalisation(task, configuration),
        "use_mask_for_norm": f"the crop to non-zero leaves {relative_size_after_crop(task.fingerprint.cases):.0%} of "
        f"the median image; below {CROP_MATTERS:.0%} z-scores are taken from non-zero voxels",
        "transpose_forward": "the coarsest axis comes first"
        if task.volumetric
        else "the axis of one voxel comes first",
        "resample_separate_z": _separate(configuration),
        "iterations": _iterations(task, configuration, ladder, bought),
        "mirror_axes": _mirroring(task, ladder),
        "llm": _llm(task, bought.rung.block),
    }
    if configuration.previous_stage is not None:
        told["previous_stage"] = f"the prediction of {configuration.previous_stage} is extra input"
    return told


def _mirroring(task: Task, ladder: Ladder) -> str:
    if not task.volumetric:
        return "all axes: flat images have no head and foot"
    sided = tells_sides_apart(task.fingerprint.labels)
    if ladder.mirror == "right_left":
        axes = "no axis: labels tell left from right," if sided else "left to right only:"
        return f"{axes} a short training has no steps to spare for bodies that do not occur"
    return "labels tell left from right: that axis is not mirrored" if sided else "all axes: none tells left from right"


def _spacing(task: Task, configuration: Configuration) -> str:
    if configuration.name == "3d_lowres":
        return f"coarsened from {_by(task.spacing)} mm until a patch covers {LOWRES_COVERAGE:.0%} of the median image"
    rule = f"median of {len(task.fingerprint.cases)} cases"
    if coarse_axis(task.spacing, task.shape) == 0:
        rule += (
            f"; the first axis is more than {ANISOTROPY_FACTOR:g} times coarser and has as many times fewer voxels: "
            f"{COARSE_AXIS_PERCENTILE}th percentile"
        )
    return rule


def _patch(configuration: Configuration, ladder: Ladder) -> str:
    median = configuration.median_image_size_in_voxels[-configuration.dimensions :]
    share = math.prod(configuration.patch_size) / math.prod(median)
    whole = all(patch >= voxels for patch, voxels in zip(configuration.patch_size, median, strict=True))
    covers = "the whole median image" if whole else f"{share:.0%} of the median image"
    limit = f"; {ladder.reason}" if ladder.voxels_per_step and not whole else ""
    return f"covers {covers} ({_by(median)} voxels), in multiples of the token size{limit}"


def _batch(configuration: Configuration, ladder: Ladder) -> str:
    if ladder.voxels_per_step:
        return f"{ladder.reason}: at most {ladder.voxels_per_step} voxels a step"
    return ladder.reason


def _token(configuration: Configuration) -> str:
    network = configuration.network
    return (
        f"{_by(network.token_size)} voxels: axes are halved together once their spacings ({_by(network.spacing)} mm) "
        "are within a factor of 2, while two tokens at least remain along each"
    )


def _memory(task: Task, bought: Bought) -> str:
    how = "measured" if bought.measured else "estimated"
    budget = f"of a budget of {task.budget.memory / 1e9:.2f} GB"
    return f"{bought.memory / 1e9:.2f} GB ({how}) {budget}; {WHAT_ENDS[bought.ends]}"


def _normalisation(task: Task, configuration: Configuration) -> str:
    pairs = zip(task.fingerprint.channels, configuration.normalization_schemes, strict=True)
    return "by channel name: " + ", ".join(f"{channel.name} {scheme}" for channel, scheme in pairs)


def _separate(configuration: Configuration) -> str:
    finest = min(configuration.spacing[-configuration.dimensions :])
    ratio = max(configuration.spacing[-configuration.dimensions :]) / finest
    return f"coarsest over finest axis {ratio:.2g}, beyond {ANISOTROPY_FACTOR:g} slices are resampled apart"


def _iterations(task: Task, configuration: Configuration, ladder: Ladder, bought: Bought) -> str:
    voxels = math.prod(configuration.median_image_size_in_voxels) * len(task.fingerprint.cases)
    times = f"times {difficulty(voxels):.2g} for {voxels / 1e6:.0f} million voxels in the dataset"
    if task.budget.seconds is None or bought.step_seconds is None:
        return f"{ladder.iterations} steps for an easy task, {times}"
    per_step = f"about {task.budget.seconds / configuration.iterations:.2g} s a step"
    bought_here = f"what {minutes(task.budget.seconds)} buy at {per_step}, measured here"
    least = f"{ladder.least_iterations} steps for an easy task, {times}"
    if task.budget.seconds / bought.step_seconds < least_iterations(voxels, ladder):
        return f"{bought_here}: too few, at least {least} are needed; the smallest network is all that can be done"
    return f"{bought_here}; a larger network must leave time for {least}"


def _llm(task: Task, block: Block | None) -> str:
    if block is None:
        return "no LLM block was asked for"
    if task.llm.source != SMOLLM2.source:
        known = "" if task.blocks_known else ", a width that is assumed until the block has been fetched"
        return f"{block.source} as asked for, width {block.hidden_size}{known}: paid before the rest"
    wider = len(task.blocks) - 1
    if block != task.blocks[0]:
        return (
            f"{block.source}, layer {block.layer}, width {block.hidden_size}: the widest pretrained block of the bank "
            "that is paid for after patch, trunk and batch"
        )
    if task.budget.device == "cpu":
        rest = "a CPU's time is for the trunk"
    elif wider:
        rest = f"the bank's {wider} wider would come after patch, trunk and batch, where the budget ends before"
    else:
        rest = "the bank holds no wider one"
    return f"SmolLM2-135M's, width {block.hidden_size}: paid before the rest; {rest}"


def minutes(seconds: float) -> str:
    """`45 s`, `12 min`, `33.3 min`."""
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


def _by(numbers: Iterable[float] | Sequence[int]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
