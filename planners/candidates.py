"""What may be planned for one configuration of a dataset, from the smallest to the largest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mvl_auto.planners.overrides import ByHand, beginning, fixed, in_whole_tokens
from mvl_auto.planners.presets import BATCH_SHARE, LADDERS, Ladder
from mvl_auto.planners.schedule import least_iterations
from mvl_auto.planners.search import Rung, largest_trunk, patches, rungs, stages
from mvl_auto.planners.selection import Bought, Network, StepSeconds, buy, pays_for
from mvl_auto.planners.spacing import shape_at
from mvl_auto.planners.task import Task
from mvl_auto.plans import BlockSizes, ConfigurationName, LlmSettings, NetworkSettings, Shape, Vector


@dataclass(frozen=True)
class Candidates:
    """The rungs of one configuration, lowest first, and all that does not depend on which of them is chosen."""

    task: Task
    name: ConfigurationName
    spacing: Vector
    shape: Vector
    strides: tuple[Shape, ...]
    ladder: Ladder
    largest_patch: Shape
    few_tokens: bool
    by_hand: ByHand
    rungs: tuple[Rung, ...]
    previous: ConfigurationName | None = None

    @property
    def first(self) -> int:
        """The first axis that the network sees."""
        return 1 if self.name == "2d" else 0

    @property
    def network(self) -> Network:
        fingerprint = self.task.fingerprint
        channels = len(fingerprint.channels) + (len(fingerprint.labels.foreground_names) if self.previous else 0)
        return Network(self.settings, channels, fingerprint.labels.num_outputs)

    def settings(self, rung: Rung) -> NetworkSettings:
        return NetworkSettings(
            spacing=self.spacing[self.first :],
            stem_channels=tuple(rung.size.stem * 2**level for level in range(len(self.strides) - 1)),
            stem_strides=self.strides[:-1],
            token_stride=self.strides[-1],
            width=rung.size.width,
            depth=rung.size.depth,
            heads=rung.size.heads,
            llm=_llm(self.task.llm, rung.block),
        )

    def least_steps(self, rung: Rung) -> float:
        return least_iterations(self.task.hard, self.ladder, rung.whole_schedule)

    def pays_for(self, position: int, step_seconds: StepSeconds | None) -> bool:
        return pays_for(position, self.rungs, self.network, self.task.budget, self.least_steps, step_seconds)

    def buy(self, candidates: Sequence[Rung], step_seconds: StepSeconds | None) -> Bought:
        return buy(candidates, self.network, self.task.budget, self.least_steps, step_seconds, self.name)


def candidates_for(
    task: Task, name: ConfigurationName, spacing: Vector, previous: ConfigurationName | None = None
) -> Candidates:
    """The candidates for one configuration at `spacing` (three axes, transposed; 2d leaves out the first).

    previous: the configuration whose prediction is extra input, one channel for each label.
    """
    first = 1 if name == "2d" else 0
    shape = shape_at(spacing, task.spacing, task.shape) if spacing != task.spacing else task.shape
    strides = stages(spacing[first:], shape[first:])
    token = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
    by_hand = task.by_hand if name != "3d_lowres" else in_whole_tokens(task.by_hand, token)
    ladder = LADDERS[task.budget.device, len(token)]
    chain = patches(spacing[first:], shape[first:], token)
    trunk = largest_trunk(chain, token)
    climbed = rungs(
        beginning(ladder, by_hand),
        [by_hand.patch_size] if by_hand.patch_size and by_hand.gives_patch(len(token)) else chain,
        BATCH_SHARE * math.prod(shape) * len(task.fingerprint.cases),
        task.blocks,
        trunk,
        timed=task.budget.seconds is not None,
    )
    return Candidates(
        task=task,
        name=name,
        spacing=spacing,
        shape=shape,
        strides=strides,
        ladder=ladder,
        largest_patch=chain[0],
        few_tokens=trunk is not None,
        by_hand=by_hand,
        rungs=tuple(fixed(climbed, by_hand, token)),
        previous=previous,
    )


def _llm(llm: LlmSettings, block: BlockSizes | None) -> LlmSettings:
    if block is None:
        return llm
    return llm.model_copy(update={"source": block.source, "layer": block.layer, "hidden_size": block.hidden_size})
