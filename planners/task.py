"""What all configurations of one dataset share."""

from __future__ import annotations

from dataclasses import dataclass

from mvl_auto.planners.budget import Budget
from mvl_auto.planners.overrides import ByHand
from mvl_auto.planners.schedule import Difficulty
from mvl_auto.plans import BlockSizes, Fingerprint, LlmSettings, Shape, Vector


@dataclass(frozen=True)
class Task:
    """A dataset to plan for. spacing (mm) and shape (voxels, median at that spacing): in the order of the cached axes.

    order: the axes of the canonical Z Y X array in the order of the cached one. blocks: the frozen ones that a plan
    may have, lightest first. blocks_known: whether their sizes are, or assumed. hard: how hard the task is, at
    whichever resolution.
    """

    fingerprint: Fingerprint
    budget: Budget
    llm: LlmSettings
    blocks: tuple[BlockSizes, ...]
    blocks_known: bool
    by_hand: ByHand
    order: Shape
    hard: Difficulty
    spacing: Vector
    shape: Vector

    @property
    def volumetric(self) -> bool:
        """Whether there is more than one slice to look at."""
        return self.shape[0] > 1
