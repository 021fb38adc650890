"""What the finished runs of an ablation say: every arm against the network without the block, and against the block.

The unit is the run: two arms are compared on their common runs (same fold, same seed, same training cases), by
evaluation.statistics.compare_runs, which counts the variation between runs and between cases. One run says nothing
about an arm, so it gets a difference without interval and p value, and no test over its cases.

Runs are compared only where dataset, plan, folds, length of training, number of training cases and precision are the
same: each such group is a table of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from mvl_auto.ablation.record import Amount, Basis, RunRecord
from mvl_auto.evaluation import statistics
from mvl_auto.evaluation.compare import ALL_LABELS, Row, corrected, of_label
from mvl_auto.text import list_text

Array = NDArray[np.float64]
RunKey = tuple[str, int]  # fold, seed

METRIC = "dice"
REFERENCES = ("vit", "pretrained")  # what every other arm is compared with
CHECKS = ("aa", "rotated")  # arms that must equal `pretrained`, so they are compared with nothing else
FEWEST_RUNS = 2  # of which a variation can be estimated


@dataclass(frozen=True, eq=False)
class ArmResult:
    """The runs of one arm with one choice of learning rates and block.

    name: the arm, with its learning rates or block where the table has it with several. dice: mean over runs of each
    run's mean over cases; NaN: undefined. seconds: of a training step, median over the runs. cost: of a step, relative
    to that of `vit`, median over common runs; NaN where there are none.
    """

    name: str
    arm: str
    runs: Mapping[RunKey, RunRecord]
    dice: float
    seconds: float
    cost: float = math.nan


@dataclass(frozen=True, eq=False)
class EvidenceTable:
    """The runs of one group. rows: second minus first, by label; notes: what was left out or differs, in sentences."""

    basis: Basis
    amount: Amount
    precision: str
    arms: tuple[ArmResult, ...]
    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def overall(self) -> list[Row]:
        """Of all labels together; with a single label, of that."""
        return [row for row in self.rows if row.label == (ALL_LABELS if len(self.labels) > 1 else self.labels[0])]

    @property
    def equal(self) -> str:
        return "time" if self.basis.length.seconds is not None else "steps"

    @property
    def title(self) -> str:
        cases = "all training cases" if self.amount.share == 1 else f"{self.amount} of the training cases"
        cases = cases if self.amount.cases is None else f"{self.amount.cases} training cases"
        return f"{self.basis.dataset}, {self.basis.configuration}, {cases}, {self.basis.length}"

    @property
    def records(self) -> list[RunRecord]:
        return [record for arm in self.arms for record in arm.runs.values()]


def tables_of(records: Iterable[RunRecord]) -> list[EvidenceTable]:
    """A table for each group of runs that may be compared, in the order of their datasets, amounts and lengths."""
    groups: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=_order):
        key = f"{record.basis.model_dump_json()} {record.amount.model_dump_json()} {record.machine.precision}"
        groups.setdefault(key, []).append(record)
    return [table_of(group) for group in groups.values()]


def table_of(records: Sequence[RunRecord]) -> EvidenceTable:
    """The table of runs of one group."""
    notes: list[str] = []
    first = records[0]
    whole = [record for record in records if first.basis.length.steps in (None, record.steps)]
    if len(whole) < len(records):
        cut = list_text([record.name for record in records if record not in whole])
        notes.append(f"Left out, since they have fewer or more steps than the others: {cut}.")
    labels = tuple(dict.fromkeys(label for run in whole for scores in run.scores.values() for label in scores))
    arms = _arms(whole, notes)
    rows = [
        row
        for one in arms
        if one.arm in REFERENCES
        for other in arms
        if _is_compared(one, other)
        for row in contrast(one, other, labels, notes)
    ]
    notes += _differences(whole)
    return EvidenceTable(
        first.basis, first.amount, first.machine.precision, tuple(arms), labels, tuple(corrected(rows)), tuple(notes)
    )


def contrast(one: ArmResult, other: ArmResult, labels: Sequence[str], notes: list[str]) -> list[Row]:
    """Other minus one, for each label and all together, on their common runs; notes: gets what is left out and why."""
    pairs = []
    for key in sorted(one.runs.keys() & other.runs.keys()):
        first, second = one.runs[key], other.runs[key]
        if first.training_cases != second.training_cases or first.scores.keys() != second.scores.keys():
            notes.append(f"{first.name} and {second.name} are not compared: they have other cases.")
            continue
        pairs.append((first, second))
    started = [pair for pair in pairs if pair[0].initial_hash != pair[1].initial_hash]
    fed = [pair for pair in pairs if pair[0].batches_hash != pair[1].batches_hash]
    for those, what in ((started, "weights at the start"), (fed, "batches")):
        if those:
            notes.append(
                f"{one.name} and {other.name} have other {what} in {len(those)} of {len(pairs)} pairs of runs."
            )
    if not pairs:
        return []
    cases = list(dict.fromkeys(case for first, _ in pairs for case in first.scores))
    ones, others = (_values([pair[side] for pair in pairs], labels, cases) for side in (0, 1))
    every = [*labels, *([ALL_LABELS] if len(labels) > 1 else [])]
    return [_row(one.name, other.name, label, of_label(ones, others, number)) for number, label in enumerate(every)]


def _row(first: str, second: str, label: str, sides: tuple[Array, Array]) -> Row:
    """sides: (runs, cases) each."""
    table = sides[1] - sides[0]
    both = np.isfinite(table)
    means = [float(np.where(both, side, 0.0).sum() / both.sum()) if both.any() else math.nan for side in sides]
    return Row(METRIC, first, second, label, means[0], means[1], statistics.compare_runs(table))


def _values(runs: Sequence[RunRecord], labels: Sequence[str], cases: Sequence[str]) -> Array:
    """(labels, runs, cases); NaN: undefined, or not a case of that run."""
    values = np.full((len(labels), len(runs), len(cases)), np.nan)
    places = {case: number for number, case in enumerate(cases)}
    for number, run in enumerate(runs):
        for case, scores in run.scores.items():
            for row, label in enumerate(labels):
                value = scores.get(label)
                values[row, number, places[case]] = math.nan if value is None else value
    return values


def _is_compared(one: ArmResult, other: ArmResult) -> bool:
    """Each pair of arms once, and checks of `pretrained` with it alone."""
    if one.arm == other.arm or (one.arm, other.arm) == (REFERENCES[1], REFERENCES[0]):
        return False
    return other.arm not in CHECKS or one.arm == REFERENCES[1]


def _arms(records: Sequence[RunRecord], notes: list[str]) -> list[ArmResult]:
    """Runs of one arm, rates and block together; of two records of one run the first."""
    methods: dict[tuple[str, str, str], dict[RunKey, RunRecord]] = {}
    for record in records:
        block = "" if record.block is None else record.block.sha256
        runs = methods.setdefault((record.arm, record.rates.model_dump_json(), block), {})
        if runs.setdefault((record.fold, record.seed), record) is not record:
            notes.append(f"{record.name} is there twice: the one that was started first counts.")
    several = Counter(arm for arm, _, _ in methods)
    arms = []
    for (arm, _, _), runs in methods.items():
        name = arm if several[arm] == 1 else f"{arm} ({_choices(next(iter(runs.values())))})"
        seconds = median(run.seconds_per_step for run in runs.values())
        arms.append(ArmResult(name, arm, runs, fmean(run.mean_dice for run in runs.values()), seconds))
    plain = next((arm for arm in arms if arm.arm == REFERENCES[0]), None)
    return arms if plain is None else [replace(arm, cost=_cost(arm, plain)) for arm in arms]


def _choices(record: RunRecord) -> str:
    rates, block = record.rates, record.block
    layers = "" if block is None or block.layers == 1 else f" and {block.layers - 1} before it"
    of_block = "" if block is None else f", {block.source} layer {block.layer}{layers}"
    return f"lr {rates.learning_rate:g}, mappers x {rates.mapper_rate:g}{of_block}"


def _cost(arm: ArmResult, plain: ArmResult) -> float:
    common = arm.runs.keys() & plain.runs.keys()
    ratios = [
        arm.runs[key].seconds_per_step / plain.runs[key].seconds_per_step
        for key in common
        if plain.runs[key].seconds_per_step > 0
    ]
    return median(ratios) if ratios else math.nan


def _differences(records: Sequence[RunRecord]) -> list[str]:
    """What the runs of a table do not have in common, though it does not forbid to compare them."""
    found = []
    for what, of in (
        ("versions of mvl_auto", lambda record: record.mvl_auto_version),
        ("versions of torch", lambda record: record.machine.torch_version),
        ("processors", lambda record: f"{record.machine.processor} ({record.machine.device})"),
    ):
        values = list(dict.fromkeys(map(of, records)))
        if len(values) > 1:
            found.append(f"The runs were made with several {what}: {', '.join(values)}.")
    return found


def _order(record: RunRecord) -> tuple[object, ...]:
    """By dataset, configuration, amount (the most first), length, then as the arms are listed; at last by time."""
    from mvl_auto.ablation.arms import ARMS

    amount, length = record.amount, record.basis.length
    arms = list(ARMS)
    return (
        record.basis.dataset,
        record.basis.configuration,
        (-1.0 * (amount.share or 0.0), -(amount.cases or 0)),
        (length.steps or 0, length.seconds or 0.0),
        arms.index(record.arm) if record.arm in arms else len(arms),
        record.arm,
        int(record.fold) if record.fold.isdigit() else -1,
        record.seed,
        record.started,
    )
