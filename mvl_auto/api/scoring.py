"""Scores, comparisons, reports and the label audit: what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.arguments import list_of_words
from mvl_auto.files import ensure_writable_folder, entries
from mvl_auto.outputs import check_not_read, leaving_no_trace
from mvl_auto.paths import (
    absolute_path,
    blocks_folder,
    find_raw_dataset,
    find_root,
)
from mvl_auto.progress import Progress, silent

if TYPE_CHECKING:
    from mvl_auto.audit import AuditReport
    from mvl_auto.evaluation import Summary
    from mvl_auto.evaluation.compare import ModelComparison
    from mvl_auto.evaluation.raters import Agreement
    from mvl_auto.report import Report


def evaluate(
    references: Path | str,
    predictions: Path | str,
    *,
    output: Path | str | None = None,
    dataset_json: Path | str | None = None,
    metrics: str | Sequence[str] = "default",
    tolerance_mm: float | Mapping[str, float] | None = None,
    boundary_mm: float | None = None,
    lesion_iou: float | None = None,
    only_common: bool = False,
    missing_as_zero: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Summary:
    """Scores of every case that two folders of label files have in common, and CSV and JSON of them.

    output: the folder for the files (default: that of the predictions). dataset_json: what the labels are called
    (default: the one beside the references, if any). metrics: names as in docs/evaluation.md, or groups of them.
    tolerance_mm: of NSD, for all labels or by label (others: 1 mm). boundary_mm: width of the boundary of boundary_iou
    (default: 2 % of the image's diagonal). lesion_iou: overlap from which on a lesion is found (default: 0.1).
    only_common: leave out cases that only one folder has. missing_as_zero: a missing prediction counts as empty.
    Raises MvlError for what the user can mend.
    """
    from mvl_auto.evaluation import evaluate_folders, score_files, write_scores
    from mvl_auto.evaluation.case import make_scoring

    scoring = make_scoring(metrics, tolerance_mm, boundary_mm, lesion_iou)
    about = {"references": str(absolute_path(references)), "predictions": str(absolute_path(predictions))}
    target = Path(output or predictions)
    check_not_read(score_files(target), _label_files(dataset_json, references, predictions))
    with leaving_no_trace(target):
        if output or target.is_dir():
            ensure_writable_folder(target)  # before minutes of scoring
        summary = evaluate_folders(
            Path(references),
            Path(predictions),
            scoring=scoring,
            labels=None if dataset_json is None else Path(dataset_json),
            only_common=only_common,
            missing_as_zero=missing_as_zero,
            workers=workers,
            progress=progress,
        )
        write_scores(summary, target, about | {"missing_as_zero": missing_as_zero})
    return summary


def evaluate_raters(
    raters: Path | str,
    predictions: Path | str,
    *,
    output: Path | str | None = None,
    dataset_json: Path | str | None = None,
    metrics: str | Sequence[str] = "default",
    tolerance_mm: float | Mapping[str, float] | None = None,
    boundary_mm: float | None = None,
    lesion_iou: float | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Agreement:
    """How well predictions agree with each of several raters, and the raters with each other; raters.csv and .json.

    raters: a folder with one folder of label files per rater. Cases that not all have are compared where two have
    them. The other arguments are as in `evaluate`. Raises MvlError for what the user can mend.
    """
    from mvl_auto.evaluation import raters as of_raters
    from mvl_auto.evaluation.case import make_scoring

    scoring = make_scoring(metrics, tolerance_mm, boundary_mm, lesion_iou)
    about = {"raters": str(absolute_path(raters)), "predictions": str(absolute_path(predictions))}
    target = Path(output or predictions)
    read = _label_files(dataset_json, predictions, *of_raters.find_raters(Path(raters)).values())
    check_not_read(of_raters.agreement_files(target), read)
    with leaving_no_trace(target):
        if output or target.is_dir():
            ensure_writable_folder(target)
        agreement = of_raters.evaluate_raters(
            Path(raters),
            Path(predictions),
            scoring=scoring,
            dataset_json=None if dataset_json is None else Path(dataset_json),
            workers=workers,
            progress=progress,
        )
        of_raters.write_agreement(agreement, target, about)
    return agreement


def compare(
    models: str | Path | Sequence[Path | str],
    *,
    output: Path | str = "comparison",
    metrics: str | Sequence[str] | None = None,
    only_common: bool = False,
) -> ModelComparison:
    """Which of two or more models is better, with statistics, on the same cases; tables and a plot of it.

    models: each a folder with scores.json or summary.json, a training run, or several of them: "name=path,path".
    output: the folder for the files. metrics: default, Dice, HD95 and NSD where all models have them.
    only_common: leave out cases and labels that not all models have. Raises MvlError for what the user can mend.
    """
    from mvl_auto.evaluation.compare import compare_models
    from mvl_auto.evaluation.comparison_files import comparison_files, write_comparison
    from mvl_auto.evaluation.scored import read_models

    read = read_models(list_of_words(models))
    comparison = compare_models(read, metrics, only_common=only_common)
    check_not_read(comparison_files(Path(output)), [run.file for model in read for run in model.runs])
    with leaving_no_trace(Path(output)):
        write_comparison(comparison, ensure_writable_folder(Path(output)))
    return comparison


def report(
    runs: str | Path | Sequence[str | Path] | Mapping[str, Path] = (),
    *,
    root: Path | str | None = None,
    dataset: str | int | Path | None = None,
    run: str | Sequence[str] = (),
    output: Path | str | None = None,
    volumes: bool = True,
    progress: Progress = silent,
) -> Report:
    """One HTML file of a training run, or of several side by side.

    runs: folders of runs, with a name in front or not ("llm=FOLDER"), or name -> folder; or dataset and run: those of
    the root. output: the file (default: report.html in the run's folder). volumes: embed images to scroll through.
    Raises MvlError when a run is not there, or the file cannot be written.
    """
    from mvl_auto.report import write_report
    from mvl_auto.report.find import find_run_folders, named_folders

    if isinstance(runs, Mapping):
        found = dict(runs)
    elif runs:
        found = named_folders(list_of_words(runs))
    else:
        found = find_run_folders(find_root(root), dataset, list_of_words(run))
    target = None if output is None else Path(output)
    return write_report(found, target, volumes=volumes, progress=progress)


def audit(
    dataset: str | int | Path,
    *,
    root: Path | str | None = None,
    configuration: str | None = None,
    run: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> AuditReport:
    """Rank the labels of a dataset by how likely they are wrong, by networks that were not trained on them.

    Every case is predicted again by the fold that kept it apart, so train all folds of the cross-validation before.
    configuration, run: which run, where the root has several. Raises MvlError for what the user can mend.
    """
    from mvl_auto.audit import audit_run
    from mvl_auto.runs import find_trained

    root = find_root(root)
    trained = find_trained(root, dataset, configuration, run)
    raw = find_raw_dataset(dataset, root)
    return audit_run(trained, raw, blocks_folder(root), device=device, progress=progress)


def _label_files(described: Path | str | None, *folders: Path | str) -> Iterator[Path]:
    """The images of folders of labels, and the file that says what they are called.

    Not what else lies there: the scores of before are replaced.
    """
    from mvl_auto.images import file_ending

    if described is not None:
        yield Path(described)
    for folder in map(Path, folders):
        if folder.is_dir():
            yield from (path for path in entries(folder) if file_ending(path) or path.is_dir())
