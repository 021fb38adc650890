"""Ask what the LLM block brings: train the planned network with it, without it, and with controls in its place."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.errors import MvlError
from mvl_auto.paths import blocks_folder, find_preprocessed_dataset, find_root, results_folder
from mvl_auto.progress import Progress, silent

if TYPE_CHECKING:
    from mvl_auto.ablation.estimate import Estimate
    from mvl_auto.ablation.options import AblationOptions
    from mvl_auto.ablation.record import Rates, RunRecord
    from mvl_auto.ablation.run import RunPlaces
    from mvl_auto.ablation.study import Study

log = logging.getLogger(__name__)


def ablate(
    dataset: str | int | Path,
    options: AblationOptions | None = None,
    *,
    root: Path | str | None = None,
    progress: Progress = silent,
) -> list[RunRecord]:
    """Train and score every run of an ablation that is not finished yet; returns the records of all of them.

    dataset: planned and preprocessed. options: which runs, and how (default: eight arms, fold 0, one seed, as long as
    planned). Results lie in results/<dataset>/ablation/<configuration>, or in options.output; evidence.html there has
    the comparisons.
    Raises MvlError for what the user can mend, PartlyFailed when some runs failed and the others are done.
    """
    from mvl_auto.ablation.options import AblationOptions
    from mvl_auto.jobs.dask import check_address

    options = options or AblationOptions()
    study, places, rates = prepare(dataset, options, root)
    if options.scheduler is not None:
        check_address(options.scheduler)
    from mvl_auto.ablation.work import Workers, work_on  # torch, after all that can be refused without it

    return work_on(study, places, rates, Workers(options.jobs, options.scheduler), progress)


def runs_to_do(dataset: str | int | Path, options: AblationOptions, *, root: Path | str | None = None) -> list[str]:
    """Names of the runs that can be trained now: those of a search of learning rates first, then the others.

    Raises MvlError for what the user can mend.
    """
    prepared = prepare(dataset, options, root)
    from mvl_auto.ablation import work

    return work.runs_to_do(*prepared)


def do_one(
    dataset: str | int | Path, options: AblationOptions, name: str, *, root: Path | str | None = None
) -> RunRecord:
    """Finish one run of `runs_to_do` by its name, with the options of the whole study; several may be done at once.

    Raises MvlError for what the user can mend.
    """
    prepared = prepare(dataset, options, root)
    from mvl_auto.ablation import work

    return work.do_one(*prepared, name)


def estimate_ablation(
    dataset: str | int | Path, options: AblationOptions | None = None, *, root: Path | str | None = None
) -> Estimate:
    """How many runs `ablate` would train with these arguments, how long, and how much disk. Nothing is written.

    The runs of a search of learning rates are counted too.
    """
    from mvl_auto.ablation.estimate import estimate
    from mvl_auto.ablation.options import AblationOptions
    from mvl_auto.ablation.study import SEARCH, finished

    options = options or AblationOptions()
    study, places, rates = prepare(dataset, options, root)
    searches = list(study.search_specs()) if study.record.learning_rates else []
    there = finished(places.study / SEARCH, searches)
    specs = list(study.specs(dict.fromkeys(study.record.arms, rates)))
    done = {file.stem for file in (places.study / places.records).glob("*.json")} | there.keys()
    missing = [spec for spec in [*searches, *specs] if spec.name not in done]
    return estimate([*searches, *specs], missing, places, options.jobs)


def output_folder(dataset: str | int | Path, options: AblationOptions, root: Path | str | None = None) -> Path:
    """Where the study of these options lies."""
    return prepare(dataset, options, root)[1].study


def prepare(
    dataset: str | int | Path, options: AblationOptions, root: Path | str | None
) -> tuple[Study, RunPlaces, Rates]:
    """Look up and check everything before anything is written. The rates are those of arms that are not searched."""
    from mvl_auto.ablation.arms import DEFAULT_ARMS
    from mvl_auto.ablation.record import Basis, Length, Rates, StudyRecord
    from mvl_auto.ablation.run import RunPlaces
    from mvl_auto.ablation.study import Study, known_arms
    from mvl_auto.api.training import choose_folds
    from mvl_auto.plans import DELETE_AND_PLAN, Fingerprint, Plan, Splits, read_document

    arms = known_arms(options.arms or DEFAULT_ARMS)
    root = find_root(root)
    folder = find_preprocessed_dataset(dataset, root)
    plan = read_document(folder / "plans.json", Plan, DELETE_AND_PLAN)
    splits = read_document(folder / "splits.json", Splits, DELETE_AND_PLAN)
    configuration = plan.configuration(options.configuration)
    if not configuration.network.llm.present:
        raise MvlError(
            "was planned without an LLM block, so there is nothing to compare",
            file=folder / "plans.json",
            remedy="Run mvl_plan_and_preprocess without --llm none.",
        )
    if configuration.previous_stage is not None:
        raise MvlError(f"{configuration.name} has a first stage", remedy="Choose 2d, 3d_fullres or 3d_lowres with -c.")
    folds = choose_folds(list(options.folds), len(splits.folds))
    if "all" in folds or len(splits.folds) < 2:
        raise MvlError("an ablation needs validation cases", remedy="Choose folds by number: --folds 0 1.")
    record = StudyRecord(
        basis=Basis(
            dataset=plan.dataset,
            configuration=configuration.name,
            plan_hash=plan.hash,
            fingerprint_hash=plan.fingerprint_hash,
            splits_hash=splits.hash,
            length=options.length or Length(steps=configuration.steps),
        ),
        arms=arms,
        folds=tuple(folds),
        seeds=options.seeds,
        first_seed=options.first_seed,
        amounts=options.amounts,
        learning_rates=options.learning_rates,
        mapper_rates=options.mapper_rates,
        search_steps=options.search_steps,
    )
    rates = Rates(
        learning_rate=options.learning_rate or configuration.network.peak_learning_rate, mapper_rate=options.mapper_rate
    )
    output = options.output or results_folder(root, plan.dataset) / "ablation" / configuration.name
    places = RunPlaces(
        Path(output).absolute(),
        folder,
        blocks_folder(root),
        options.device,
        options.keep,
        threads=1 if options.jobs > 1 else None,
    )
    return (
        Study(record, read_document(folder / "fingerprint.json", Fingerprint, DELETE_AND_PLAN), splits, str(dataset)),
        places,
        rates,
    )
