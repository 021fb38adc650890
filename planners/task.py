"""What all configurations of one dataset share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mvl_auto.planners.budget import Budget
from mvl_auto.planners.cost.block import eligible_blocks
from mvl_auto.planners.cost.measure import Measure
from mvl_auto.planners.overrides import Overrides
from mvl_auto.planners.schedule import Difficulty, object_share, rate_difficulty
from mvl_auto.planners.spacing import median_resampled_shape, target_spacing, transpose_forward
from mvl_auto.plans import BlockSizes, Fingerprint, LlmSettings, Shape, Vector


@dataclass(frozen=True)
class Task:
    """A dataset to plan for.

    spacing (mm), shape (voxels, of the median image at that spacing): in the order of the cached axes. order: the axes
    of the canonical Z Y X array in the order of the cached one. blocks: the eligible frozen blocks, lightest first.
    blocks_known: whether their sizes are known, or assumed. difficulty: of the task, the same at every resolution.
    """

    fingerprint: Fingerprint
    budget: Budget
    llm: LlmSettings
    blocks: tuple[BlockSizes, ...]
    blocks_known: bool
    overrides: Overrides
    measure: Measure
    order: Shape
    difficulty: Difficulty
    spacing: Vector
    shape: Vector

    @property
    def volumetric(self) -> bool:
        """Whether images have more than one slice."""
        return self.shape[0] > 1


def describe_task(
    fingerprint: Fingerprint,
    budget: Budget,
    llm: LlmSettings,
    overrides: Overrides,
    blocks: Sequence[BlockSizes],
    measure: Measure,
) -> Task:
    """Target spacing, median shape, order of axes, eligible blocks: what all configurations share."""
    shapes = [case.shape_after_crop for case in fingerprint.cases]
    spacings = [case.spacing for case in fingerprint.cases]
    spacing = target_spacing(spacings, shapes)
    shape = median_resampled_shape(shapes, spacings, spacing)
    order = transpose_forward(spacing, shape)
    return Task(
        fingerprint=fingerprint,
        budget=budget,
        llm=llm,
        blocks=eligible_blocks(llm, blocks),
        blocks_known=bool(blocks) or llm.hidden_size is not None,
        overrides=overrides,
        measure=measure,
        order=order,
        difficulty=rate_difficulty(shape, object_share(fingerprint.cases)),
        spacing=tuple(spacing[axis] for axis in order),
        shape=tuple(shape[axis] for axis in order),
    )
