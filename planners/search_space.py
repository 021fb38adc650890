"""The candidates for one configuration of a dataset, and all that is the same for each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mvl_auto.images.spacing import resampled_shape
from mvl_auto.planners.budget import Device
from mvl_auto.planners.cost.step import TrainingStep
from mvl_auto.planners.overrides import Overrides, apply_overrides, round_patch_up, start_at_batch
from mvl_auto.planners.presets import BATCH_SHARE, CPU_3D_SMALL_IMAGES, SEARCH_ORDERS, SMALL_IMAGE, SearchOrder
from mvl_auto.planners.schedule import min_steps
from mvl_auto.planners.search import Candidate, choose_strides, limit_trunk, list_candidates, list_patches
from mvl_auto.planners.selection import Selection, Selector
from mvl_auto.planners.task import Task
from mvl_auto.plans import BlockSizes, ConfigurationName, LlmSettings, NetworkSettings, Shape, Vector


@dataclass(frozen=True)
class SearchSpace:
    """The candidates for one configuration, smallest first.

    spacing (mm), shape (voxels, of the median image): three axes, in the order of the cached arrays. few_tokens:
    whether even the largest patch has so few tokens that no trunk beyond the small one is considered. previous: the
    configuration whose prediction is extra input, if any.
    """

    task: Task
    name: ConfigurationName
    spacing: Vector
    shape: Vector
    strides: tuple[Shape, ...]
    order: SearchOrder
    largest_patch: Shape
    few_tokens: bool
    overrides: Overrides
    candidates: tuple[Candidate, ...]
    previous: ConfigurationName | None = None

    @property
    def first_axis(self) -> int:
        """The first axis that the network sees."""
        return 1 if self.name == "2d" else 0

    def settings(self, candidate: Candidate) -> NetworkSettings:
        return NetworkSettings(
            spacing=self.spacing[self.first_axis :],
            stem_channels=tuple(candidate.trunk.stem * 2**level for level in range(len(self.strides) - 1)),
            stem_strides=self.strides[:-1],
            token_stride=self.strides[-1],
            width=candidate.trunk.width,
            depth=candidate.trunk.depth,
            heads=candidate.trunk.heads,
            llm=_name_block(self.task.llm, candidate.block),
        )

    def training_step(self, candidate: Candidate) -> TrainingStep:
        fingerprint = self.task.fingerprint
        return TrainingStep(
            settings=self.settings(candidate),
            patch_size=candidate.patch_size,
            batch_size=candidate.batch_size,
            channels=len(fingerprint.channels) + (len(fingerprint.labels.foreground_names) if self.previous else 0),
            labels=fingerprint.labels,
            block=candidate.block,
            mixed_precision=self.task.budget.device == "gpu",
        )

    def min_steps(self, candidate: Candidate) -> float:
        return min_steps(self.task.difficulty, self.order, candidate.whole_schedule)

    def fits(self, position: int) -> bool:
        """Whether the budget allows the candidate at `position`, or a later one."""
        return self._selector.fits(self.candidates, position)

    def select(self, at_most: Candidate | None = None) -> Selection:
        """The last candidate that fits the budget, up to `at_most`."""
        end = len(self.candidates) if at_most is None else self.candidates.index(at_most) + 1
        return self._selector.select(self.candidates[:end])

    @property
    def _selector(self) -> Selector:
        return Selector(self.name, self.task.budget, self.training_step, self.min_steps, self.task.measure)


def build_search_space(
    task: Task, name: ConfigurationName, spacing: Vector, previous: ConfigurationName | None = None
) -> SearchSpace:
    """The candidates for one configuration at `spacing` (mm, three axes, transposed; 2d leaves out the first).

    previous: the configuration whose prediction is extra input, one channel for each label.
    """
    first = 1 if name == "2d" else 0
    shape = task.shape
    if spacing != task.spacing:
        shape = tuple(float(voxels) for voxels in resampled_shape(task.shape, task.spacing, spacing))
    strides = choose_strides(spacing[first:], shape[first:])
    token = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
    overrides = task.overrides if name != "3d_lowres" else round_patch_up(task.overrides, token)
    order = order_for(task.budget.device, len(token), math.prod(task.shape))
    patches = list_patches(spacing[first:], shape[first:], token)
    trunk = limit_trunk(patches, token)
    candidates = list_candidates(
        start_at_batch(order, overrides),
        _patches_to_try(patches, overrides, len(token)),
        BATCH_SHARE * math.prod(shape) * len(task.fingerprint.cases),
        task.blocks,
        trunk,
        timed=task.budget.seconds is not None,
    )
    return SearchSpace(
        task=task,
        name=name,
        spacing=spacing,
        shape=shape,
        strides=strides,
        order=order,
        largest_patch=patches[0],
        few_tokens=trunk is not None,
        overrides=overrides,
        candidates=tuple(apply_overrides(candidates, overrides, token)),
        previous=previous,
    )


def order_for(device: Device, dimensions: int, voxels: float) -> SearchOrder:
    """The search order of a task. voxels: of the median image at full resolution."""
    if device == "cpu" and dimensions == 3 and voxels <= SMALL_IMAGE:
        return CPU_3D_SMALL_IMAGES
    return SEARCH_ORDERS[device, dimensions]


def _patches_to_try(patches: Sequence[Shape], overrides: Overrides, dimensions: int) -> Sequence[Shape]:
    if overrides.patch_size is not None and overrides.sets_patch(dimensions):
        return [overrides.patch_size]
    return patches


def _name_block(llm: LlmSettings, block: BlockSizes | None) -> LlmSettings:
    if block is None:
        return llm
    return llm.model_copy(update={"source": block.source, "layer": block.layer, "hidden_size": block.hidden_size})
