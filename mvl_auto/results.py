"""The trained folds of one call, as a list that prints as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mvl_auto.tables import Tabular
from mvl_auto.text import duration_text

if TYPE_CHECKING:
    from mvl_auto.training import TrainingResult


class TrainingResults(Tabular, list["TrainingResult"]):
    """One entry per fold, in the order trained."""

    def as_table(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for each in self:
            dice = "-" if each.validation is None else f"{each.validation.mean('dice'):.3f}"
            rows.append([each.folder.name, str(each.steps), duration_text(each.seconds), dice, str(each.folder)])
        return ["fold", "steps", "time", "dice", "folder"], rows
