"""Two folders of label files, references and predictions, compared case by case.

A prediction belongs to the reference of the same name; their formats may differ, their grids may not. What
is scored, and what it is called, comes from the dataset.json beside the references; where there is none,
every value that occurs in either folder is a label of its own, called by its value, and 0 is background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import TypeVar

import numpy as np

from mvl_auto.datasets import read_scheme, to_classes
from mvl_auto.errors import MvlError
from mvl_auto.evaluation.case import LabelScore, SurfaceSettings, score_case
from mvl_auto.evaluation.summary import Summary, summarise
from mvl_auto.evaluation.surfaces import DEFAULT_TOLERANCE_MM
from mvl_auto.files import read_json
from mvl_auto.images import FILE_ENDINGS, check_same_geometry, file_ending, read_label, stem
from mvl_auto.plans import LabelScheme
from mvl_auto.progress import Progress, silent
from mvl_auto.text import list_text

MOST_WORKERS = 8  # each holds one case's two label maps
NAMES_IN_MESSAGE = 5
BACKGROUND = 0

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """The two files of one case."""

    name: str
    reference: Path
    prediction: Path


def evaluate_folders(
    references: Path,
    predictions: Path,
    *,
    labels: LabelScheme | None = None,
    dataset_json: Path | None = None,
    surfaces: bool = False,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    only_common: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Summary:
    """Score every case of two folders.

    labels: what to score; by default what `dataset_json` says or, without that, as `find_labels` finds it.
    surfaces: HD95 and NSD as well, in mm, with `tolerance_mm` for NSD. only_common: leave out the cases that only
    one of the folders has, which are otherwise an error. workers: threads.
    Raises MvlError for a case without its partner, files that cannot be read, grids that differ, unknown labels.
    """
    pairs = match_cases(references, predictions, only_common=only_common)
    workers = workers or min(cpu_count() or 1, MOST_WORKERS)
    labels = labels or find_labels(references, dataset_json) or labels_in_files(pairs, workers, progress)

    def score(pair: Pair) -> tuple[LabelScore, ...]:
        return score_files(pair, labels, tolerance_mm if surfaces else None)

    scores = {pair.name: of_case for pair, of_case in _each(score, pairs, "evaluating", workers, progress)}
    return summarise(scores, tolerance_mm if surfaces else None)


def score_files(pair: Pair, labels: LabelScheme, tolerance_mm: float | None = None) -> tuple[LabelScore, ...]:
    """Score one case from its files. tolerance_mm: None leaves HD95 and NSD out."""
    reference, reference_geometry = read_label(pair.reference)
    predicted, predicted_geometry = read_label(pair.prediction)
    check_same_geometry(reference_geometry, predicted_geometry, pair.reference, pair.prediction, what="prediction")
    surfaces = None if tolerance_mm is None else SurfaceSettings(reference_geometry.spacing, tolerance_mm)
    return score_case(
        to_classes(reference, labels, pair.reference), to_classes(predicted, labels, pair.prediction), labels, surfaces
    )


def match_cases(references: Path, predictions: Path, *, only_common: bool = False) -> list[Pair]:
    """The files of two folders that have the same name up to their ending, sorted by it.

    Raises MvlError, naming them, for cases that only one folder has (unless only_common), and where
    there is nothing to compare.
    """
    expected, found = _label_files(references, "reference"), _label_files(predictions, "prediction")
    common = sorted(expected.keys() & found.keys())
    if not only_common:
        _refuse_lonely(expected.keys() - found.keys(), predictions, "prediction", of=len(expected))
        _refuse_lonely(found.keys() - expected.keys(), references, "reference", of=len(found))
    if not common:
        raise MvlError(
            f"no file has the name of one in {references}",
            file=predictions,
            remedy="Give a prediction the name of its reference.",
        )
    return [Pair(name, expected[name], found[name]) for name in common]


def find_labels(references: Path, dataset_json: Path | None = None) -> LabelScheme | None:
    """The labels of `dataset_json` or else of the dataset.json in the references' folder or the one above it.

    None where there is none. Raises MvlError when it is no dataset.json, or a given one is missing.
    """
    folder = Path(references).absolute()
    beside = [path for path in (folder / "dataset.json", folder.parent / "dataset.json") if path.is_file()]
    path = dataset_json or next(iter(beside), None)
    if path is None:
        return None
    content = read_json(path)
    if not isinstance(content, dict):
        raise MvlError("is a list, not an object with labels", file=path, remedy="Give the dataset.json of a dataset.")
    return read_scheme(content, path)


def labels_in_files(pairs: list[Pair], workers: int = 1, progress: Progress = silent) -> LabelScheme:
    """A label for each value but 0 that occurs in any file, called by its value.

    Predictions are looked at too: a label that no reference has is a mistake that must show.
    """

    def values_of(pair: Pair) -> set[int]:
        both = (read_label(path)[0] for path in (pair.reference, pair.prediction))
        return {int(value) for values in both for value in np.unique(values)}

    found = set().union(*(values for _, values in _each(values_of, pairs, "looking for labels", workers, progress)))
    values = (BACKGROUND, *sorted(found - {BACKGROUND}))
    if len(values) == 1:
        raise MvlError(
            f"its {len(pairs)} references and their predictions hold nothing but background",
            file=pairs[0].reference.parent,
            remedy="Give the labels' names with --dataset-json.",
        )
    return LabelScheme(class_values=values, class_names=("background", *map(str, values[1:])))


def _label_files(folder: Path, what: str) -> dict[str, Path]:
    """Name without ending -> file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise MvlError(f"is no folder of {what}s", file=folder, remedy="Give the folder that holds them.")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not file_ending(path) or path.name.startswith("."):
            continue
        if other := files.get(stem(path)):
            raise MvlError(f"there are two {what}s of one name, {other.name} too", file=path, remedy="Remove one.")
        files[stem(path)] = path
    if not files:
        raise MvlError(f"holds no {what}s", file=folder, remedy=f"Files may end in {', '.join(FILE_ENDINGS)}.")
    return files


def _refuse_lonely(names: Iterable[str], folder: Path, what: str, of: int) -> None:
    lonely = sorted(names)
    if lonely:
        raise MvlError(
            f"has no {what} for {len(lonely)} of {of} cases: {list_text(lonely, NAMES_IN_MESSAGE)}",
            file=folder,
            remedy="Add them, or use --only-common to leave these cases out.",
        )


def _each(
    function: Callable[[Pair], T], pairs: list[Pair], what: str, workers: int, progress: Progress
) -> Iterator[tuple[Pair, T]]:
    """Apply a function to all pairs in threads, in order; the first error stops it."""
    with ThreadPoolExecutor(workers) as pool, progress(what, total=len(pairs)) as advance:
        try:
            for pair, result in zip(pairs, pool.map(function, pairs), strict=True):
                advance(1, pair.name)
                yield pair, result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
