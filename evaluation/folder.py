"""Two folders of label files, references and predictions, compared case by case.

A prediction belongs to the reference of the same name; their formats may differ, their grids may not. What
is scored, and what it is called, comes from the dataset.json beside the references (or labels.json beside the
predictions); where there is none, every value that occurs in either folder is a label of its own, called by its
value, and 0 is background. Every file is read once; each worker process holds one case at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvl_auto.datasets import read_scheme, read_values, to_classes
from mvl_auto.errors import MvlError
from mvl_auto.evaluation.case import LabelScore, Scoring, score_case
from mvl_auto.evaluation.metrics import DEFAULT_METRICS, METRICS, Measured
from mvl_auto.evaluation.overlap import Counts
from mvl_auto.evaluation.pairs import Pair, match_cases, some_names
from mvl_auto.evaluation.summary import Summary, summarise
from mvl_auto.files import read_json
from mvl_auto.images import check_same_geometry, composed
from mvl_auto.jobs import JobFailed, log_trace, run_jobs, worthwhile_workers
from mvl_auto.plans import MOST_CLASSES, LabelScheme
from mvl_auto.progress import Progress, silent

MOST_WORKERS = 8  # each holds one case's two label maps
BACKGROUND = 0
VOXELS_AT_ONCE = 1 << 18
VOXELS_LOOKED_AT = 1 << 14  # few, so that many parts hold one value alone
FEW = 1 << 16  # values below this are counted, others sorted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseScores:
    """The scores of one case. values: the label values that occur, where nobody named the labels."""

    scores: tuple[LabelScore, ...]
    voxels: int
    values: frozenset[int] = frozenset()
    predicted_values: frozenset[int] = frozenset()


def evaluate_folders(
    references: Path,
    predictions: Path,
    *,
    scoring: Scoring | None = None,
    labels: LabelScheme | Path | None = None,
    only_common: bool = False,
    missing_as_zero: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Summary:
    """Score every case of two folders.

    scoring: the metrics and their settings (default: DEFAULT_METRICS). labels: what to score, or a
    dataset.json that says it (default: as `find_labels` finds it). only_common: leave out the cases that only
    one of the folders has, which are otherwise an error. missing_as_zero: a missing prediction counts as an empty one.
    workers: processes.
    Raises MvlError for a case without its partner, files that cannot be read, grids that differ, unknown labels.
    """
    scoring = scoring or Scoring(DEFAULT_METRICS)
    pairs = match_cases(references, predictions, only_common=only_common, missing_as_zero=missing_as_zero)
    scheme = labels if isinstance(labels, LabelScheme) else find_labels(references, predictions, labels)
    if scheme is not None:
        check_tolerances(scoring, scheme.foreground_names)
    found = _score_all(pairs, scheme, scoring, workers, progress)
    if scheme is None:
        values = frozenset().union(*(case.values for case in found.values())) - {BACKGROUND}
        if not values:
            raise MvlError(
                f"its {len(pairs)} references and their predictions hold nothing but background",
                file=references,
                remedy="Name the labels with --dataset-json.",
            )
        check_tolerances(scoring, list(map(str, sorted(values))))
        _warn_of_predicted_only(found, predictions)
        found = {name: _with_absent(case, values, scoring) for name, case in found.items()}
    return summarise({name: case.scores for name, case in found.items()}, scoring)


def score_files(pair: Pair, labels: LabelScheme | None, scoring: Scoring) -> CaseScores:
    """Score one case from its files. labels: None scores each value that occurs in it.

    Raises MvlError when a file cannot be read, the grids differ, or a value has no label.
    """
    reference, geometry = read_values(pair.reference, labels)
    predicted: NDArray[np.integer]
    if pair.prediction is None:
        predicted = np.zeros(reference.shape, np.uint8)
    else:
        predicted, predicted_geometry = read_values(pair.prediction, labels, geometry)
        if geometry.shape != predicted_geometry.shape:  # a segmentation of 3D Slicer may cover a part of the image
            reference, geometry = read_values(pair.reference, labels, predicted_geometry)
        check_same_geometry(geometry, predicted_geometry, pair.reference, pair.prediction, what="prediction")
    in_reference: frozenset[int] = frozenset()
    in_prediction: frozenset[int] = frozenset()
    if labels is None:
        in_reference, in_prediction = values_in(reference), values_in(predicted)
        for file, values in (
            (pair.reference, in_reference),
            (pair.prediction or pair.reference, in_prediction | in_reference),
        ):
            if len(values - {BACKGROUND}) >= MOST_CLASSES:
                what = f"has {len(values)} different values, as an image has; a label file has at most {MOST_CLASSES}"
                raise MvlError(what, file=file, remedy="Give the folder of the label files.")
        labels = scheme_of(in_reference | in_prediction)
    voxels = int(reference.size)
    reference = classes_in(reference, labels, pair.reference)  # one by one: the values are not needed any more
    predicted = classes_in(predicted, labels, pair.prediction or pair.reference)
    scores = score_case(reference, predicted, labels, scoring, geometry.spacing)
    return CaseScores(scores, voxels, in_reference | in_prediction, in_prediction - in_reference)


def find_labels(references: Path, predictions: Path, dataset_json: Path | None = None) -> LabelScheme | None:
    """The labels of `dataset_json`, or of the dataset.json in the references' folder or the one above it, or of the
    labels.json that mvl_predict writes beside its predictions.

    None where there is none. Raises MvlError when it is no dataset.json, or a given one is missing.
    """
    folder = Path(references).absolute()
    places = (folder / "dataset.json", folder.parent / "dataset.json", Path(predictions) / "labels.json")
    path = dataset_json or next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    content = read_json(path)
    if not isinstance(content, dict):
        raise MvlError("is a list, not an object with labels", file=path, remedy="Give the dataset.json of a dataset.")
    return read_scheme(content, path)


def check_tolerances(scoring: Scoring, labels: Sequence[str]) -> None:
    """Raise MvlError when a tolerance is given for a label that is not scored."""
    if unknown := set(scoring.tolerances_mm).difference(map(composed, labels)):
        raise MvlError(
            f"a tolerance is given for '{sorted(unknown)[0]}', which is not a label",
            remedy=f"The labels are {', '.join(labels)}.",
        )


def scheme_of(values: frozenset[int]) -> LabelScheme:
    """Each value but 0 as a label of its own, called by its value."""
    ordered = sorted(values - {BACKGROUND})
    return LabelScheme(class_values=(BACKGROUND, *ordered), class_names=("background", *map(str, ordered)))


def values_in(array: NDArray[np.integer]) -> frozenset[int]:
    """The values that occur in an array of integers of any type."""
    found: set[int] = set()
    flat = array.ravel()
    for start in range(0, flat.size, VOXELS_LOOKED_AT):
        some = flat[start : start + VOXELS_LOOKED_AT]
        lowest, highest = int(some.min()), int(some.max())
        if lowest == highest:  # as most parts of most label files are
            found.add(lowest)
        elif lowest >= 0 and highest < FEW:
            found.update(np.flatnonzero(np.bincount(some)).tolist())
        else:
            found.update(np.unique(some).tolist())
    return frozenset(found)


def classes_in(values: NDArray[np.integer], labels: LabelScheme, file: Path) -> NDArray[np.integer]:
    """As `to_classes`, in the smallest type, part by part: the large temporaries are those of a part.

    Values of one byte are overwritten: the classes take their place in memory.
    """
    dtype = np.dtype(np.int8 if len(labels.class_values) <= np.iinfo(np.int8).max else np.int16)
    here = values.dtype.itemsize == dtype.itemsize and values.flags.c_contiguous and values.flags.writeable
    classes: NDArray[np.integer] = values.view(dtype) if here else np.empty(values.shape, dtype)
    if here and values.size and _are_classes(values, labels):
        return classes
    flat_values, flat_classes = values.ravel(), classes.ravel()  # both are contiguous: views
    for start in range(0, flat_values.size, VOXELS_AT_ONCE):
        some = slice(start, start + VOXELS_AT_ONCE)
        part: NDArray[Any] = flat_values[some]
        if part.dtype.itemsize > 2 or part.dtype.kind == "i":
            part = part.astype(np.uint64 if part.dtype == np.uint64 else np.int64)
        flat_classes[some] = to_classes(part, labels, file)
    return classes


def _are_classes(values: NDArray[np.integer], labels: LabelScheme) -> bool:
    """Whether label values are 0, 1, 2, ... and so are their classes already."""
    counted = labels.class_values == tuple(range(len(labels.class_values))) and labels.ignore_value is None
    return counted and int(values.min()) >= 0 and int(values.max()) < len(labels.class_values)


def _score_all(
    pairs: list[Pair], labels: LabelScheme | None, scoring: Scoring, workers: int | None, progress: Progress
) -> dict[str, CaseScores]:
    """Name -> scores, in the order of the pairs. Raises MvlError for the first case that fails, counting the others."""
    files = [path for pair in pairs for path in (pair.reference, pair.prediction) if path is not None]
    workers = workers or min(worthwhile_workers(files, len(pairs)), MOST_WORKERS)
    scored: dict[str, CaseScores] = {}
    failed: dict[str, MvlError] = {}
    with progress("evaluating", total=len(pairs)) as advance:
        for pair, outcome in run_jobs(partial(score_files, labels=labels, scoring=scoring), pairs, workers):
            if isinstance(outcome, JobFailed):
                log_trace(log, pair.name, outcome)
                failed[pair.name] = MvlError(f"cannot be scored: {outcome}", file=pair.reference)
            elif isinstance(outcome, MvlError):
                failed[pair.name] = outcome
            else:
                scored[pair.name] = outcome
            advance(1, pair.name)
    if failed:
        first, *others = [failed[pair.name] for pair in pairs if pair.name in failed]
        if not others:
            raise first
        names = some_names(set(failed) - {pair.name for pair in pairs if failed.get(pair.name) is first})
        more = f"{len(others)} more case{'s fail' if len(others) > 1 else ' fails'}: {names}"
        raise MvlError(f"{first.what}; {more}", file=first.file, remedy=first.remedy)
    return {pair.name: scored[pair.name] for pair in pairs}


def _with_absent(case: CaseScores, values: frozenset[int], scoring: Scoring) -> CaseScores:
    """With the labels that other cases have and this one lacks, on both sides."""
    there = {score.label: score for score in case.scores}
    absent = Measured(Counts(0, 0, 0, case.voxels))
    metrics = {name: METRICS[name].of(absent) for name in scoring.metrics}
    scores = [there.get(name) or LabelScore(name, metrics, 0, 0) for name in map(str, sorted(values))]
    return CaseScores(tuple(scores), case.voxels)


def _warn_of_predicted_only(found: dict[str, CaseScores], predictions: Path) -> None:
    in_references = frozenset().union(*(case.values - case.predicted_values for case in found.values()))
    only = frozenset().union(*(case.predicted_values for case in found.values())) - in_references
    if only:
        listed = some_names(map(str, only))
        log.warning("%s: no reference has the label value %s; it counts as wrong", predictions, listed)
