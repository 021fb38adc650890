"""From the fingerprint of a dataset to its plan: `plan(fingerprint, budget) -> Plan`.

Deterministic: no disk, no clock, the same bytes for the same dataset and budget. Where there is a time budget, the
caller gives a function that times a training step. Each number is chosen by a rule that the plan states in words
(Configuration.reasons); docs/planner.md has the rules with their sources.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache

from mvl_auto.images.spacing import round_spacing
from mvl_auto.planners.budget import Budget
from mvl_auto.planners.cost.measure import StepMemory, StepSeconds, measure_with
from mvl_auto.planners.normalization import normalization_schemes, use_mask_for_norm
from mvl_auto.planners.overrides import Overrides
from mvl_auto.planners.presets import CPU_COVERAGE, LOWRES_COVERAGE, LOWRES_WORTH, MANY_LABELS, OVERSAMPLE_FOREGROUND
from mvl_auto.planners.reasons import explain, explain_batch_dice, explain_recommendation
from mvl_auto.planners.schedule import choose_steps, mirror_axes, steps_in
from mvl_auto.planners.search import Candidate
from mvl_auto.planners.search_space import SearchSpace, build_search_space
from mvl_auto.planners.selection import Selection, TooLittleMemory
from mvl_auto.planners.spacing import coarsened
from mvl_auto.planners.task import Task, describe_task
from mvl_auto.plans import (
    PLANNED_TOKENS,
    BlockSizes,
    Configuration,
    ConfigurationName,
    Fingerprint,
    LlmSettings,
    Plan,
    Shape,
    Vector,
)

DEFAULT_LLM = LlmSettings(tokens=PLANNED_TOKENS)
NO_OVERRIDES = Overrides()
Configurations = dict[ConfigurationName, Configuration]

log = logging.getLogger(__name__)


def plan(
    fingerprint: Fingerprint,
    budget: Budget,
    llm: LlmSettings = DEFAULT_LLM,
    overrides: Overrides = NO_OVERRIDES,
    blocks: Sequence[BlockSizes] = (),
    step_seconds: StepSeconds | None = None,
    step_memory: StepMemory | None = None,
) -> Plan:
    """All useful configurations of a dataset, each as large as the budget allows.

    llm: the frozen block. overrides: values that the user chose. blocks: for `auto` the blocks in the bank, else what
    is known of the one in `llm`. step_seconds: times a training step, for a time budget (planners.time_step).
    step_memory: bytes of the tensors of a training step; None: measured on the network.
    Raises MvlError for a budget that is too small for any network, naming the least that would do, and for overrides
    that make no sense for the dataset.
    """
    task = describe_task(fingerprint, budget, llm, overrides, blocks, measure_with(step_memory, step_seconds))
    overrides.check(budget, task.volumetric)
    configurations = _plan_volumes(task) if task.volumetric else {}
    with _left_out("2d") if configurations else nullcontext():
        configurations["2d"], _ = _configure(build_search_space(task, "2d", task.spacing))
    recommended = _recommend(task, configurations)
    configurations = {
        name: _with_batch_dice(task, configuration, "3d_lowres" in configurations)
        for name, configuration in configurations.items()
    }
    best = configurations[recommended]
    why = best.reasons | {"recommended": explain_recommendation(task, configurations)}
    configurations[recommended] = best.model_copy(update={"reasons": why})
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


def coverage(patch_size: Shape, shape: Vector) -> float:
    """Share of the median image that a patch covers."""
    return math.prod(patch_size) / math.prod(shape)


def _plan_volumes(task: Task) -> Configurations:
    """3d_fullres; beside it 3d_lowres and the cascade, where a patch of the full resolution covers too little."""
    configurations: Configurations = {}
    full, candidate = _configure(build_search_space(task, "3d_fullres", task.spacing))
    configurations["3d_fullres"] = full
    if (low := _plan_lowres(task, full)) is not None:
        configurations["3d_lowres"] = low
        with _left_out("3d_cascade_fullres"):
            second = build_search_space(task, "3d_cascade_fullres", task.spacing, previous="3d_lowres")
            configurations["3d_cascade_fullres"], _ = _configure(second, at_most=candidate)
    return configurations


def _recommend(task: Task, configurations: Configurations) -> ConfigurationName:
    if not task.volumetric:
        return "2d"
    covers_little = coverage(configurations["3d_fullres"].patch_size, task.shape) < CPU_COVERAGE
    on_cpu = task.budget.device == "cpu"
    return "3d_lowres" if on_cpu and covers_little and "3d_lowres" in configurations else "3d_fullres"


@contextmanager
def _left_out(name: ConfigurationName) -> Iterator[None]:
    """A configuration that needs too much memory is left out of a plan that has another one."""
    try:
        yield
    except TooLittleMemory as error:
        log.warning("%s is not planned: %s", name, error.what)


def _plan_lowres(task: Task, full: Configuration) -> Configuration | None:
    """3d_lowres; None where the full resolution's patch covers enough, or the low one would not be much smaller.

    Spacings grow by 3 % at a time until a patch that fits the budget covers a quarter of the median image, as in
    nnU-Net. That spacing is found by bisection, below a spacing at which the smallest patch covers as much. The path
    depends on the dataset alone, so a larger budget, which allows no less at any spacing, ends at none coarser.
    """
    if coverage(full.patch_size, task.shape) >= LOWRES_COVERAGE:
        return None

    @cache
    def space_after(increments: int) -> tuple[SearchSpace, int | None]:
        """The candidates at that spacing, and the position of the first whose patch covers enough."""
        spacing = coarsened(task.spacing, increments)
        voxels = LOWRES_COVERAGE * math.prod(task.shape) * math.prod(task.spacing) / math.prod(spacing)
        space = build_search_space(task, "3d_lowres", round_spacing(spacing))
        return space, next((n for n, each in enumerate(space.candidates) if each.patch_voxels >= voxels), None)

    def covers_enough(increments: int) -> bool:
        space, first = space_after(increments)
        return first is not None and space.fits(first)

    surely = 1
    while space_after(surely)[1] != 0:
        surely *= 2
    increments = 1 + bisect_left(range(1, surely), True, key=covers_enough)
    if math.prod(coarsened(task.spacing, increments)) / math.prod(task.spacing) < LOWRES_WORTH:
        return None
    with _left_out("3d_lowres"):
        return _configure(space_after(increments)[0])[0]
    return None


def _configure(space: SearchSpace, at_most: Candidate | None = None) -> tuple[Configuration, Candidate]:
    """The configuration of the best candidate, no larger than `at_most`."""
    task, fingerprint = space.task, space.task.fingerprint
    selection = space.select(at_most)
    chosen = selection.candidate
    schemes = normalization_schemes(fingerprint.channels, fingerprint.foreground_intensity_properties_per_channel)
    axes = task.order[space.first_axis :]
    configuration = Configuration(
        name=space.name,
        spacing=space.spacing,
        median_image_size_in_voxels=space.shape,
        patch_size=chosen.patch_size,
        batch_size=chosen.batch_size,
        normalization_schemes=schemes,
        use_mask_for_norm=use_mask_for_norm(schemes, fingerprint.cases),
        resample_separate_z=True,
        network=space.settings(chosen),
        steps=space.overrides.steps or _choose_steps(space, selection),
        oversample_foreground_percent=OVERSAMPLE_FOREGROUND,
        mirror_axes=mirror_axes(fingerprint.labels, axes, task.volumetric, space.order),
        previous_stage=space.previous,
    )
    return configuration.model_copy(update={"reasons": explain(space, configuration, selection)}), chosen


def _choose_steps(space: SearchSpace, selection: Selection) -> int:
    """As many as the time allows, where one is given: the schedule ends when the time does. Else by difficulty."""
    seconds = space.task.budget.seconds
    if seconds is None or selection.step_seconds is None:
        return choose_steps(space.task.difficulty, space.order)
    return steps_in(seconds, selection.step_seconds)


def _with_batch_dice(task: Task, configuration: Configuration, beside_lowres: bool) -> Configuration:
    """Dice over the whole batch where a patch shows little of the image (nnU-Net), or few of many labels (ours)."""
    labels = len(task.fingerprint.labels.foreground_names)
    cropped = configuration.dimensions == 2 or (beside_lowres and configuration.name != "3d_lowres")
    why = {"batch_dice": explain_batch_dice(configuration, labels, beside_lowres)}
    changes = {"batch_dice": cropped or labels >= MANY_LABELS, "reasons": configuration.reasons | why}
    return configuration.model_copy(update=changes)
