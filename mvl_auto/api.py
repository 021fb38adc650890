"""The functions that the commands call, and anyone's own Python:

    plan_and_preprocess -> train -> predict -> evaluate, and explain beside them

Each finds its folders under one root, calls one stage, and leaves the result on disk for the next.
What is in the stages is not repeated here, and nothing is decided here but which files belong together.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mvl_auto.errors import MvlError, PartlyFailed
from mvl_auto.files import clear_unfinished, ensure_writable_folder, locked
from mvl_auto.logs import log_file
from mvl_auto.paths import (
    blocks_folder,
    find_preprocessed_dataset,
    find_raw_dataset,
    find_root,
    preprocessed_folder,
    results_folder,
)
from mvl_auto.plans import DatasetRecord, Fingerprint, LlmSettings, Plan, Splits, read_document, write_document
from mvl_auto.progress import Progress, silent

if TYPE_CHECKING:
    from mvl_auto.dataset import Dataset
    from mvl_auto.evaluation import Summary
    from mvl_auto.inference import Report as PredictionReport
    from mvl_auto.planners import Budget
    from mvl_auto.training import TrainingResult

log = logging.getLogger(__name__)

DELETE = "Delete it and run mvl_plan_and_preprocess again."


def plan_and_preprocess(
    dataset: str | int | Path,
    *,
    root: Path | str | None = None,
    configurations: Sequence[str] | None = None,
    memory: int | None = None,
    preset: str | None = None,
    device: str = "auto",
    llm: str = "auto",
    llm_layer: int | Literal["last"] = "last",
    workers: int | None = None,
    scheduler: str | None = None,
    plan_only: bool = False,
    strict: bool = False,
    progress: Progress = silent,
) -> Plan:
    """Fingerprint, plan and splits of a raw dataset, and its cases prepared for training.

    dataset: number, name or path. configurations: which to prepare (default: the recommended one).
    memory: bytes that training may take on `device` (default: what is free here); or preset: "S", "M", "L" or
    "XL", a GPU of 8, 16, 24 or 80 GiB, here or elsewhere. llm, llm_layer: the frozen block, in the block bank's
    syntax. scheduler: the address of a Dask cluster that works on the cases, in place of `workers` processes.
    strict: whatever is odd in the dataset is an error.
    Raises MvlError for what the user can mend; PartlyFailed when some cases could not be prepared.
    """
    from mvl_auto import planners
    from mvl_auto.dataset import read_dataset

    root = find_root(root)
    raw = read_dataset(find_raw_dataset(dataset, root))
    folder = preprocessed_folder(root, raw.id)
    block = _llm_settings(llm, llm_layer)
    budget = _budget(memory, preset, device)
    with locked(folder, "preprocessing"), log_file(folder / "log.txt"):
        clear_unfinished(folder)
        fingerprint = _fingerprint(raw, folder, workers, scheduler, progress)
        if strict and fingerprint.anomalies:
            raise _odd(fingerprint)
        plan = planners.plan(fingerprint, budget, block)
        chosen = [plan.configuration(name).name for name in configurations or [plan.recommended]]
        _write_plan(raw, fingerprint, plan, folder)
        if not plan_only:
            _prepare(raw, plan, chosen, folder, workers, scheduler, progress)
    return plan


def train(
    dataset: str | int | Path,
    folds: Sequence[str | int] = ("0",),
    *,
    root: Path | str | None = None,
    configuration: str | None = None,
    run: str | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    device: str = "auto",
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
) -> list[TrainingResult]:
    """Train folds of a planned dataset, one after the other, and validate each; goes on where it was stopped.

    folds: 0, "0", "fold0", ... or "all" (every case, none kept apart). configuration: default, the recommended
    one. run: the folder's name under results (default: the configuration's). seconds or steps: how long to
    train each fold (default: the plan's steps). Raises MvlError for what the user can mend.
    """
    from mvl_auto import training

    root = find_root(root)
    folder = find_preprocessed_dataset(dataset, root)
    plan = read_document(folder / "plans.json", Plan, DELETE)
    splits = read_document(folder / "splits.json", Splits, DELETE)
    return [
        training.train(
            folder,
            fold,
            results_folder=results_folder(root, plan.dataset),
            blocks_folder=blocks_folder(root),
            configuration=configuration,
            run=run,
            seconds=seconds,
            steps=steps,
            device=device,
            seed=seed,
            workers=workers,
            progress=progress,
        )
        for fold in choose_folds(folds, len(splits.folds))
    ]


def choose_folds(wanted: Sequence[str | int], number: int) -> list[str]:
    """Folds in the order wanted, each once: "0" for 0, "0" or "fold0", "all" for itself.

    number: how many the splits have. Raises MvlError, listing them, for one that does not exist.
    """
    there = [*map(str, range(number)), "all"]
    chosen = [str(fold).lower().removeprefix("fold").lstrip("_") for fold in wanted]
    for given, fold in zip(wanted, chosen, strict=True):
        if fold not in there:
            raise MvlError(
                f"there is no fold '{given}' (there are: {', '.join(there)})", remedy="Name one of them, as in fold0."
            )
    return list(dict.fromkeys(chosen))


def predict(
    input: Path | str,
    output: Path | str,
    *,
    root: Path | str | None = None,
    dataset: str | int | Path | None = None,
    configuration: str | None = None,
    run: str | None = None,
    folds: Sequence[str | int] | None = None,
    device: str = "auto",
    mirror: bool = True,
    step: float = 0.5,
    overwrite: bool = False,
    probabilities: bool = False,
    progress: Progress = silent,
) -> PredictionReport:
    """Segment an image, or every image of a folder, by the trained networks of a run, on the images' own grids.

    dataset, configuration, run: which run, where the root has several; folds: which of its networks (default: all
    that are finished). mirror: average over mirrored versions. step: from one window to the next, a share of
    the patch. overwrite: also what is there already and whole. probabilities: write them too.
    Raises MvlError for what the user can mend; a single image that fails is in the report.
    """
    from mvl_auto import inference

    root = find_root(root)
    return inference.predict_folder(
        Path(input),
        Path(output),
        inference.find_trained(root, dataset, configuration, run, folds),
        blocks_folder(root),
        device=device,
        mirror=mirror,
        step=step,
        overwrite=overwrite,
        probabilities=probabilities,
        progress=progress,
    )


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
    from mvl_auto.inference import find_trained
    from mvl_auto.inference.explain import explain_folder

    root = find_root(root)
    trained = find_trained(root, dataset, configuration, run, None if fold is None else [fold])
    return explain_folder(Path(input), Path(output), trained, blocks_folder(root), device=device, progress=progress)


def evaluate(
    references: Path | str,
    predictions: Path | str,
    *,
    output: Path | str | None = None,
    dataset_json: Path | str | None = None,
    surfaces: bool = False,
    tolerance_mm: float | None = None,
    only_common: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Summary:
    """Scores of every case that two folders of label files have in common, and CSV and JSON of them.

    output: the folder for both files (default: that of the predictions). dataset_json: what the labels are called
    (default: the one beside the references, if any). surfaces: HD95 and NSD too, in mm, NSD with tolerance_mm.
    Raises MvlError for what the user can mend.
    """
    from mvl_auto.evaluation import write_scores
    from mvl_auto.evaluation.folder import evaluate_folders
    from mvl_auto.evaluation.surfaces import DEFAULT_TOLERANCE_MM

    target = Path(output or predictions)
    if output or target.is_dir():
        ensure_writable_folder(target)  # before minutes of scoring
    summary = evaluate_folders(
        Path(references),
        Path(predictions),
        dataset_json=None if dataset_json is None else Path(dataset_json),
        surfaces=surfaces,
        tolerance_mm=DEFAULT_TOLERANCE_MM if tolerance_mm is None else tolerance_mm,
        only_common=only_common,
        workers=workers,
        progress=progress,
    )
    about = {"references": str(Path(references).absolute()), "predictions": str(Path(predictions).absolute())}
    write_scores(summary, target, about)
    return summary


# ------------------------------------------------------------------------- the parts of planning


def _llm_settings(llm: str, layer: int | Literal["last"]) -> LlmSettings:
    """Raises MvlError for a source that is none, before any case is read."""
    from mvl_auto.llm.sources import RandomSource, parse_source

    if llm in ("auto", "none"):
        return LlmSettings(source=llm, layer=layer)
    source = parse_source(llm)
    known = source.hidden if isinstance(source, RandomSource) else None
    return LlmSettings(source=str(source), layer=layer, hidden_size=known)


def _budget(memory: int | None, preset: str | None, device: str) -> Budget:
    from mvl_auto import planners

    if preset is None:
        return planners.budget_here(memory, device=None if device == "auto" else device)
    if preset not in planners.PRESETS:
        raise MvlError(f"there is no preset '{preset}'", remedy=f"Choose one of {', '.join(planners.PRESETS)}.")
    return planners.Budget(planners.PRESETS[preset], device="gpu")


def _fingerprint(
    raw: Dataset, folder: Path, workers: int | None, scheduler: str | None, progress: Progress
) -> Fingerprint:
    """The fingerprint of before where nothing has changed, else a new one."""
    from mvl_auto import planners

    path = folder / "fingerprint.json"
    if path.is_file():
        earlier = read_document(path, Fingerprint, DELETE)
        described = (raw.id, raw.channels, raw.labels, raw.file_ending)
        same_words = described == (earlier.dataset, earlier.channels, earlier.labels, earlier.file_ending)
        changed = planners.changed_cases(earlier, raw)
        if same_words and not changed:
            log.info("%s: unchanged since it was examined", raw.id)
            return earlier
        what = f"{len(changed)} cases, {changed[0]} the first" if changed else "dataset.json"
        log.info("%s: has changed since it was examined (%s)", raw.id, what)
    return planners.fingerprint_dataset(raw, workers=workers, scheduler=scheduler, progress=progress)


def _odd(fingerprint: Fingerprint) -> MvlError:
    first, count = fingerprint.anomalies[0], len(fingerprint.anomalies)
    others = f" (and {count - 1} more that a run without --strict lists)" if count > 1 else ""
    return MvlError(f"{first.what}{others}", file=first.file, remedy=first.remedy)


def _write_plan(raw: Dataset, fingerprint: Fingerprint, plan: Plan, folder: Path) -> None:
    """The plan last: a folder with a plan has all that belongs to it. Splits of the same cases are kept."""
    from mvl_auto import planners

    write_document(folder / "fingerprint.json", fingerprint)
    splits = folder / "splits.json"
    if not splits.is_file() or read_document(splits, Splits, DELETE).fingerprint_hash != fingerprint.hash:
        write_document(splits, planners.split(fingerprint))
    write_document(folder / "dataset.json", DatasetRecord(dataset=raw.id, folder=str(raw.folder.absolute())))
    path = folder / "plans.json"
    if path.is_file() and read_document(path, Plan, DELETE).hash != plan.hash:
        log.warning("%s is replaced by another plan; trained runs keep their own", path)
    write_document(path, plan)


def _prepare(
    raw: Dataset,
    plan: Plan,
    names: Sequence[str],
    folder: Path,
    workers: int | None,
    scheduler: str | None,
    progress: Progress,
) -> None:
    from mvl_auto import preprocessing

    report = preprocessing.preprocess_dataset(
        raw, plan, names, folder, workers=workers, scheduler=scheduler, progress=progress
    )
    log.info("%s: %d cases prepared, %d kept from before", ", ".join(names), len(report.done), len(report.reused))
    for case, reason in report.failed.items():
        log.error("%s: %s", case, reason)
    if report.failed:
        first, others = next(iter(report.failed.values())), len(report.failed) - 1
        more = f". {others} more case{'s' * (others > 1)} failed too, the log names them" if others else ""
        raise PartlyFailed(f"{first.rstrip('.')}{more}", remedy="The other cases are prepared.")
