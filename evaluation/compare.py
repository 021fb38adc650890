"""Two or more models compared, case by case, on what `mvl_evaluate` or training's validation wrote.

A model is one training run or several (folds, seeds). With several the run is the unit of the statistics, with one
the case can only be (statistics.py has why that matters). Runs are paired: the k-th path of one model belongs to the
k-th path of the other, and in them a fold to the same fold. Differences are second minus first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mvl_auto.errors import MvlError
from mvl_auto.evaluation import statistics
from mvl_auto.evaluation.metrics import METRICS, choose_metrics
from mvl_auto.evaluation.pairs import some_names
from mvl_auto.evaluation.scored import Model, ScoredRun

Array = NDArray[np.float64]

DEFAULT_METRICS = ("dice", "hd95_mm", "nsd")  # those of them that all models have
ALL_LABELS = "all labels"
BY_CASE = (
    "The unit is the case, since each model is a single training run. This says whether these two networks differ on "
    "cases like these. It cannot say whether the methods differ: two runs of one method that differ in nothing but the "
    "seed often differ as clearly. Train at least 3 seeds or folds of each for that."
)
BY_RUN = (
    "The unit is the run: {runs} runs per model, paired by their order and fold, so that this says whether the methods "
    "differ. Tests and intervals count the variation between runs and between cases (Student's t; the interval of a "
    "two-level bootstrap over runs and cases is in the files)."
)
FEW_RUNS = " So few runs show only differences that are very large against the noise of a seed: see detectable."
CHOICES: Mapping[str, tuple[str, ...]] = {  # metric -> what must have been chosen alike
    "nsd": ("tolerance_mm", "tolerances_mm"),
    "boundary_iou": ("boundary_mm",),
    "lesion_recall": ("lesion_iou",),
    "lesion_precision": ("lesion_iou",),
    "lesion_f1": ("lesion_iou",),
}


@dataclass(frozen=True)
class Row:
    """One label, or all, of one metric of two models.

    first_mean, second_mean: over the cases (and runs) that both have. p_corrected: by Holm over the labels and pairs of
    a metric, for all labels over the pairs. wins, losses: cases on which the second is better, worse.
    """

    metric: str
    first: str
    second: str
    label: str
    first_mean: float
    second_mean: float
    compared: statistics.Comparison
    p_corrected: float = math.nan

    @property
    def wins(self) -> int:
        return self.compared.higher if METRICS[self.metric].higher_is_better else self.compared.lower

    @property
    def losses(self) -> int:
        return self.compared.lower if METRICS[self.metric].higher_is_better else self.compared.higher


@dataclass(frozen=True, eq=False)
class ModelComparison:
    """All rows, and the differences behind them.

    unit: "case" or "run", reason: why, in sentences. differences: (metric, first, second, label) -> difference of each
    case, the mean over runs.
    """

    models: tuple[Model, ...]
    metrics: tuple[str, ...]
    unit: str
    reason: str
    rows: tuple[Row, ...]
    differences: Mapping[tuple[str, str, str, str], Mapping[str, float]]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((row.first, row.second) for row in self.rows))


def compare_models(
    models: Sequence[Model], metrics: str | Sequence[str] | None = None, *, only_common: bool = False
) -> ModelComparison:
    """Compare every two models, on every label and on all labels together.

    metrics: names (default: DEFAULT_METRICS as far as all models have them). only_common: leave out cases and labels
    that not all models have, which are otherwise an error.
    Raises MvlError when runs, cases, labels or the way of scoring do not fit, or a metric was not computed.
    """
    if len(models) < 2:
        raise MvlError("a comparison needs two models", remedy="Name the folders of at least two.")
    chosen = _metrics(models, metrics)
    _check_runs(models)
    every = [run for model in models for run in model.runs]
    labels = _shared(every, "label", lambda run: run.labels, only_common)
    paired = zip(*(model.runs for model in models), strict=True)
    cases = [_shared(runs, "case", lambda run: run.cases, only_common) for runs in paired]
    rows: list[Row] = []
    differences = {}
    for metric in chosen:
        of_metric: list[Row] = []
        for first, second in itertools.combinations(models, 2):
            values = [_values(model, metric, labels, cases) for model in (first, second)]
            for number, label in enumerate([*labels, *([ALL_LABELS] if len(labels) > 1 else [])]):
                one, other = of_label(values[0], values[1], number)
                table = other - one
                compared = statistics.compare_runs(table) if len(table) > 1 else statistics.compare_cases(table[0])
                both = np.isfinite(table)
                means = [float(side[both].mean()) if both.any() else math.nan for side in (one, other)]
                of_metric.append(Row(metric, first.name, second.name, label, means[0], means[1], compared))
                differences[metric, first.name, second.name, label] = _per_case(table, cases)
        rows += corrected(of_metric)
    unit, reason = _unit(len(models[0].runs))
    return ModelComparison(tuple(models), chosen, unit, reason, tuple(rows), differences)


def _unit(runs: int) -> tuple[str, str]:
    if runs == 1:
        return "case", BY_CASE
    return "run", BY_RUN.format(runs=runs) + FEW_RUNS * (runs < 4)


def corrected(rows: Sequence[Row]) -> list[Row]:
    """With Holm's correction: over labels and pairs, and for all labels together over the pairs."""
    p_of: dict[int, float] = {}
    for overall in (False, True):
        family = [number for number, row in enumerate(rows) if (row.label == ALL_LABELS) == overall]
        p_values = statistics.holm([rows[number].compared.p_value for number in family])
        p_of |= dict(zip(family, map(float, p_values), strict=True))
    return [replace(row, p_corrected=p_of[number]) for number, row in enumerate(rows)]


