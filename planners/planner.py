"""From what a dataset is to what shall be done with it: `plan(fingerprint, budget) -> Plan`.

Deterministic: no disk, no clock, the same bytes for the same dataset and budget. The speed of a device, where there is
a budget of time, is asked of a function that the caller gives. Each number is chosen by a rule that the plan tells in
words (Configuration.reasons); docs/planner.md has the rules with their sources.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from mvl_auto.planners.block import Block, eligible
from mvl_auto.planners.budget import Budget
from mvl_auto.planners.by_hand import ByHand, fixed, in_whole_tokens
from mvl_auto.planners.cost import Bought, Network, StepSeconds, TooLittleMemory, buy
from mvl_auto.planners.normalisation import normalization_schemes, use_mask_for_norm
from mvl_auto.planners.presets import (
    BATCH_SHARE,
    CPU_COVERAGE,
    LADDERS,
    LOWRES_COVERAGE,
    LOWRES_WORTH,
    OVERSAMPLE_FOREGROUND,
)
from mvl_auto.planners.reasons import reasons
from mvl_auto.planners.schedule import iterations, iterations_in, least_iterations, mirror_axes
from mvl_auto.planners.search import Rung, patches, rungs, stages
from mvl_auto.planners.spacing import (
    DIGITS,
    coarser,
    median_resampled_shape,
    separate_axis,
    target_spacing,
    transpose_forward,
)
from mvl_auto.planners.task import Task
from mvl_auto.plans import (
    Configuration,
    ConfigurationName,
    Fingerprint,
    LlmSettings,
    NetworkSettings,
    Plan,
    Shape,
    Vector,
)

DEFAULT_LLM = LlmSettings()
NOTHING_BY_HAND = ByHand()

log = logging.getLogger(__name__)


def plan(
    fingerprint: Fingerprint,
    budget: Budget,
    llm: LlmSettings = DEFAULT_LLM,
    by_hand: ByHand = NOTHING_BY_HAND,
    blocks: Sequence[Block] = (),
    step_seconds: StepSeconds | None = None,
) -> Plan:
    """All configurations that make sense for a dataset, as large as the budget pays for.

    llm: the frozen block. blocks: what the caller knows of it; for `auto`, of those in the bank. by_hand: numbers that
    are not to be chosen. step_seconds: how fast the device is, for a budget of time (planners.timing).
    Raises MvlError for a budget that pays for no network, naming the least that would, and for numbers by hand that
    make no sense for the dataset.
    """
    task = understand(fingerprint, budget, llm, by_hand, blocks)
    by_hand.check(budget, task.volumetric)
    configurations: dict[ConfigurationName, Configuration] = {}
    recommended: ConfigurationName = "2d"
    if task.volumetric:
        recommended = "3d_fullres"
        full, rung = _configure(task, "3d_fullres", task.spacing, step_seconds)
        configurations["3d_fullres"] = full
        if (low := _lowres(task, full, step_seconds)) is not None:
            configurations["3d_lowres"] = low
            with _left_out("3d_cascade_fullres"):
                configurations["3d_cascade_fullres"], _ = _configure(
                    task, "3d_cascade_fullres", task.spacing, step_seconds, previous="3d_lowres", at_most=rung
                )
            if budget.device == "cpu" and coverage(full.patch_size, task.shape) < CPU_COVERAGE:
                recommended = "3d_lowres"
    with _left_out("2d") if configurations else nullcontext():
        configurations["2d"], _ = _configure(task, "2d", task.spacing, step_seconds)
    return Plan(
        dataset=fingerprint.dataset,
        fingerprint_hash=fingerprint.hash,
        channels=fingerprint.channels,
        labels=fingerprint.labels,
        file_ending=fingerprint.file_ending,
        transpose_forward=task.order,
        foreground_intensity_properties_per_channel=fingerprint.foreground_intensity_properties_per_channel,
        memory_budget=budget.memory,
        time_budget=budget.seconds,
        configurations=configurations,
        recommended=recommended,
    )


@contextmanager
def _left_out(name: ConfigurationName) -> Iterator[None]:
    """What the memory does not pay for is left out of a plan that has another configuration."""
    try:
        yield
    except TooLittleMemory as error:
        log.warning("%s is not planned: %s", name, error.what)


def understand(
    fingerprint: Fingerprint,
    budget: Budget,
    llm: LlmSettings = DEFAULT_LLM,
    by_hand: ByHand = NOTHING_BY_HAND,
    blocks: Sequence[Block] = (),
) -> Task:
    """Target spacing, median size, order of axes, eligible blocks: what all configurations share."""
    shapes = [case.size_after_crop for case in fingerprint.cases]
    spacings = [case.spacing for case in fingerprint.cases]
    spacing = target_spacing(spacings, shapes)
    shape = median_resampled_shape(shapes, spacings, spacing)
    order = transpose_forward(spacing, shape)
    return Task(
        fingerprint=fingerprint,
        budget=budget,
        llm=llm,
        blocks=eligible(llm, blocks),
        blocks_known=bool(blocks) or llm.hidden_size is not None,
        by_hand=by_hand,
        order=order,
        spacing=tuple(spacing[axis] for axis in order),
        shape=tuple(shape[axis] for axis in order),
    )


def coverage(patch_size: Shape, shape: Vector) -> float:
    """Share of the median image that a patch covers."""
    return math.prod(patch_size) / math.prod(shape)


def lowres_spacing(spacing: Vector, shape: Vector, patch_size: Shape, start: Vector | None = None) -> Vector:
    """The spacing at which a patch covers a quarter of the median image, coarsened from `start` (or the full one).

    spacing, shape: of the full resolution.
    """
    low = start or spacing
    voxels = math.prod(shape) * math.prod(spacing)
    while math.prod(patch_size) / (voxels / math.prod(low)) < LOWRES_COVERAGE:
        low = coarser(low)
    return low


def shape_at(spacing: Vector, full_spacing: Vector, full_shape: Vector) -> Vector:
    """Median size at another spacing than the full one, in voxels."""
    return tuple(
        float(max(1, round(n * full / mm))) for n, full, mm in zip(full_shape, full_spacing, spacing, strict=True)
    )


def _lowres(task: Task, full: Configuration, step_seconds: StepSeconds | None) -> Configuration | None:
    """3d_lowres; None where the full resolution's patch covers enough, or the low one would not be much smaller."""
    spacing = lowres_spacing(task.spacing, task.shape, full.patch_size)
    while math.prod(spacing) / math.prod(task.spacing) >= LOWRES_WORTH:
        low, _ = _configure(task, "3d_lowres", tuple(round(mm, DIGITS) for mm in spacing), step_seconds)
        coarse = lowres_spacing(task.spacing, task.shape, low.patch_size, start=spacing)
        if coarse == spacing:
            return low
        spacing = coarse  # its own patch is smaller than the full resolution's
    return None


