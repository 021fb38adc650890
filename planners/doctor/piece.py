"""One file of a case under repair: its voxels, its grid, and what has been done to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from mvl_auto.arrays import Array
from mvl_auto.images.geometry import FileGrid
from mvl_auto.plans import Frozen


class Repair(Frozen):
    file: str = Field(description="relative to the dataset")
    found: str
    done: str = Field(description="what was done, or why nothing was")
    outcome: Literal["repaired", "left"]


@dataclass(frozen=True, eq=False)
class Piece:
    """One file of a case: (C, i, j, k) on its grid, and what has been done to it. name: as messages call it."""

    file: Path
    name: str
    array: Array
    grid: FileGrid
    repairs: tuple[Repair, ...] = ()

    def repaired(self, found: str, done: str, *, array: Array | None = None, grid: FileGrid | None = None) -> Piece:
        repair = Repair(file=self.name, found=found, done=done, outcome="repaired")
        return replace(
            self,
            array=self.array if array is None else array,
            grid=grid or self.grid,
            repairs=(*self.repairs, repair),
        )

    def left(self, found: str, why: str) -> Piece:
        return replace(self, repairs=(*self.repairs, Repair(file=self.name, found=found, done=why, outcome="left")))

    @property
    def is_changed(self) -> bool:
        return any(repair.outcome == "repaired" for repair in self.repairs)
