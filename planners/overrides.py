"""Values of the plan that the user chose. The rest of the plan adapts to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mvl_auto.errors import MvlError
from mvl_auto.planners.budget import Budget
from mvl_auto.planners.presets import SearchOrder, Trunk
from mvl_auto.planners.search import Candidate
from mvl_auto.plans import LARGEST_BATCH, LARGEST_SIDE, LARGEST_WIDTH, MOST_BLOCKS, MOST_STEPS, Shape
from mvl_auto.text import shape_text

REASON = "set by the user"
LARGEST = {
    "patch_size": LARGEST_SIDE,
    "batch_size": LARGEST_BATCH,
    "width": LARGEST_WIDTH,
    "depth": MOST_BLOCKS,
    "steps": MOST_STEPS,
}


@dataclass(frozen=True)
class Overrides:
    """Single values of the plan; None: the planner chooses.

    patch_size: voxels per axis, for the configurations that have as many axes. steps: of training.
    """

    patch_size: Shape | None = None
    batch_size: int | None = None
    width: int | None = None
    depth: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        for name, number in vars(self).items():
            if number is not None and min(number if isinstance(number, tuple) else (number,), default=0) < 1:
                raise MvlError(f"{name} {number} is too small", remedy="Give whole numbers, 1 or more.")
            if number is not None and max(number if isinstance(number, tuple) else (number,)) > LARGEST[name]:
                raise MvlError(f"{name} {number} is too large", remedy=f"Give at most {LARGEST[name]}.")
        if self.patch_size is not None and len(self.patch_size) not in (2, 3):
            raise MvlError(
                f"a patch of {len(self.patch_size)} axes fits no configuration",
                remedy="Give Z Y X for volumes or Y X for 2D images and slices.",
            )

    def check(self, budget: Budget, volumetric: bool = True) -> None:
        """Raise MvlError where a value contradicts the budget, or could have no effect on the images of a dataset."""
        if self.steps is not None and budget.seconds is not None:
            raise MvlError(
                "a time and a number of training steps both say how long to train", remedy="Give only one of them."
            )
        if self.patch_size is not None and len(self.patch_size) == 3 and not volumetric:
            raise MvlError(
                f"a patch of {shape_text(self.patch_size)} voxels has three axes, the images of this dataset are 2D",
                remedy="Give Y X.",
            )

    def sets_patch(self, dimensions: int) -> bool:
        """Whether the patch is overridden in a configuration with so many axes."""
        return self.patch_size is not None and len(self.patch_size) == dimensions

    def reasons(self, dimensions: int) -> dict[str, str]:
        """The overridden values of a configuration, by their names in the plan, each with its reason."""
        is_set = {
            "patch_size": self.sets_patch(dimensions),
            "batch_size": self.batch_size is not None,
            "width": self.width is not None,
            "depth": self.depth is not None,
            "iterations": self.steps is not None,
        }
        return {name: REASON for name, yes in is_set.items() if yes}


def start_at_batch(order: SearchOrder, overrides: Overrides) -> SearchOrder:
    """The search order that starts at the user's batch size, so that the patch is chosen to fit it."""
    return order if overrides.batch_size is None else replace(order, batch_size=overrides.batch_size)


def round_patch_up(overrides: Overrides, token_size: Shape) -> Overrides:
    """The patch enlarged to whole tokens, for a resolution whose tokens may differ from those of the full one."""
    if overrides.patch_size is None or len(overrides.patch_size) != len(token_size):
        return overrides
    return replace(overrides, patch_size=_whole_tokens(overrides.patch_size, token_size))


def apply_overrides(candidates: Sequence[Candidate], overrides: Overrides, token_size: Shape) -> list[Candidate]:
    """The candidates with the user's values in place of their own, each once, in the same order.

    Raises MvlError for a patch that is not a multiple of the token size.
    """
    patch = overrides.patch_size
    if patch is None or len(patch) != len(token_size):
        patch = None
    elif any(voxels % token for voxels, token in zip(patch, token_size, strict=True)):
        raise MvlError(
            f"a patch of {shape_text(patch)} voxels is not a multiple of the token size, {shape_text(token_size)}",
            remedy=f"Take {shape_text(_whole_tokens(patch, token_size))}.",
        )
    changed = [
        replace(
            candidate,
            patch_size=patch or candidate.patch_size,
            batch_size=overrides.batch_size or candidate.batch_size,
            trunk=_override_trunk(candidate.trunk, overrides),
        )
        for candidate in candidates
    ]
    return list(dict.fromkeys(changed))


def _override_trunk(trunk: Trunk, overrides: Overrides) -> Trunk:
    return replace(trunk, width=overrides.width or trunk.width, depth=overrides.depth or trunk.depth)


def _whole_tokens(patch: Shape, token_size: Shape) -> Shape:
    return tuple(-(-n // t) * t for n, t in zip(patch, token_size, strict=True))
