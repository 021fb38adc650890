"""What a training needs, looked up and checked before anything is written: its fold, its cache, its first stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_auto.cache import find_stale
from mvl_auto.errors import MvlError
from mvl_auto.network.presets import preset
from mvl_auto.plans import (
    PLAN_AGAIN,
    Configuration,
    Fingerprint,
    LlmSettings,
    Plan,
    Splits,
    read_document,
    write_document,
)
from mvl_auto.progress import Progress
from mvl_auto.runs import checkpoint as ckpt
from mvl_auto.training.first_stage import find_first_stage, prepare_first_stage
from mvl_auto.training.job import FoldOfPlan, Places, TrainingJob
from mvl_auto.training.previous import PreviousChannels


@dataclass(frozen=True)
class Changes:
    """What a run does otherwise than its plan says. network: mvl, vit, unet or paper. llm: the settings of
    another block.
    """

    batch_size: int | None = None
    network: str | None = None
    llm: LlmSettings | None = None

    def apply(self, plan: Plan, name: str) -> Plan:
        """The plan of the run: the same as `plan` where nothing is changed. Raises MvlError for no such network."""
        configuration = plan.configuration(name)
        network, update = configuration.network, dict[str, Any]()
        if self.network is not None:
            try:
                network = preset(self.network, network)
            except KeyError as error:
                raise MvlError(
                    f"there is no network '{self.network}'", remedy="Choose mvl, vit, unet or paper."
                ) from error
        if self.llm is not None:
            network = network.model_copy(update={"llm": self.llm})
        if network != configuration.network:
            update["network"] = network
        if self.batch_size is not None:
            update["batch_size"] = self.batch_size
        changed = configuration.model_copy(update=update)
        return plan.model_copy(update={"configurations": {**plan.configurations, changed.name: changed}})


def read_plan(preprocessed: Path, configuration: str | None, changes: Changes) -> tuple[Plan, Configuration]:
    """The plan of a run, and the configuration that it trains (None: the recommended one)."""
    plan = read_document(preprocessed / "plans.json", Plan, PLAN_AGAIN)
    name = plan.configuration(configuration).name
    plan = changes.apply(plan, name)
    return plan, plan.configuration(name)


def find_fold(
    preprocessed: Path, plan: Plan, configuration: Configuration, fold: str, results_folder: Path, previous: str | None
) -> FoldOfPlan:
    """Raises MvlError for a fold that does not exist, for a case that is not cached, for a first stage that is not
    trained on all folds, and for `previous` where there is no first stage.
    """
    splits = read_document(preprocessed / "splits.json", Splits, PLAN_AGAIN)
    training, validation = cases_of_fold(splits, plan, fold, preprocessed)
    first = None
    if configuration.previous_stage is not None:
        first = find_first_stage(results_folder, plan, configuration, splits, previous)
    elif previous is not None:
        raise MvlError(f"{configuration.name} has no first stage", remedy="Leave out --previous.")
    found = FoldOfPlan(plan, configuration, fold, training, validation, first)
    check_cache(preprocessed, plan, configuration, found.cases)
    return found


def cases_of_fold(splits: Splits, plan: Plan, fold: str, preprocessed: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the training and of the validation cases. Raises MvlError for a fold that does not exist."""
    if splits.fingerprint_hash != plan.fingerprint_hash:
        raise MvlError(
            "was made for another state of the dataset", file=preprocessed / "splits.json", remedy=PLAN_AGAIN
        )
    everyone = sorted(name for names in splits.folds for name in names)
    if fold == "all":
        return tuple(everyone), ()
    if not fold.isdigit() or int(fold) >= len(splits.folds):
        there = ", ".join([*map(str, range(len(splits.folds))), "all"])
        raise MvlError(f"there is no fold '{fold}' of {plan.dataset} (there are: {there})")
    validation = splits.folds[int(fold)]
    # a single case both trains and validates: a score that is too good is better than none
    training = tuple(name for name in everyone if name not in set(validation)) or tuple(everyone)
    return training, tuple(validation)


def check_cache(preprocessed: Path, plan: Plan, configuration: Configuration, names: tuple[str, ...]) -> None:
    """Raise MvlError unless every case is cached, with the settings of this plan, from the files of its fingerprint."""
    cache = preprocessed / configuration.name
    fingerprint = read_document(preprocessed / "fingerprint.json", Fingerprint, PLAN_AGAIN)
    if fingerprint.hash != plan.fingerprint_hash:
        raise MvlError(
            "was taken of another state of the dataset than the plan was made for",
            file=preprocessed / "fingerprint.json",
            remedy=PLAN_AGAIN,
        )
    missing, stale = find_stale(cache, fingerprint, plan.preprocessing_hash(configuration.name), names)
    if missing:
        raise MvlError(
            f"{len(missing)} of {len(names)} cases are not preprocessed (first: {missing[0]})",
            file=cache,
            remedy=f"Run mvl_plan_and_preprocess with -c {configuration.name}.",
        )
    if stale:
        raise MvlError(
            f"{len(stale)} of {len(names)} cases were preprocessed for another plan or from other files "
            f"(first: {stale[0]})",
            file=cache,
            remedy=PLAN_AGAIN,
        )


def previous_channels(fold: FoldOfPlan, places: Places, progress: Progress) -> PreviousChannels | None:
    """What the first stage found in the fold's cases, as channels, from the cache; None where there is no first stage.

    Written on the first call.
    """
    if fold.first_stage is None:
        return None
    folder = prepare_first_stage(
        fold.first_stage,
        places.cache(fold.configuration),
        fold.cases,
        fold.configuration.patch_size,
        progress=progress,
    )
    return PreviousChannels(folder, fold.first_stage.run.plan.labels)


def keep_plan(run_folder: Path, plan: Plan) -> None:
    """The run keeps its own copy of the plan. Raises MvlError when it has one that is another."""
    path = run_folder / ckpt.PLAN
    other = path.is_file() and read_document(path, Plan).hash != plan.hash
    if other and any(any(run_folder.glob(f"{kind}*/{ckpt.CHECKPOINT}")) for kind in ("fold", ckpt.PRETRAINING)):
        raise MvlError(
            "has networks trained with another plan", file=run_folder, remedy="Choose another run with -n NAME."
        )
    write_document(path, plan)


def check_same_run(earlier: ckpt.State, job: TrainingJob, now: ckpt.State) -> None:
    """Raise MvlError when the checkpoint that is there is not one of this very run."""
    fields = ("configuration", "plan_hash", "block", "previous", "seed", "training_cases", "objective", "images_hash")
    now = now.model_copy(update={"block": ckpt.align_reference(now.block, earlier.block)})
    other = [name for name in fields if getattr(earlier, name) != getattr(now, name)]
    if job.learning_rate is not None and earlier.learning_rate not in (None, job.learning_rate):
        other.append("learning_rate")
    if job.trunk_rate is not None and earlier.trunk_rate != job.trunk_rate:
        other.append("trunk_rate")
    if other:
        words = ", ".join(f"{name} {_short(getattr(earlier, name))}" for name in other)
        raise MvlError(
            f"holds a run with other settings ({words})",
            file=job.folder,
            remedy="Give the same settings to resume it, choose another run with -n NAME, or delete the folder.",
        )


def _short(value: object) -> str:
    text = value.name if isinstance(value, ckpt.BlockReference) else str(value)
    text = value.run if isinstance(value, ckpt.PreviousReference) else text
    return text if len(text) < 40 else text[:37] + "..."
