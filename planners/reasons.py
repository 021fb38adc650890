"""The plan in words: for each number the rule that chose it, with the figures that went into it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mvl_auto.planners.cost import Bought
from mvl_auto.planners.normalisation import relative_size_after_crop
from mvl_auto.planners.presets import CROP_MATTERS, LOWRES_COVERAGE, Ladder
from mvl_auto.planners.schedule import difficulty, tells_sides_apart
from mvl_auto.planners.spacing import ANISOTROPY_FACTOR, COARSE_AXIS_PERCENTILE, coarse_axis
from mvl_auto.planners.task import Task
from mvl_auto.plans import Configuration


def reasons(task: Task, configuration: Configuration, ladder: Ladder, bought: Bought, most: bool) -> dict[str, str]:
    """field -> why. most: nothing larger would ever be planned."""
    size = bought.rung.size
    told = {
        "spacing": _spacing(task, configuration),
        "patch_size": _patch(configuration, ladder),
        "batch_size": _batch(configuration, ladder),
        "token_size": _token(configuration),
        "network": f"{size.name}: width {size.width}, depth {size.depth}, {size.heads} heads; {size.reason}",
        "memory": _memory(task, bought, most),
        "normalization_schemes": _normalisation(task, configuration),
        "use_mask_for_norm": f"the crop to non-zero leaves {relative_size_after_crop(task.fingerprint.cases):.0%} of "
        f"the median image; below {CROP_MATTERS:.0%} z-scores are taken from non-zero voxels",
        "transpose_forward": "the coarsest axis comes first"
        if task.volumetric
        else "the axis of one voxel comes first",
        "resample_separate_z": _separate(configuration),
        "iterations": _iterations(task, configuration, ladder),
        "mirror_axes": _mirroring(task, ladder),
        "llm": _llm(task),
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


def _memory(task: Task, bought: Bought, most: bool) -> str:
    how = "measured" if bought.measured else "estimated"
    more = "more memory would not change the plan" if most else "the next larger plan does not fit"
    return f"{bought.memory / 1e9:.2f} GB ({how}) of a budget of {task.budget.memory / 1e9:.2f} GB; {more}"


def _normalisation(task: Task, configuration: Configuration) -> str:
    pairs = zip(task.fingerprint.channels, configuration.normalization_schemes, strict=True)
    return "by channel name: " + ", ".join(f"{channel.name} {scheme}" for channel, scheme in pairs)


def _separate(configuration: Configuration) -> str:
    finest = min(configuration.spacing[-configuration.dimensions :])
    ratio = max(configuration.spacing[-configuration.dimensions :]) / finest
    return f"coarsest over finest axis {ratio:.2g}, beyond {ANISOTROPY_FACTOR:g} slices are resampled apart"


def _iterations(task: Task, configuration: Configuration, ladder: Ladder) -> str:
    voxels = math.prod(configuration.median_image_size_in_voxels) * len(task.fingerprint.cases)
    return (
        f"{ladder.iterations} steps for an easy task, times {difficulty(voxels):.2g} "
        f"for {voxels / 1e6:.0f} million voxels in the dataset"
    )


def _llm(task: Task) -> str:
    if not task.llm.present:
        return "no LLM block was asked for"
    return f"{task.llm.source}, width {task.llm.hidden_size}: paid before the rest"


def _by(numbers: Iterable[float] | Sequence[int]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