def _metrics(models: Sequence[Model], wanted: str | Sequence[str] | None) -> tuple[str, ...]:
    """Those to compare. Raises MvlError when a model lacks one, or they were not computed alike."""
    runs = [run for model in models for run in model.runs]
    if wanted is None:
        chosen = tuple(name for name in DEFAULT_METRICS if all(name in run.metrics for run in runs))
        chosen = chosen or tuple(name for name in runs[0].metrics if all(name in run.metrics for run in runs))[:1]
        if not chosen:
            raise MvlError("the models have no metric in common", remedy="Run mvl_evaluate with the same --metrics.")
    else:
        chosen = choose_metrics(wanted)
    for metric in chosen:
        for run in runs:
            if metric not in run.metrics:
                remedy = f"Run mvl_evaluate with --metrics {metric}, or compare {', '.join(run.metrics)}."
                raise MvlError(f"has no {metric}", file=run.file, remedy=remedy)
            for choice in CHOICES.get(metric, ()):
                if run.scoring.get(choice) != runs[0].scoring.get(choice):
                    raise MvlError(
                        f"its {metric} has another {choice} ({run.scoring.get(choice)}) than that of {runs[0].file} "
                        f"({runs[0].scoring.get(choice)})",
                        file=run.file,
                        remedy="Run mvl_evaluate again with the same settings.",
                    )
            if METRICS[metric].needs == "surfaces" and run.schema_version != runs[0].schema_version:
                raise MvlError(
                    f"its {metric} was computed by another version than that of {runs[0].file}: one of them counts "
                    f"surface voxels, the other weighs them by area",
                    file=run.file,
                    remedy="Run mvl_evaluate again on both.",
                )
    return chosen


def _check_runs(models: Sequence[Model]) -> None:
    first = models[0]
    for other in models[1:]:
        if len(first.runs) == len(other.runs) == 1:
            continue
        keys, other_keys = ([run.key for run in model.runs] for model in (first, other))
        if keys != other_keys:
            raise MvlError(
                f"the model '{first.name}' has the runs {', '.join(keys)}, '{other.name}' has {', '.join(other_keys)}",
                remedy="Name the same folds, and as many seeds, of each.",
            )


def _shared(
    runs: Sequence[ScoredRun], what: str, of: Callable[[ScoredRun], tuple[str, ...]], only_common: bool
) -> tuple[str, ...]:
    """The cases or labels that all runs have, in the order of the first.

    Raises MvlError, naming them, when there is none, or some have others (unless only_common), or two names differ in
    upper and lower case only.
    """
    common = set(of(runs[0])).intersection(*(of(run) for run in runs[1:]))
    for run in runs:
        _refuse_other_case(runs[0], run, what, of)
        for other, names in ((runs[0], set(of(runs[0])) - set(of(run))), (run, set(of(run)) - set(of(runs[0])))):
            if names and not only_common:
                lacking = run if other is runs[0] else runs[0]
                raise MvlError(
                    f"lacks {len(names)} {what}{'s' * (len(names) > 1)} that {other.file} has: {some_names(names)}",
                    file=lacking.file,
                    remedy=f"Compare the same {what}s, or use --only-common to leave these out.",
                )
    if not common:
        what = f"has no {what} in common with {runs[0].file}"
        raise MvlError(what, file=runs[-1].file, remedy="Compare models that were scored on the same data.")
    return tuple(name for name in of(runs[0]) if name in common)


def _refuse_other_case(first: ScoredRun, run: ScoredRun, what: str, of: Callable[[ScoredRun], tuple[str, ...]]) -> None:
    """Two names that are the same but for upper and lower case are most likely one: leaving them out would hide it."""
    lower = {name.casefold(): name for name in set(of(first)) - set(of(run))}
    for name in sorted(set(of(run)) - set(of(first))):
        if twin := lower.get(name.casefold()):
            raise MvlError(
                f"its {what} '{name}' differs from '{twin}' of {first.file} in upper and lower case only",
                file=run.file,
                remedy="Rename one of them and run mvl_evaluate again.",
            )


def _values(model: Model, metric: str, labels: Sequence[str], cases: Sequence[Sequence[str]]) -> Array:
    """(labels, runs, cases of all runs); NaN: undefined, or not a case of that run. Signed errors by their size."""
    every = _every(cases)
    places = {case: number for number, case in enumerate(every)}
    values = np.full((len(labels), len(model.runs), len(every)), np.nan)
    for number, (run, of_run) in enumerate(zip(model.runs, cases, strict=True)):
        for row, label in enumerate(labels):
            for case in of_run:
                values[row, number, places[case]] = run.value(case, label, metric)
    return np.abs(values) if METRICS[metric].higher_is_better is None else values


def of_label(one: Array, other: Array, number: int) -> tuple[Array, Array]:
    """(runs, cases) of one label or, behind the last one, of the mean over the labels that both sides have defined.

    one, other: (labels, runs, cases).
    """
    if number < len(one):
        return one[number], other[number]
    both = np.isfinite(one) & np.isfinite(other)
    counts = both.sum(0)
    with np.errstate(invalid="ignore"):
        first, second = (np.where(both, side, 0.0).sum(0) / counts for side in (one, other))
    return first, second


def _per_case(table: Array, cases: Sequence[Sequence[str]]) -> dict[str, float]:
    """Case -> its difference, the mean over runs; without the undefined ones."""
    defined = np.isfinite(table)
    totals, counts = np.where(defined, table, 0.0).sum(0), defined.sum(0)
    return {
        case: float(total / count) for case, total, count in zip(_every(cases), totals, counts, strict=True) if count
    }


def _every(cases: Sequence[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(case for of_run in cases for case in of_run))
