"""The plan in words: for each number its value and the rule that chose it, with the figures that went into it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mvl_auto.planners.candidates import Candidates
from mvl_auto.planners.cost.block import SMOLLM2
from mvl_auto.planners.normalisation import relative_size_after_crop
from mvl_auto.planners.presets import (
    BATCH_SHARE,
    CPU_COVERAGE,
    CROP_MATTERS,
    EASY_PATCHES,
    HARD_PATCHES,
    LOWRES_COVERAGE,
    SMALL,
    TRUNK_TOKENS,
)
from mvl_auto.planners.schedule import tells_sides_apart
from mvl_auto.planners.search import Rung
from mvl_auto.planners.selection import Bought
from mvl_auto.planners.spacing import ANISOTROPY_FACTOR, COARSE_AXIS_PERCENTILE, coarse_axis_of_cases, median_spacing
from mvl_auto.planners.task import Task
from mvl_auto.plans import BlockSizes, Configuration, ConfigurationName, Plan
from mvl_auto.text import duration_text, memory_text, percent_text, shape_text


def reasons(candidates: Candidates, configuration: Configuration, bought: Bought) -> dict[str, str]:
    """field -> why. Numbers by hand are said to be so, each by itself."""
    task, size = candidates.task, bought.rung.size
    told = {
        "spacing": _spacing(task, configuration),
        "patch_size": _patch(candidates, configuration, bought),
        "batch_size": _batch(candidates, configuration, bought),
        "token_size": _token(configuration),
        "strides": "the token size in steps of at most 2, finest first; all but the last are levels of the stem",
        "width": f"the {size.name} trunk's: {size.reason}",
        "depth": f"the {size.name} trunk's",
        "heads": _heads(candidates, configuration, bought),
        "stem_channels": f"the {size.name} trunk's {size.stem} at the finest level, twice as many at each coarser one",
        "memory": _memory(candidates, bought),
        "normalization_schemes": _normalisation(task, configuration),
        "use_mask_for_norm": f"the crop to non-zero leaves {relative_size_after_crop(task.fingerprint.cases):.0%} of "
        f"the median image; below {CROP_MATTERS:.0%} z-scores are taken from non-zero voxels",
        "transpose_forward": _order(task),
        "resample_separate_z": _separate(task, configuration),
        "iterations": _iterations(candidates, configuration, bought),
        "oversample_foreground_percent": "that share of a batch's patches is drawn around an object (nnU-Net)",
        "mirror_axes": _mirroring(candidates),
        "llm": _llm(task, bought.rung.block),
    }
    if configuration.previous_stage is not None:
        told["previous_stage"] = f"the prediction of {configuration.previous_stage} is extra input"
    told |= candidates.by_hand.reasons(configuration.dimensions)
    if candidates.by_hand != task.by_hand:
        told["patch_size"] += ", enlarged to whole tokens"
    return told


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


def why_recommended(task: Task, configurations: Mapping[ConfigurationName, Configuration]) -> str:
    """Why the recommended configuration is that one and none of the others."""
    if not task.volumetric:
        return "flat images have no other configuration"
    full = configurations["3d_fullres"]
    covers = f"its patch covers {_share(full)} of the median image"
    if task.budget.device != "cpu":
        return f"the full resolution, on a GPU: {covers}"
    if "3d_lowres" not in configurations:
        return f"the full resolution: {covers}, and there is no lower one"
    limit = f"below {CPU_COVERAGE:.0%} the low resolution is recommended on a CPU"
    if math.prod(full.patch_size) / math.prod(full.median_image_size_in_voxels) < CPU_COVERAGE:
        return f"of 3d_fullres {covers}: {limit}"
    return f"the full resolution: {covers}; {limit}"


# ------------------------------------------------------------------------------------------ resolution


def _spacing(task: Task, configuration: Configuration) -> str:
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
    finer = task.spacing[where] <= max(mm for other, mm in enumerate(task.spacing) if other != where)
    chosen = "but not finer than the others" if finer else f"{task.spacing[where]:g} mm"
    return (
        f"{rule}; but axis {where}, whose median of {median_spacing(spacings)[axis]:g} mm is more than "
        f"{ANISOTROPY_FACTOR:g} times coarser than the others at less than a third of their voxels, has the "
        f"{COARSE_AXIS_PERCENTILE}th percentile: {chosen}"
    )


def _order(task: Task) -> str:
    first = task.order[0]
    if not task.volumetric:
        return f"axis {first} has one voxel: it comes first"
    if min(task.spacing) == max(task.spacing):
        return "all axes are equally coarse: they stay as they are"
    return f"axis {first} is the coarsest, {task.spacing[0]:g} mm: it comes first, slices of 2d lie across it"


def _separate(task: Task, configuration: Configuration) -> str:
    if configuration.dimensions == 2:
        return "slices are resampled in plane alone"
    cases = task.fingerprint.cases
    coarse = sum(max(case.spacing) > ANISOTROPY_FACTOR * min(case.spacing) for case in cases)
    own = max(configuration.spacing) / min(configuration.spacing)
    return (
        f"an axis more than {ANISOTROPY_FACTOR:g} times as coarse as the finest is resampled apart, in a case "
        f"({coarse} of {len(cases)} have one) or else in the target (there {own:.3g} times)"
    )


def _normalisation(task: Task, configuration: Configuration) -> str:
    pairs = zip(task.fingerprint.channels, configuration.normalization_schemes, strict=True)
    return "by channel name: " + ", ".join(f"{channel.name} {scheme}" for channel, scheme in pairs)


# ------------------------------------------------------------------------------------ what was searched for


def _above(candidates: Candidates, rung: Rung) -> Rung | None:
    """The next larger candidate, if any."""
    position = candidates.rungs.index(rung) + 1
    return candidates.rungs[position] if position < len(candidates.rungs) else None


def _growth(below: Rung, above: Rung) -> str:
    """What the next larger candidate has more of."""
    if above.patch_size != below.patch_size:
        return f"patch {shape_text(above.patch_size)}"
    if above.batch_size != below.batch_size:
        return f"batch {above.batch_size}"
    if above.size != below.size:
        return f"the {above.size.name} trunk"
    return f"a block of width {above.block.hidden_size if above.block else 0}"


def _why_no_more(candidates: Candidates, bought: Bought) -> str:
    """What ends the way up the ladder."""
    above = _above(candidates, bought.rung)
    if above is None:
        return "nothing larger would be planned"
    growth = _growth(bought.rung, above)
    return {
        "ladder": f"{growth} would be next, but it is no larger than 3d_fullres",
        "memory": f"{growth} would be next and does not fit",
        "time": f"{growth} would be next, and of it a step takes too long",
    }[bought.ends]


def _patch(candidates: Candidates, configuration: Configuration, bought: Bought) -> str:
    median = configuration.median_image_size_in_voxels[-configuration.dimensions :]
    whole = all(patch >= voxels for patch, voxels in zip(configuration.patch_size, median, strict=True))
    share = "the whole" if whole else f"{_share(configuration)} of the"
    covers = f"covers {share} median image ({shape_text(median)} voxels)"
    if whole:
        return f"{covers}, in multiples of the token size"
    if configuration.patch_size == candidates.largest_patch:
        return f"{covers}, in multiples of the token size: the largest that is planned"
    return f"{covers}, in multiples of the token size; {_after(candidates, bought, 'patch')}"


def _batch(candidates: Candidates, configuration: Configuration, bought: Bought) -> str:
    voxels = math.prod(configuration.patch_size)
    step = f"{voxels * configuration.batch_size} voxels a step"
    dataset = math.prod(candidates.shape) * len(candidates.task.fingerprint.cases)
    if (configuration.batch_size + 1) * voxels > BATCH_SHARE * dataset:
        return f"{step}; one patch more would hold more than {BATCH_SHARE:.0%} of the dataset's voxels"
    return f"{step}; {_after(candidates, bought, 'batch')}"


def _after(candidates: Candidates, bought: Bought, what: str) -> str:
    """Why a patch or a batch is not larger: what comes next on the ladder, or that nothing does."""
    above = _above(candidates, bought.rung)
    if above is not None:
        return f"{_why_no_more(candidates, bought)}: {candidates.ladder.reason}"
    cap = candidates.ladder.voxels_per_step
    if cap is None or candidates.task.budget.seconds is not None:
        return f"no larger {what} is planned"
    return f"no larger {what} is planned without a time: {candidates.ladder.reason}"


def _token(configuration: Configuration) -> str:
    return (
        f"axes are halved together once their spacings ({shape_text(configuration.network.spacing)} mm) are within a "
        "factor of 2, while two tokens at least remain along each"
    )


def _heads(candidates: Candidates, configuration: Configuration, bought: Bought) -> str:
    network = configuration.network
    wide = f"{network.width // network.heads} channels each"
    if candidates.by_hand.width is None:
        return f"the {bought.rung.size.name} trunk's: {wide}"
    return f"{wide}: about as many as in the {bought.rung.size.name} trunk, dividing the width"


def _memory(candidates: Candidates, bought: Bought) -> str:
    how = "measured" if bought.measured else "estimated"
    budget = f"of a budget of {memory_text(candidates.task.budget.memory)}"
    few = ""
    if bought.rung.size == SMALL and candidates.few_tokens:
        few = f"; with fewer than {TRUNK_TOKENS} tokens in an image no trunk beyond the small one is planned"
    return f"{memory_text(bought.memory)} ({how}) {budget}; {_why_no_more(candidates, bought)}{few}"


def _llm(task: Task, block: BlockSizes | None) -> str:
    if block is None:
        return "no LLM block was asked for"
    if task.llm.source != SMOLLM2.source:
        known = "" if task.blocks_known else ", a width that is assumed until the block has been fetched"
        return f"{block.source} as asked for, width {block.hidden_size}{known}: paid before the rest"
    if block != task.blocks[0]:
        best = "widest" if block == task.blocks[-1] else "widest that is paid for"
        return (
            f"{block.source}, layer {block.layer}, width {block.hidden_size}: the {best} pretrained block of the bank, "
            "after patch, trunk and batch"
        )
    wider = len(task.blocks) - 1
    if task.budget.device == "cpu":
        rest = "a CPU's time is for the trunk"
    elif wider:
        rest = f"the bank's {wider} wider would come after patch, trunk and batch, where the budget ends before"
    else:
        rest = "the bank holds no wider one"
    return f"SmolLM2-135M's, width {block.hidden_size}: paid before the rest; {rest}"


# ------------------------------------------------------------------------------------------ how to train


def _iterations(candidates: Candidates, configuration: Configuration, bought: Bought) -> str:
    budget, ladder, hard = candidates.task.budget, candidates.ladder, candidates.task.hard
    rare = ""
    if hard.object_share is not None:
        rare = f", its smallest class in objects of {percent_text(hard.object_share)} of it"
    times = (
        f"times {hard.degree:.3g}: an image has {hard.patches:.3g} patches of 128^3 voxels{rare} "
        f"(easy up to {EASY_PATCHES:g} patches, hard from {HARD_PATCHES:g}"
        f"{f'; counted {hard.rarity:.3g} times, as the objects are rare' if hard.rarity > 1 else ''})"
    )
    if budget.seconds is None or bought.step_seconds is None:
        return f"{ladder.iterations} steps for an easy task, {times}"
    per_step = f"about {budget.seconds / configuration.steps:.2g} s a step"
    bought_here = f"what {duration_text(budget.seconds)} buy at {per_step}, measured here"
    whole = bought.rung.whole_schedule
    least = f"{ladder.iterations if whole else ladder.least_iterations} steps for an easy task, {times}"
    if budget.seconds / bought.step_seconds < candidates.least_steps(bought.rung):
        return f"{bought_here}: too few, at least {least} are needed; the smallest network is all that can be done"
    return f"{bought_here}; a network of this size must leave time for {least}"


def _mirroring(candidates: Candidates) -> str:
    if not candidates.task.volumetric:
        return "all axes: flat images have no head and foot"
    sided = tells_sides_apart(candidates.task.fingerprint.labels)
    if candidates.ladder.mirror == "right_left":
        axes = "no axis: labels tell left from right," if sided else "left to right only:"
        return f"{axes} a short training has no steps to spare for bodies that do not occur"
    return "labels tell left from right: that axis is not mirrored" if sided else "all axes: none tells left from right"


# ---------------------------------------------------------------------------------------------- figures


def _share(configuration: Configuration) -> str:
    """Of the median image that a patch covers."""
    median = configuration.median_image_size_in_voxels[-configuration.dimensions :]
    return percent_text(math.prod(configuration.patch_size) / math.prod(median))