def _configure(
    task: Task,
    name: ConfigurationName,
    spacing: Vector,
    step_seconds: StepSeconds | None,
    previous: ConfigurationName | None = None,
    at_most: Rung | None = None,
) -> tuple[Configuration, Rung]:
    """One configuration at `spacing` (three axes, transposed; 2d leaves out the first), no larger than `at_most`.

    previous: the configuration whose prediction is extra input, one channel for each label.
    """
    first = 1 if name == "2d" else 0
    labels, cases = task.fingerprint.labels, task.fingerprint.cases
    shape = shape_at(spacing, task.spacing, task.shape) if spacing != task.spacing else task.shape
    schemes = normalization_schemes(
        task.fingerprint.channels, task.fingerprint.foreground_intensity_properties_per_channel
    )
    channels = len(task.fingerprint.channels) + (len(labels.foreground_names) if previous else 0)
    strides = stages(spacing[first:], shape[first:])
    token = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
    ladder = LADDERS[task.budget.device, len(token)]
    dataset_voxels = math.prod(shape) * len(cases)

    def settings(rung: Rung) -> NetworkSettings:
        return NetworkSettings(
            spacing=spacing[first:],
            stem_channels=tuple(rung.size.stem * 2**level for level in range(len(strides) - 1)),
            stem_strides=strides[:-1],
            token_stride=strides[-1],
            width=rung.size.width,
            depth=rung.size.depth,
            heads=rung.size.heads,
            llm=_llm(task.llm, rung.block),
        )

    ours = rungs(ladder, patches(spacing[first:], shape[first:], token), BATCH_SHARE * dataset_voxels, task.blocks)
    by_hand = task.by_hand if name != "3d_lowres" else in_whole_tokens(task.by_hand, token)
    candidates = fixed(ours, by_hand, token)
    affordable = candidates if at_most is None else candidates[: candidates.index(at_most) + 1]
    network = Network(settings, channels, labels.num_outputs)
    bought = buy(affordable, network, task.budget, least_iterations(dataset_voxels, ladder), step_seconds, name)
    chosen = bought.rung
    configuration = Configuration(
        name=name,
        spacing=spacing,
        median_image_size_in_voxels=shape,
        patch_size=chosen.patch_size,
        batch_size=chosen.batch_size,
        normalization_schemes=schemes,
        use_mask_for_norm=use_mask_for_norm(schemes, cases),
        resample_separate_z=first == 0 and separate_axis(spacing) is not None,
        network=settings(chosen),
        iterations=by_hand.iterations or _iterations(task, bought, iterations(dataset_voxels, ladder)),
        oversample_foreground_percent=OVERSAMPLE_FOREGROUND,
        mirror_axes=mirror_axes(labels, task.order[first:], task.volumetric, ladder),
        previous_stage=previous,
    )
    why = reasons(task, configuration, ladder, bought) | by_hand.reasons(len(token))
    if by_hand != task.by_hand:
        why["patch_size"] += ", enlarged to whole tokens"
    return configuration.model_copy(update={"reasons": why}), chosen


def _iterations(task: Task, bought: Bought, wanted: int) -> int:
    """What the time buys, where it is given: then the schedule ends when the time does; else what the task wants."""
    if task.budget.seconds is None or bought.step_seconds is None:
        return wanted
    return iterations_in(task.budget.seconds, bought.step_seconds)


def _llm(llm: LlmSettings, block: Block | None) -> LlmSettings:
    if block is None:
        return llm
    return llm.model_copy(update={"source": block.source, "layer": block.layer, "hidden_size": block.hidden_size})
