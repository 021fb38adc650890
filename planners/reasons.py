"""The plan in words: for each number its value, and the rule that chose it with the figures that went into it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mvl_auto.images.spacing import ANISOTROPY_FACTOR
from mvl_auto.planners.cost.block import SMOLLM2
from mvl_auto.planners.normalization import relative_size_after_crop
from mvl_auto.planners.presets import (
    BATCH_SHARE,
    CPU_COVERAGE,
    CROP_MATTERS,
    EASY_PATCHES,
    HARD_PATCHES,
    HEAD_CHANNELS,
    LOWRES_COVERAGE,
    MANY_LABELS,
    SMALL,
    TRUNK_TOKENS,
)
from mvl_auto.planners.schedule import tells_sides_apart
from mvl_auto.planners.search import Candidate
from mvl_auto.planners.search_space import SearchSpace
from mvl_auto.planners.selection import Selection
from mvl_auto.planners.spacing import COARSE_AXIS_PERCENTILE, coarse_axis_of_cases, median_spacing
from mvl_auto.planners.task import Task
from mvl_auto.plans import BlockSizes, Configuration, ConfigurationName, Plan
from mvl_auto.text import duration_text, memory_text, percent_text, shape_text


def explain(space: SearchSpace, configuration: Configuration, selection: Selection) -> dict[str, str]:
    """field -> why. Overridden values are named as such, each by itself."""
    task, trunk = space.task, selection.candidate.trunk
    reasons = {
        "spacing": _explain_spacing(task, configuration),
        "patch_size": _explain_patch(space, configuration, selection),
        "batch_size": _explain_batch(space, configuration, selection),
        "token_size": _explain_token(configuration),
        "strides": "the token size in steps of at most 2, finest first; all but the last are levels of the stem",
        "width": f"of the {trunk.name} trunk: {trunk.reason}",
        "depth": f"of the {trunk.name} trunk",
        "heads": _explain_heads(configuration),
        "stem_channels": f"of the {trunk.name} trunk, {trunk.stem} at the finest level, twice as many at each coarser "
        "one; multiples of 16 fill the processor's vectors",
        "memory": _explain_memory(space, selection),
        "normalization_schemes": _explain_normalization(task, configuration),
        "use_mask_for_norm": f"the crop to non-zero leaves {relative_size_after_crop(task.fingerprint.cases):.0%} of "
        f"the median image; below {CROP_MATTERS:.0%} z-scores are computed from non-zero voxels alone",
        "transpose_forward": _explain_order(task),
        "resample_separate_z": _explain_separate_z(task, configuration),
        "iterations": _explain_steps(space, configuration, selection),
        "oversample_foreground_percent": "share of a batch's patches that are drawn around a labelled voxel (nnU-Net)",
        "mirror_axes": _explain_mirroring(space),
        "llm": _explain_block(task, selection.candidate.block),
    }
    if configuration.previous_stage is not None:
        reasons["previous_stage"] = f"the prediction of {configuration.previous_stage} is extra input"
    reasons |= space.overrides.reasons(configuration.dimensions)
    if space.overrides != task.overrides:
        reasons["patch_size"] += ", enlarged to whole tokens"
    return reasons


def values(plan: Plan, configuration: Configuration) -> dict[str, str]:
    """field -> its value, for the fields that have a reason."""
    network = configuration.network
    of_plan = {
        "transpose_forward": shape_text(plan.transpose_forward, " "),
        "memory": memory_text(plan.memory_budget),
        "recommended": plan.recommended,
    }
    of_network = {
        "token_size": shape_text(network.token_size),
        "strides": ", ".join(shape_text(stride) for stride in (*network.stem_strides, network.token_stride)),
        "width": str(network.width),
        "depth": str(network.depth),
        "heads": str(network.heads),
        "stem_channels": shape_text(network.stem_channels, " "),
        "llm": network.llm.source,
    }
    own = {
        "spacing": f"{shape_text(configuration.spacing[-configuration.dimensions :])} mm",
        "patch_size": shape_text(configuration.patch_size),
        "batch_size": str(configuration.batch_size),
        "batch_dice": "yes" if configuration.batch_dice else "no",
        "normalization_schemes": ", ".join(dict.fromkeys(configuration.normalization_schemes)),
        "use_mask_for_norm": "yes" if any(configuration.use_mask_for_norm) else "no",
        "resample_separate_z": "yes" if configuration.resample_separate_z else "no",
        "iterations": str(configuration.steps),
        "oversample_foreground_percent": f"{configuration.oversample_foreground_percent:g}",
        "mirror_axes": shape_text(configuration.mirror_axes, " ") or "none",
        "previous_stage": configuration.previous_stage or "none",
    }
    known = of_plan | of_network | own
    return {field: known[field] for field in configuration.reasons}


def explain_recommendation(task: Task, configurations: Mapping[ConfigurationName, Configuration]) -> str:
    """Why this configuration is recommended and none of the others."""
    if not task.volumetric:
        return "the only configuration for 2D images"
    full = configurations["3d_fullres"]
    covers = f"a patch of 3d_fullres covers {_share(full)} of the median image"
    if task.budget.device != "cpu":
        return f"the full resolution, on a GPU always; {covers}"
    if "3d_lowres" not in configurations:
        return f"the full resolution; {covers}, and no lower resolution is planned"
    limit = f"below {CPU_COVERAGE:.0%} a CPU is recommended the low resolution"
    if math.prod(full.patch_size) / math.prod(full.median_image_size_in_voxels) < CPU_COVERAGE:
        return f"the low resolution; {covers}, and {limit}"
    return f"the full resolution; {covers}, and only {limit}"


def explain_batch_dice(configuration: Configuration, labels: int, beside_lowres: bool) -> str:
    """Over what the Dice loss is taken. labels: foreground labels, or regions, of the dataset."""
    if configuration.dimensions == 2:
        return "Dice over all patches of a batch: a slice shows little of the image (nnU-Net)"
    if beside_lowres and configuration.name != "3d_lowres":
        return "Dice over all patches of a batch: beside 3d_lowres a patch shows little of the image (nnU-Net)"
    if labels >= MANY_LABELS:
        return f"Dice over all patches of a batch: of {labels} labels a patch shows few; from {MANY_LABELS} labels on"
    return f"Dice of each patch by itself: a 3D patch shows much of the image, of fewer than {MANY_LABELS} labels"


# ------------------------------------------------------------------------------------------ resolution


def _explain_spacing(task: Task, configuration: Configuration) -> str:
    if configuration.name == "3d_lowres":
        return (
            f"coarsened from {shape_text(task.spacing)} mm by 3 % at a time until a patch covers "
            f"{LOWRES_COVERAGE:.0%} of the median image: it covers {_share(configuration)}"
        )
    cases = task.fingerprint.cases
    spacings, shapes = [case.spacing for case in cases], [case.shape_after_crop for case in cases]
    rule = f"median of {len(cases)} cases"
    axis = coarse_axis_of_cases(spacings, shapes)
    if axis is None:
        return rule
    where = task.order.index(axis)
    if where == 0 and configuration.dimensions == 2:
        return rule
    no_finer = task.spacing[where] <= max(mm for other, mm in enumerate(task.spacing) if other != where)
    chosen = "but not finer than the others" if no_finer else f"{task.spacing[where]:g} mm"
    return (
        f"{rule}; on axis {where} the {COARSE_AXIS_PERCENTILE}th percentile: {chosen}, as its median of "
        f"{median_spacing(spacings)[axis]:g} mm is more than {ANISOTROPY_FACTOR:g} times coarser than the others, with "
        "less than a third of their voxels"
    )


def _explain_order(task: Task) -> str:
    first = task.order[0]
    if not task.volumetric:
        return f"axis {first} comes first: it has one voxel"
    if min(task.spacing) == max(task.spacing):
        return "unchanged: all axes are equally coarse"
    return f"axis {first} comes first: it is the coarsest, {task.spacing[0]:g} mm, and 2d cuts slices across it"


def _explain_separate_z(task: Task, configuration: Configuration) -> str:
    if configuration.dimensions == 2:
        return "each slice is resampled by itself"
    cases = task.fingerprint.cases
    coarse = sum(max(case.spacing) > ANISOTROPY_FACTOR * min(case.spacing) for case in cases)
    own = max(configuration.spacing) / min(configuration.spacing)
    return (
        f"an axis more than {ANISOTROPY_FACTOR:g} times as coarse as the finest is resampled separately: that of the "
        f"case ({coarse} of {len(cases)} have one), else that of the target ({own:.3g} times)"
    )


def _explain_normalization(task: Task, configuration: Configuration) -> str:
    pairs = zip(task.fingerprint.channels, configuration.normalization_schemes, strict=True)
    return "by channel name: " + ", ".join(f"{channel.name} {scheme}" for channel, scheme in pairs)


# ------------------------------------------------------------------------------------ what was searched for


def _next_larger(space: SearchSpace, candidate: Candidate) -> Candidate | None:
    position = space.candidates.index(candidate) + 1
    return space.candidates[position] if position < len(space.candidates) else None


def _name_growth(smaller: Candidate, larger: Candidate) -> str:
    """What the next larger candidate has more of."""
    if larger.patch_size != smaller.patch_size:
        return f"patch {shape_text(larger.patch_size)}"
    if larger.batch_size != smaller.batch_size:
        return f"batch {larger.batch_size}"
    if larger.trunk != smaller.trunk:
        return f"the {larger.trunk.name} trunk"
    return f"a block of width {larger.block.hidden_size if larger.block else 0}"


def _explain_limit(space: SearchSpace, selection: Selection) -> str:
    """Why the next larger candidate is not selected."""
    larger = _next_larger(space, selection.candidate)
    if larger is None:
        return "no larger network is considered"
    growth = _name_growth(selection.candidate, larger)
    return {
        "candidates": f"next would be {growth}, but the cascade is no larger than 3d_fullres",
        "memory": f"next would be {growth}, which needs too much memory",
        "time": f"next would be {growth}, whose steps take too long",
    }[selection.limited_by]


def _explain_patch(space: SearchSpace, configuration: Configuration, selection: Selection) -> str:
    median = configuration.median_image_size_in_voxels[-configuration.dimensions :]
    whole = all(patch == voxels for patch, voxels in zip(configuration.patch_size, median, strict=True))
    share = "all" if whole else _share(configuration)
    covers = f"covers {share} of the median image ({shape_text(median)} voxels)"
    if configuration.patch_size == space.largest_patch:
        rounded = "" if whole else ", rounded down to whole tokens as padding costs time"
        return f"{covers}{rounded}: the largest that is considered"
    return f"{covers}, in whole tokens; {_explain_end(space, selection, 'patch')}"


def _explain_batch(space: SearchSpace, configuration: Configuration, selection: Selection) -> str:
    voxels = math.prod(configuration.patch_size)
    per_step = f"{voxels * configuration.batch_size} voxels a step"
    dataset = math.prod(space.shape) * len(space.task.fingerprint.cases)
    if (configuration.batch_size + 1) * voxels > BATCH_SHARE * dataset:
        return f"{per_step}; one patch more would be over {BATCH_SHARE:.0%} of the dataset's voxels"
    return f"{per_step}; {_explain_end(space, selection, 'batch')}"


def _explain_end(space: SearchSpace, selection: Selection, what: str) -> str:
    """Why a patch or a batch is not larger: what would be next, or that nothing would."""
    if _next_larger(space, selection.candidate) is not None:
        return f"{_explain_limit(space, selection)}: {space.order.reason}"
    if space.order.voxels_per_step is None or space.task.budget.seconds is not None:
        return f"no larger {what} is considered"
    return f"no larger {what} is considered without a time budget: {space.order.reason}"


def _explain_token(configuration: Configuration) -> str:
    return (
        f"axes are halved together once their spacings ({shape_text(configuration.network.spacing)} mm) are within a "
        "factor of 2, while two tokens at least remain along each"
    )


def _explain_heads(configuration: Configuration) -> str:
    network = configuration.network
    return f"{network.width // network.heads} channels each: {HEAD_CHANNELS} where that divides the width"


def _explain_memory(space: SearchSpace, selection: Selection) -> str:
    how = "measured" if selection.measured else "estimated"
    budget = f"of a budget of {memory_text(space.task.budget.memory)}"
    few = ""
    if selection.candidate.trunk == SMALL and space.few_tokens:
        few = f"; an image of fewer than {TRUNK_TOKENS} tokens gets no trunk beyond the small one"
    return f"{memory_text(selection.memory)} ({how}) {budget}; {_explain_limit(space, selection)}{few}"


def _explain_block(task: Task, block: BlockSizes | None) -> str:
    if block is None:
        return "no LLM block was asked for"
    first = "in every candidate, before anything else grows"
    size = f"width {block.hidden_size}" if block.layers == 1 else f"{block.layers} layers of width {block.hidden_size}"
    if task.llm.source != SMOLLM2.source:
        assumed = "" if task.blocks_known else " (assumed until the block has been fetched)"
        return f"{block.source} as asked for, {size}{assumed}: {first}"
    if block != task.blocks[0]:
        which = "widest" if block == task.blocks[-1] else "widest that fits the budget"
        return (
            f"{block.source}, layer {block.layer}, {size}: the {which} of the bank's pretrained "
            "blocks; wider blocks are tried after patch, trunk and batch"
        )
    wider = len(task.blocks) - 1
    if task.budget.device == "cpu":
        rest = "a CPU's time is left to the trunk"
    elif wider:
        rest = f"the bank's {wider} wider would come after patch, trunk and batch, and do not fit the budget"
    else:
        rest = "the bank holds no wider one"
    return f"SmolLM2-135M's, {size}: {first}; {rest}"


# ------------------------------------------------------------------------------------------ how to train


def _explain_steps(space: SearchSpace, configuration: Configuration, selection: Selection) -> str:
    budget, order, difficulty = space.task.budget, space.order, space.task.difficulty
    rare = ""
    if difficulty.object_share is not None:
        rare = f", objects of its smallest class {percent_text(difficulty.object_share)} of it"
    counted = f"; counted {difficulty.rarity:.3g} times, as objects are rare" if difficulty.rarity > 1 else ""
    times = (
        f"times {difficulty.degree:.3g} for difficulty: an image has {difficulty.patches:.3g} patches of 128^3 "
        f"voxels{rare} (easy up to {EASY_PATCHES:g} patches, hard from {HARD_PATCHES:g}{counted})"
    )
    if budget.seconds is None or selection.step_seconds is None:
        return f"{order.steps} steps of an easy task {times}"
    per_step = f"about {budget.seconds / configuration.steps:.2g} s a step"
    fitting = f"what fits into {duration_text(budget.seconds)} at {per_step}, measured here"
    whole = selection.candidate.whole_schedule
    least = f"{order.steps if whole else order.min_steps} steps of an easy task {times}"
    if budget.seconds / selection.step_seconds < space.min_steps(selection.candidate):
        return f"{fitting}: too few, at least {least} are needed; even the smallest network is too slow for more"
    return f"{fitting}; a network of this size needs time for at least {least}"


def _explain_mirroring(space: SearchSpace) -> str:
    if not space.task.volumetric:
        return "all axes: 2D images have no head and foot"
    sided = tells_sides_apart(space.task.fingerprint.labels)
    if space.order.mirror == "right_left":
        axes = "no axis, as labels tell left from right;" if sided else "left to right only;"
        return f"{axes} bodies upside down do not occur, and a short training gains nothing from them"
    return "not left to right, as labels tell the sides apart" if sided else "all axes: no label tells left from right"


# ---------------------------------------------------------------------------------------------- figures


def _share(configuration: Configuration) -> str:
    """Of the median image that a patch covers."""
    median = configuration.median_image_size_in_voxels[-configuration.dimensions :]
    return percent_text(math.prod(configuration.patch_size) / math.prod(median))
