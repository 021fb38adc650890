"""What an ablation leaves on disk: the study that was asked for, and one record per finished run."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan
from pathlib import Path
from statistics import fmean
from typing import Annotated

from pydantic import Field

from mvl_auto.plans import Document, FoldName, Frozen, Name, Text, read_document
from mvl_auto.plans.block import Layers

STUDY, RECORDS, RUNS, RATES = "study.json", "records", "runs", "rates.json"

Count = Annotated[int, Field(ge=0, le=10**12)]
Positive = Annotated[float, Field(gt=0, le=1e10)]
Share = Annotated[float, Field(gt=0, le=1)]
Dice = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]  # rounding may pass 1
Scores = Mapping[str, Mapping[str, float | None]]  # Dice by case and label
Names = Annotated[tuple[Name, ...], Field(max_length=1_000_000)]


class Amount(Frozen):
    """How many of a fold's training cases a run trains on: a share of them, or a number."""

    share: Share | None = None
    cases: int | None = Field(None, ge=1, le=10**6)

    @property
    def name(self) -> str:
        """Part of the names of runs: 100 and 12.5 are percent, n8 are cases."""
        return f"n{self.cases}" if self.share is None else f"{100 * self.share:g}"

    def __str__(self) -> str:
        return f"{self.cases} cases" if self.share is None else f"{100 * self.share:g} %"


class Rates(Frozen):
    """learning_rate: at its peak. mapper_rate: factor on it for the mappers and the gate."""

    learning_rate: float = Field(gt=0, lt=1)
    mapper_rate: float = Field(1.0, gt=0, le=1000)


class Length(Frozen):
    """How long each run trains: steps or seconds."""

    steps: int | None = Field(None, ge=1, le=10**9)
    seconds: Positive | None = None

    def __str__(self) -> str:
        return f"{self.steps} steps" if self.seconds is None else f"{self.seconds:g} s"


class Basis(Frozen):
    """What all runs of a study share: runs of another basis are never compared with them."""

    dataset: Name
    configuration: Name
    plan_hash: Text
    fingerprint_hash: Text
    splits_hash: Text
    length: Length


class StudyRecord(Document):
    """study.json: what was asked for last. Runs of earlier calls with the same basis stay in the study."""

    basis: Basis
    arms: tuple[Name, ...]
    folds: tuple[FoldName, ...]
    seeds: int = Field(ge=1, le=10_000, description="how many")
    first_seed: int = Field(0, ge=0, lt=2**62)
    amounts: tuple[Amount, ...]
    learning_rates: tuple[float, ...] = Field((), description="of the search; empty: no search")
    mapper_rates: tuple[float, ...] = (1.0,)
    search_steps: int = Field(0, ge=0, le=10**9)


class BlockOfRun(Frozen):
    """The frozen block that a run was trained with."""

    source: Text
    layer: int = Field(ge=-10_000, le=10_000)
    layers: Layers = Field(1, description="how many, the last of them is `layer`")
    sha256: Text


class Machine(Frozen):
    """What computed a run. instruction_sets: of avx2, avx512f, avx512_bf16, amx_bf16, those that the CPU has."""

    processor: Text
    instruction_sets: tuple[Text, ...]
    device: Text
    threads: int = Field(ge=1, le=100_000)
    precision: Text
    torch_version: Text


class RunRecord(Document):
    """records/<run>.json: one finished run.

    initial_hash: of the weights at the start that all arms have. batches_hash: of the first batches. scores: Dice by
    case and label, null where neither the reference nor the prediction has the label. gate: mean of the block's gate
    at the end, null without one. free_looks: mean Dice of the trained network changed at prediction only, and
    gradient_cosines: between the gradients of samples, with the LLM part and without it (free_looks.py); null where
    they were not looked at.
    """

    name: Name
    basis: Basis
    arm: Name
    amount: Amount
    fold: FoldName
    seed: int = Field(ge=0, lt=2**63)
    rates: Rates
    training_cases: Names
    initial_hash: Text
    batches_hash: Text
    trainable_parameters: Count
    frozen_parameters: Count
    block: BlockOfRun | None
    steps: Count
    seconds: float = Field(ge=0, le=1e10, description="of training steps, without validation")
    started: Text = Field(description="UTC, ISO 8601")
    machine: Machine
    scores: dict[Name, dict[Text, Dice | None]]
    gate: float | None = None
    free_looks: dict[Text, Dice | None] | None = None
    gradient_cosines: dict[Text, Cosine | None] | None = None
    command: Text = Field(description="that repeats the run")

    @property
    def seconds_per_step(self) -> float:
        return self.seconds / max(self.steps, 1)

    @property
    def mean_dice(self) -> float:
        return mean_over_cases(self.scores)


def mean_over_cases(scores: Scores) -> float:
    """Mean over the labels of a case, then over the cases; what is undefined is left out, NaN where all is."""
    cases = [[dice for dice in labels.values() if dice is not None] for labels in scores.values()]
    means = [fmean(case) for case in cases if case]
    return fmean(means) if means else nan


def none_if_nan(value: float) -> float | None:
    return None if isnan(value) else float(value)


def read_records(folder: Path) -> list[RunRecord]:
    """All records of a folder, sorted by name. Raises MvlError for a damaged one."""
    return [read_document(file, RunRecord) for file in sorted(folder.glob("*.json"))]
