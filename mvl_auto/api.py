"""The functions that the commands call, and anyone's own Python:

    plan_and_preprocess -> train -> predict -> evaluate, and beside them doctor before, explain after

Each finds its folders under one root, calls one stage, and leaves the result on disk for the next.
What is in the stages is not repeated here, and nothing is decided here but which files belong together.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mvl_auto.arguments import Folds, as_bytes, as_seconds, list_of_folds
from mvl_auto.errors import MvlError
from mvl_auto.files import clear_unfinished, ensure_writable_folder, is_there, locked
from mvl_auto.jobs.dask import check_address
from mvl_auto.logs import log_file
from mvl_auto.names import checked_name
from mvl_auto.paths import (
    blocks_folder,
    find_preprocessed_dataset,
    find_raw_dataset,
    find_root,
    preprocessed_folder,
    results_folder,
)
from mvl_auto.plans import Plan, Splits, read_document, write_document
from mvl_auto.progress import Progress, silent
from mvl_auto.results import TrainingResults

if TYPE_CHECKING:
    from mvl_auto.audit import AuditReport
    from mvl_auto.datasets import Dataset
    from mvl_auto.evaluation import Summary
    from mvl_auto.evaluation.compare import ModelComparison
    from mvl_auto.evaluation.raters import Agreement
    from mvl_auto.inference import PredictionReport
    from mvl_auto.planners import Diagnosis, Overrides, Repairs
    from mvl_auto.report import Report

log = logging.getLogger(__name__)


def plan_and_preprocess(
    dataset: str | int | Path,
    *,
    root: Path | str | None = None,
    configurations: Sequence[str] | None = None,
    memory: int | str | None = None,
    preset: str | None = None,
    seconds: float | str | None = None,
    device: str = "auto",
    llm: str = "auto",
    llm_layer: int | Literal["last"] = "last",
    overrides: Overrides | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    plan_only: bool = False,
    strict: bool = False,
    keep_going: bool = False,
    progress: Progress = silent,
) -> Plan:
    """Fingerprint, plan and splits of a raw dataset, and its cases prepared for training.

    dataset: number, name or path. configurations: which to prepare (default: the recommended one), and with
    3d_cascade_fullres the 3d_lowres that it goes on from.
    memory: bytes, or "8GB", that training may take on `device` (default: what is free here); or preset: "S", "M", "L"
    or "XL", a GPU of 8, 16, 24 or 80 GiB, here or elsewhere, or "cpu". seconds: that the training of a fold may take;
    the speed of `device` is then measured. llm, llm_layer: the frozen block, in the block bank's syntax. overrides:
    values of the plan that the user chose (mvl_auto.planners.Overrides). scheduler: the address of a Dask cluster that
    works on the cases, in place of `workers` processes. strict: anomalies of the dataset are an error
    (mvl_auto.planners.stage.AnomaliesFound lists them). keep_going: plan without the cases that cannot be used.
    Raises MvlError for what the user can mend; PartlyFailed at the end when cases were left out or could not be
    prepared: the plan is its `result`.
    """
    from mvl_auto import planners
    from mvl_auto.datasets import read_dataset
    from mvl_auto.llm.known import known_blocks, llm_settings
    from mvl_auto.planners import stage
    from mvl_auto.planners.budget import choose_budget

    root, memory, seconds = find_root(root), as_bytes(memory), as_seconds(seconds)
    if scheduler is not None:
        check_address(scheduler)
    unread: list[MvlError] = []
    raw = read_dataset(find_raw_dataset(dataset, root), unread if keep_going else None)
    folder = preprocessed_folder(root, raw.id)
    block = llm_settings(llm, llm_layer)
    blocks = known_blocks(block, blocks_folder(root))
    budget = choose_budget(memory, preset, seconds, device)
    overrides = overrides or planners.Overrides()
    overrides.check(budget)
    speed = partial(planners.time_step, device="cpu" if budget.device == "cpu" else device)
    with locked(folder, "preprocessing"), log_file(folder / "log.txt"):
        clear_unfinished(folder)
        fingerprint = stage.take_fingerprint(raw, folder, workers, scheduler, keep_going, unread, progress)
        if strict:
            stage.refuse_anomalies(fingerprint, raw.folder, folder)
        plan = planners.plan(fingerprint, budget, block, overrides, blocks, speed)
        chosen = plan.with_previous_stages(configurations or [plan.recommended])
        stage.write_plan(raw, fingerprint, plan, folder)
        failures = []
        if not plan_only:
            usable = {case.name for case in fingerprint.cases}
            raw = replace(raw, cases=tuple(case for case in raw.cases if case.name in usable))
            failures = _prepare(raw, plan, chosen, folder, workers, scheduler, progress)
        failures = stage.log_left_out(fingerprint, raw.folder) + failures
        stage.raise_if_partly_failed(failures, plan, "planned with" if plan_only else "prepared")
    return plan


def train(
    dataset: str | int | Path,
    folds: Folds = "0",
    *,
    root: Path | str | None = None,
    configuration: str | None = None,
    run: str | None = None,
    previous: str | None = None,
    seconds: float | str | None = None,
    steps: int | None = None,
    device: str = "auto",
    seed: int = 0,
    workers: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    network: str | None = None,
    llm: str | None = None,
    start_from: Path | str | None = None,
    progress: Progress = silent,
) -> TrainingResults:
    """Train folds of a planned dataset, one after the other, and validate each; resumes where it was stopped.

    folds: 0, "0", "fold0", or several in a list; or "all" (every case, none kept apart). configuration: default, the
    recommended one. run: the folder's name under results (default: the configuration's). previous: for
    3d_cascade_fullres the run of 3d_lowres, trained on all folds, whose segmentations it is trained on (default:
    "3d_lowres"). seconds (also "10m") or steps: how long to train each fold (default: the plan's time, if it was
    planned for one, else its steps); a finished fold that is given more goes on. workers: processes that make batches
    (0: none). batch_size, learning_rate, network ("mvl", "vit", "unet", "paper"), llm (a source of the block bank,
    "auto" or "none"): of this run, instead of the plan's. start_from: a checkpoint, or the folder of a trained fold or
    run, whose weights a new run begins with, as far as they fit.
    Raises MvlError for what the user can mend.
    """
    from mvl_auto.llm.known import llm_settings
    from mvl_auto.planners.stage import DELETE

    for name in (run, previous):
        if name is not None:
            checked_name(name, "run", remedy="Choose another with -n NAME.")
    root, seconds = find_root(root), as_seconds(seconds)
    folder = find_preprocessed_dataset(dataset, root)
    plan = read_document(folder / "plans.json", Plan, DELETE)
    splits = read_document(folder / "splits.json", Splits, DELETE)
    chosen = choose_folds(folds, len(splits.folds))
    name = plan.configuration(configuration).name
    log.info("%s: training %s of %s", plan.dataset, name, ", ".join(f"fold{fold}" for fold in chosen))
    from mvl_auto import training  # torch, after all that can be refused without it

    return TrainingResults(
        training.train(
            folder,
            fold,
            results_folder=results_folder(root, plan.dataset),
            blocks_folder=blocks_folder(root),
            configuration=configuration,
            run=run,
            previous=previous,
            seconds=seconds,
            steps=steps,
            device=device,
            seed=seed,
            workers=workers,
            batch_size=batch_size,
            learning_rate=learning_rate,
            network=network,
            llm=None if llm is None else llm_settings(llm, "last"),
            start_from=None if start_from is None else Path(start_from),
            progress=progress,
        )
        for fold in chosen
    )


def choose_folds(wanted: Folds, number: int) -> list[str]:
    """Folds in the order wanted, each once: "0" for 0, "0" or "fold0", "all" for itself.

    number: how many the splits have. Raises MvlError, listing them, for one that does not exist.
    """
    from mvl_auto.runs import ALL
    from mvl_auto.runs import choose_folds as choose

    return choose(list_of_folds(wanted), [*map(str, range(number)), ALL])


def predict(
    input: Path | str,
    output: Path | str,
    *,
    root: Path | str | None = None,
    dataset: str | int | Path | None = None,
    configuration: str | None = None,
    run: str | None = None,
    folds: Folds | None = None,
    device: str = "auto",
    mirror: bool = True,
    step_size: float = 0.5,
    overwrite: bool = False,
    probabilities: bool = False,
    color_table: bool = False,
    volumes: bool = False,
    progress: Progress = silent,
) -> PredictionReport:
    """Segment an image, or every image of a folder, by the trained networks of a run, on the images' own grids.

    dataset, configuration, run: which run, where the root has several; folds: which of its networks (default: all
    that are finished). mirror: average over mirrored versions. step_size: distance from one window to the next, as a
    share of the window. overwrite: predict again where a prediction exists. probabilities: write them too.
    color_table: write the labels' names and colours for ITK-SNAP and 3D Slicer. volumes: write volumes.csv, the volume
    (ml) and mean intensities of every label in every case.
    Raises MvlError for what the user can mend; a single image that fails is in the report.
    """
    from mvl_auto.runs import find_trained

    root = find_root(root)
    if not is_there(Path(input)):
        raise MvlError("does not exist", file=input, remedy="Give a folder of images, or one image.")
    trained = find_trained(root, dataset, configuration, run, None if folds is None else list_of_folds(folds))
    from mvl_auto import inference  # torch, after all that can be refused without it
    from mvl_auto.inference.label_files import write_color_tables
    from mvl_auto.inference.volumes import find_pairs, write_volumes

    input, output = Path(input), Path(output)
    report = inference.predict_folder(
        input,
        output,
        trained,
        blocks_folder(root),
        inference.PredictionSettings(device, mirror, step_size, probabilities),
        overwrite=overwrite,
        progress=progress,
    )
    if color_table:
        write_color_tables(output, trained.plan.labels)
    if volumes:
        there = find_pairs(input, output, [*report.done, *report.skipped], trained.plan)
        write_volumes(there, output, trained.plan, progress)
    return report


def explain(
    input: Path | str,
    output: Path | str,
    *,
    root: Path | str | None = None,
    dataset: str | int | Path | None = None,
    configuration: str | None = None,
    run: str | None = None,
    fold: str | int | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> list[Path]:
    """Maps of what the LLM block does to an image, or to every image of a folder; returns the files written.

    dataset, configuration, run, fold: which trained network (default: the only one, its first fold).
    Raises MvlError for what the user can mend.
    """
    from mvl_auto.runs import find_trained

    root = find_root(root)
    if not is_there(Path(input)):
        raise MvlError("does not exist", file=input, remedy="Give a folder of images, or one image.")
    trained = find_trained(root, dataset, configuration, run, None if fold is None else [fold])
    from mvl_auto.inference.explain import explain_folder  # torch, after all that can be refused without it

    return explain_folder(Path(input), Path(output), trained, blocks_folder(root), device=device, progress=progress)


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
    from mvl_auto.evaluation import evaluate_folders, write_scores
    from mvl_auto.evaluation.case import make_scoring

    scoring = make_scoring(metrics, tolerance_mm, boundary_mm, lesion_iou)
    target = Path(output or predictions)
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
    about = {"references": str(Path(references).absolute()), "predictions": str(Path(predictions).absolute())}
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
    target = Path(output or predictions)
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
    about = {"raters": str(Path(raters).absolute()), "predictions": str(Path(predictions).absolute())}
    of_raters.write_agreement(agreement, target, about)
    return agreement


def compare(
    models: Sequence[Path | str],
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
    from mvl_auto.evaluation.comparison_files import write_comparison
    from mvl_auto.evaluation.scored import read_models

    comparison = compare_models(read_models(models), metrics, only_common=only_common)
    write_comparison(comparison, ensure_writable_folder(Path(output)))
    return comparison


def doctor(
    dataset: str | int | Path,
    *,
    root: Path | str | None = None,
    fix: Path | str | None = None,
    output: Path | str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> tuple[Diagnosis, Repairs | None]:
    """All that is wrong or odd with a raw dataset, which is only read; and a copy of it that is repaired.

    dataset: number, name or path. fix: a new folder for the copy (default: none is made). output: a JSON file for the
    diagnosis. Raises MvlError when dataset.json cannot be read, or something cannot be written.
    """
    from mvl_auto import planners
    from mvl_auto.planners.doctor.repair import check_place

    folder = find_raw_dataset(dataset, find_root(root))
    if fix is not None:
        check_place(folder, Path(fix))  # before every file is read
    diagnosis = planners.examine_dataset(folder, workers=workers, progress=progress)
    if output is not None:
        write_document(Path(output), diagnosis)
    if fix is None:
        return diagnosis, None
    return diagnosis, planners.repair_dataset(folder, Path(fix), workers=workers, progress=progress)


def _prepare(
    raw: Dataset,
    plan: Plan,
    names: Sequence[str],
    folder: Path,
    workers: int | None,
    scheduler: str | None,
    progress: Progress,
) -> list[str]:
    """Returns why cases could not be prepared, in a line each, which are in the log too."""
    from mvl_auto import preprocessing

    report = preprocessing.preprocess_dataset(
        raw, plan, names, folder, workers=workers, scheduler=scheduler, progress=progress
    )
    log.info("%s: %d cases prepared, %d kept from before", ", ".join(names), len(report.done), len(report.reused))
    for case, reason in report.failed.items():
        log.error("%s: %s", case, reason)
    return list(report.failed.values())


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


def report(
    runs: Sequence[str] | Mapping[str, Path] = (),
    *,
    root: Path | str | None = None,
    dataset: str | int | Path | None = None,
    run: Sequence[str] = (),
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
        found = named_folders(runs)
    else:
        found = find_run_folders(find_root(root), dataset, run)
    target = None if output is None else Path(output)
    return write_report(found, target, volumes=volumes, progress=progress)
