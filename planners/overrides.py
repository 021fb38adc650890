"""Numbers of the plan that the user chose: they stand, and the search goes on around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mvl_auto.errors import MvlError
from mvl_auto.planners.budget import Budget
from mvl_auto.planners.presets import Ladder, Size
from mvl_auto.planners.search import Rung
from mvl_auto.plans import LARGEST_BATCH, LARGEST_SIDE, LARGEST_WIDTH, MOST_BLOCKS, MOST_STEPS, Shape
from mvl_auto.text import shape_text

REASON = "chosen by hand"
LARGEST = {
    "patch_size": LARGEST_SIDE,
    "batch_size": LARGEST_BATCH,
    "width": LARGEST_WIDTH,
    "depth": MOST_BLOCKS,
    "iterations": MOST_STEPS,
}


@dataclass(frozen=True)
class ByHand:
    """None: the planner's choice. patch_size: of the configurations that have as many axes."""

    patch_size: Shape | None = None
    batch_size: int | None = None
    width: int | None = None
    depth: int | None = None
    iterations: int | None = None

    def __post_init__(self) -> None:
        for name, number in vars(self).items():
            if number is not None and min(number if isinstance(number, tuple) else (number,), default=0) < 1:
                raise MvlError(f"{name} {number} is too small", remedy="Give whole numbers from 1 on.")
            if number is not None and max(number if isinstance(number, tuple) else (number,)) > LARGEST[name]:
                raise MvlError(f"{name} {number} is too large", remedy=f"Give at most {LARGEST[name]}.")
        if self.patch_size is not None and len(self.patch_size) not in (2, 3):
            raise MvlError(
                f"a patch of {len(self.patch_size)} axes fits no configuration",
                remedy="Give Z Y X for volumes or Y X for 2d.",
            )

    def check(self, budget: Budget, volumetric: bool = True) -> None:
        """Raise MvlError where a number contradicts the budget, or could have no effect on the images of a dataset."""
        if self.iterations is not None and budget.seconds is not None:
            raise MvlError("a time and a number of iterations both say how long to train", remedy="Leave out one.")
        if self.patch_size is not None and len(self.patch_size) == 3 and not volumetric:
            raise MvlError(
                f"a patch of {shape_text(self.patch_size)} voxels is for volumes, the images of this dataset are flat",
                remedy="Give Y X.",
            )

    def gives_patch(self, dimensions: int) -> bool:
        """Whether the patch is the user's in a configuration of so many axes."""
        return self.patch_size is not None and len(self.patch_size) == dimensions

    def reasons(self, dimensions: int) -> dict[str, str]:
        """The numbers of a configuration that are not the planner's, each with its reason."""
        given = {
            "patch_size": self.gives_patch(dimensions),
            "batch_size": self.batch_size is not None,
            "width": self.width is not None,
            "depth": self.depth is not None,
            "iterations": self.iterations is not None,
        }
        return {name: REASON for name, is_given in given.items() if is_given}


def beginning(ladder: Ladder, by_hand: ByHand) -> Ladder:
    """The ladder from the user's batch on, so that the patch is paid for with it."""
    return ladder if by_hand.batch_size is None else replace(ladder, batch_size=by_hand.batch_size)


def in_whole_tokens(by_hand: ByHand, token_size: Shape) -> ByHand:
    """With its patch enlarged to whole tokens, for a resolution whose tokens are not those that the user thought of."""
    if by_hand.patch_size is None or len(by_hand.patch_size) != len(token_size):
        return by_hand
    return replace(by_hand, patch_size=_whole(by_hand.patch_size, token_size))


def fixed(candidates: Sequence[Rung], by_hand: ByHand, token_size: Shape) -> list[Rung]:
    """The rungs with the user's numbers in place of their own, each once, in the same order.

    Raises MvlError for a patch that is not made of whole tokens.
    """
    patch = by_hand.patch_size
    if patch is None or len(patch) != len(token_size):
        patch = None
    elif any(voxels % token for voxels, token in zip(patch, token_size, strict=True)):
        raise MvlError(
            f"a patch of {shape_text(patch)} voxels is not made of whole tokens of {shape_text(token_size)}",
            remedy=f"Take {shape_text(_whole(patch, token_size))}.",
        )
    changed = [
        replace(
            rung,
            patch_size=patch or rung.patch_size,
            batch_size=by_hand.batch_size or rung.batch_size,
            size=_sized(rung.size, by_hand),
        )
        for rung in candidates
    ]
    return list(dict.fromkeys(changed))


def _sized(size: Size, by_hand: ByHand) -> Size:
    """Heads stay about as wide as they were, and divide the width."""
    if by_hand.width is None and by_hand.depth is None:
        return size
    width = by_hand.width or size.width
    heads = max(1, width * size.heads // size.width)
    while width % heads:
        heads -= 1
    return replace(size, width=width, heads=heads, depth=by_hand.depth or size.depth)


def _whole(patch: Shape, token_size: Shape) -> Shape:
    return tuple(-(-n // t) * t for n, t in zip(patch, token_size, strict=True))
