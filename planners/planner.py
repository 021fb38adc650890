"""From what a dataset is to what shall be done with it: `plan(fingerprint, budget) -> Plan`.

Deterministic: no disk, no clock, the same bytes for the same dataset and budget. The speed of a device, where there is
a budget of time, is asked of a function that the caller gives. Each number is chosen by a rule that the plan tells in
words (Configuration.reasons); docs/planner.md has the rules with their sources.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache

from mvl_auto.planners.budget import Budget
from mvl_auto.planners.candidates import Candidates, candidates_for
from mvl_auto.planners.cost.block import eligible
from mvl_auto.planners.normalisation import normalization_schemes, use_mask_for_norm
from mvl_auto.planners.overrides import ByHand
from mvl_auto.planners.presets import CPU_COVERAGE, LOWRES_COVERAGE, LOWRES_WORTH, OVERSAMPLE_FOREGROUND
from mvl_auto.planners.reasons import reasons, why_recommended
from mvl_auto.planners.schedule import difficulty, iterations, iterations_in, mirror_axes, object_share
from mvl_auto.planners.search import Rung
from mvl_auto.planners.selection import Bought, StepSeconds, TooLittleMemory
from mvl_auto.planners.spacing import DIGITS, coarsened, median_resampled_shape, target_spacing, transpose_forward
from mvl_auto.planners.task import Task
from mvl_auto.plans import BlockSizes, Configuration, ConfigurationName, Fingerprint, LlmSettings, Plan, Shape, Vector

DEFAULT_LLM = LlmSettings()
NOTHING_BY_HAND = ByHand()

log = logging.getLogger(__name__)


def plan(
    fingerprint: Fingerprint,
    budget: Budget,
    llm: LlmSettings = DEFAULT_LLM,
    by_hand: ByHand = NOTHING_BY_HAND,
    blocks: Sequence[BlockSizes] = (),
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
        full, rung = _configure(candidates_for(task, "3d_fullres", task.spacing), step_seconds)
        configurations["3d_fullres"] = full
        if (low := _lowres(task, full, step_seconds)) is not None:
            configurations["3d_lowres"] = low
            with _left_out("3d_cascade_fullres"):
                second = candidates_for(task, "3d_cascade_fullres", task.spacing, previous="3d_lowres")
                configurations["3d_cascade_fullres"], _ = _configure(second, step_seconds, at_most=rung)
            if budget.device == "cpu" and coverage(full.patch_size, task.shape) < CPU_COVERAGE:
                recommended = "3d_lowres"
    with _left_out("2d") if configurations else nullcontext():
        configurations["2d"], _ = _configure(candidates_for(task, "2d", task.spacing), step_seconds)
    best = configurations[recommended]
    why = best.reasons | {"recommended": why_recommended(task, configurations)}
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
    blocks: Sequence[BlockSizes] = (),
) -> Task:
    """Target spacing, median size, order of axes, eligible blocks: what all configurations share."""
    shapes = [case.shape_after_crop for case in fingerprint.cases]
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
        hard=difficulty(shape, object_share(fingerprint.cases)),
        spacing=tuple(spacing[axis] for axis in order),
        shape=tuple(shape[axis] for axis in order),
    )


def coverage(patch_size: Shape, shape: Vector) -> float:
    """Share of the median image that a patch covers."""
    return math.prod(patch_size) / math.prod(shape)


def _lowres(task: Task, full: Configuration, step_seconds: StepSeconds | None) -> Configuration | None:
    """3d_lowres; None where the full resolution's patch covers enough, or the low one would not be much smaller.

    Spacings grow by 3 % at a time until a patch that the budget pays for covers a quarter of the median image, as in
    nnU-Net. Where that is, is found by halving the way to a spacing at which the smallest patch covers as much. The
    way depends on the dataset alone, so a larger budget, which pays for no less at any spacing, ends at none coarser.
    """
    if coverage(full.patch_size, task.shape) >= LOWRES_COVERAGE:
        return None

    @cache
    def after(steps: int) -> tuple[Candidates, int | None]:
        """What may be planned there, and the first of it whose patch covers enough."""
        spacing = coarsened(task.spacing, steps)
        voxels = LOWRES_COVERAGE * math.prod(task.shape) * math.prod(task.spacing) / math.prod(spacing)
        candidates = candidates_for(task, "3d_lowres", tuple(round(mm, DIGITS) for mm in spacing))
        return candidates, next((n for n, rung in enumerate(candidates.rungs) if rung.patch_voxels >= voxels), None)

    def covers(steps: int) -> bool:
        candidates, enough = after(steps)
        return enough is not None and candidates.pays_for(enough, step_seconds)

    surely = 1
    while after(surely)[1] != 0:
        surely *= 2
    steps = 1 + bisect_left(range(1, surely), True, key=covers)
    if math.prod(coarsened(task.spacing, steps)) / math.prod(task.spacing) < LOWRES_WORTH:
        return None
    with _left_out("3d_lowres"):
        return _configure(after(steps)[0], step_seconds)[0]
    return None


def _configure(
    candidates: Candidates, step_seconds: StepSeconds | None, at_most: Rung | None = None
) -> tuple[Configuration, Rung]:
    """The best of the candidates, no larger than `at_most`."""
    task, cases = candidates.task, candidates.task.fingerprint.cases
    end = len(candidates.rungs) if at_most is None else candidates.rungs.index(at_most) + 1
    bought = candidates.buy(candidates.rungs[:end], step_seconds)
    chosen = bought.rung
    schemes = normalization_schemes(
        task.fingerprint.channels, task.fingerprint.foreground_intensity_properties_per_channel
    )
    configuration = Configuration(
        name=candidates.name,
        spacing=candidates.spacing,
        median_image_size_in_voxels=candidates.shape,
        patch_size=chosen.patch_size,
        batch_size=chosen.batch_size,
        normalization_schemes=schemes,
        use_mask_for_norm=use_mask_for_norm(schemes, cases),
        resample_separate_z=True,
        network=candidates.settings(chosen),
        steps=candidates.by_hand.iterations or _iterations(task, bought, iterations(task.hard, candidates.ladder)),
        oversample_foreground_percent=OVERSAMPLE_FOREGROUND,
        mirror_axes=mirror_axes(
            task.fingerprint.labels, task.order[candidates.first :], task.volumetric, candidates.ladder
        ),
        previous_stage=candidates.previous,
    )
    return configuration.model_copy(update={"reasons": reasons(candidates, configuration, bought)}), chosen


def _iterations(task: Task, bought: Bought, wanted: int) -> int:
    """What the time buys, where it is given: then the schedule ends when the time does; else what the task wants."""
    if task.budget.seconds is None or bought.step_seconds is None:
        return wanted
    return iterations_in(task.budget.seconds, bought.step_seconds)
