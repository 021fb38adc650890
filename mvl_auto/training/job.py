"""What is known of a training before its first step: frozen, and shared by all that happens in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mvl_auto.network.team import ALONE, Team
from mvl_auto.plans import Configuration, Plan
from mvl_auto.progress import Progress, silent
from mvl_auto.runs import PRETRAINING
from mvl_auto.training.schedule import TrainingLimit

if TYPE_CHECKING:
    from mvl_auto.loggers import Logger
    from mvl_auto.training.first_stage import FirstStage


@dataclass(frozen=True)
class Places:
    """The folders of a training."""

    preprocessed: Path  # of the dataset
    run: Path  # results/<dataset>/<run>
    blocks: Path  # the block bank

    def cache(self, configuration: Configuration) -> Path:
        return self.preprocessed / configuration.name


@dataclass(frozen=True)
class FoldOfPlan:
    """One fold of one configuration of a plan: what is trained on what. name: "0", ... or "all"."""

    plan: Plan
    configuration: Configuration
    name: str
    training_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    first_stage: FirstStage | None = None  # of a cascade's second stage

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.training_cases, *self.validation_cases)))


@dataclass(frozen=True)
class TrainingJob:
    """One training of one fold.

    limit, learning_rate, trunk_rate: None, that of the run's checkpoint, else the plan's or the default. workers:
    processes that make batches; None: as many as are good here. pretrains: it reconstructs images, and reads no labels.
    team: the processes that train it together; device: of this one.
    """

    fold: FoldOfPlan
    places: Places
    device: torch.device
    limit: TrainingLimit | None = None
    learning_rate: float | None = None  # at its peak
    trunk_rate: float | None = None  # factor on the learning rate of the trunk's blocks; 0: they stay as they are
    start_from: Path | None = None  # a trained network whose weights a new run begins with
    seed: int = 0
    workers: int | None = None
    pretrains: bool = False
    progress: Progress = silent
    logger: Logger | None = None  # gets the figures of progress.csv, too
    team: Team = ALONE

    @property
    def folder(self) -> Path:
        """results/<dataset>/<run>/fold<k>, or .../pretraining, or .../pretraining_without_fold<k>"""
        name = self.fold.name
        if self.pretrains:
            return self.places.run / (PRETRAINING if name == "all" else f"{PRETRAINING}_without_fold{name}")
        return self.places.run / (f"fold{name}" if name != "all" else "fold_all")
