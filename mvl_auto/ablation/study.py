"""A study: every run that was asked for, in an order in which what is finished can be compared at any time."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mvl_auto.ablation.arms import ARMS, WITHOUT_BLOCK
from mvl_auto.ablation.few_shot import nested_cases
from mvl_auto.ablation.record import STUDY, Amount, Basis, Rates, RunRecord, StudyRecord, read_records
from mvl_auto.ablation.run import RunSpec
from mvl_auto.errors import MvlError
from mvl_auto.planners.splits import group_cases
from mvl_auto.plans import Fingerprint, Splits, read_document, write_document

ALL_CASES = Amount(share=1.0)
HELD_OUT = 0.2  # share of a fold's training cases that the search of learning rates is scored on
MOST_HELD_OUT = 16  # cases: enough to tell learning rates apart
SEARCH = "search"  # folder of the records of the search


@dataclass(frozen=True)
class Study:
    """What was asked for, and the dataset's cases. command: the words that ask for one run of it."""

    record: StudyRecord
    fingerprint: Fingerprint
    splits: Splits
    dataset: str

    def specs(self, rates: dict[str, Rates]) -> Iterator[RunSpec]:
        """All runs: every arm of the first seed, fold and amount, then the next amount, fold and seed.

        rates: of each arm.
        """
        for seed in range(self.record.first_seed, self.record.first_seed + self.record.seeds):
            for fold in self.record.folds:
                for amount in self.record.amounts:
                    for arm in self.record.arms:
                        yield self.spec(arm, amount, fold, seed, rates[arm])

    def spec(self, arm: str, amount: Amount, fold: str, seed: int, rates: Rates) -> RunSpec:
        return RunSpec(
            name=f"{arm}-{amount.name}-fold{fold}-seed{seed}",
            basis=self.record.basis,
            arm=arm,
            amount=amount,
            fold=fold,
            seed=seed,
            rates=rates,
            training_cases=nested_cases(self.patients(fold), amount, fold, seed),
            validation_cases=self.splits.folds[int(fold)],
            command=self.command(arm, amount, fold, seed, rates),
        )

    def patients(self, fold: str) -> list[tuple[str, ...]]:
        """The training cases of a fold, those of one patient together."""
        validation = set(self.splits.folds[int(fold)])
        return [cases for cases in group_cases(self.fingerprint.cases) if not validation.intersection(cases)]

    def command(self, arm: str, amount: Amount, fold: str, seed: int, rates: Rates) -> str:
        length = self.record.basis.length
        of_length = ["--steps", str(length.steps)] if length.steps else ["--time", f"{length.seconds:g}s"]
        of_amount = ["--cases", str(amount.cases)] if amount.cases else ["--fraction", f"{amount.share:g}"]
        of_rates = ["--lr", f"{rates.learning_rate:g}", "--mapper-rate", f"{rates.mapper_rate:g}"]
        words = ["mvl_ablate", "-d", self.dataset, "-c", self.record.basis.configuration, "--arms", arm]
        return shlex.join([*words, "--folds", fold, "--first-seed", str(seed), *of_length, *of_amount, *of_rates])

    def search_specs(self) -> Iterator[RunSpec]:
        """The short runs that choose the learning rates of each arm, on a part of the first fold's training cases.

        None of them is scored on a case that any run of this fold is scored on.
        """
        fold = self.record.folds[0]
        patients = self.patients(fold)
        everyone = [case for cases in patients for case in cases]
        wanted = Amount(cases=max(1, min(MOST_HELD_OUT, round(HELD_OUT * len(everyone)))))
        held_out = nested_cases(patients, wanted, fold, seed=0)
        training = tuple(sorted(set(everyone) - set(held_out)))
        length = self.record.basis.length.model_copy(update={"steps": self.record.search_steps, "seconds": None})
        for learning_rate in self.record.learning_rates:
            for arm in self.record.arms:
                for mapper_rate in (1.0,) if arm in WITHOUT_BLOCK else self.record.mapper_rates:
                    rates = Rates(learning_rate=learning_rate, mapper_rate=mapper_rate)
                    yield replace(
                        self.spec(arm, ALL_CASES, fold, 0, rates),
                        name=f"{arm}-lr{learning_rate:g}-mappers{mapper_rate:g}",
                        basis=self.record.basis.model_copy(update={"length": length}),
                        training_cases=training,
                        validation_cases=held_out,
                    )


def best_rates(found: list[RunRecord]) -> dict[str, Rates]:
    """Of each arm, the rates of the run with the highest mean Dice; of equals the first, undefined last."""
    best: dict[str, RunRecord] = {}
    for record in found:
        if record.arm not in best or _or_zero(record.mean_dice) > _or_zero(best[record.arm].mean_dice):
            best[record.arm] = record
    return {arm: record.rates for arm, record in best.items()}


def _or_zero(dice: float) -> float:
    return 0.0 if math.isnan(dice) else dice


def keep_study(folder: Path, study: StudyRecord) -> None:
    """Write study.json. Raises MvlError when the folder has a study of another plan, other data or another length."""
    path = folder / STUDY
    if path.is_file():
        check_basis(read_document(path, StudyRecord).basis, study.basis, path)
    write_document(path, study)


def check_basis(there: Basis, asked: Basis, path: Path) -> None:
    """Raise MvlError, naming what differs, for a study or a run that must not be compared with the one asked for."""
    words = {
        "dataset": "dataset",
        "configuration": "configuration",
        "plan_hash": "plan",
        "fingerprint_hash": "data",
        "splits_hash": "folds",
        "length": "length of training",
    }
    differ = [word for name, word in words.items() if getattr(there, name) != getattr(asked, name)]
    if differ:
        raise MvlError(
            f"is of another {' and another '.join(differ)}",
            file=path,
            remedy="Choose another folder with -o, or delete this one.",
        )


def finished(folder: Path, specs: list[RunSpec]) -> dict[str, RunRecord]:
    """The records that are there of these runs. Raises MvlError for one that was made under other conditions."""
    records = {record.name: record for record in read_records(folder)}
    for spec in specs:
        if (record := records.get(spec.name)) is not None:
            path = folder / f"{spec.name}.json"
            check_basis(record.basis, spec.basis, path)
            if record.rates != spec.rates or record.training_cases != spec.training_cases:
                what = "learning rates" if record.rates != spec.rates else "training cases"
                raise MvlError(f"was made with other {what}", file=path, remedy="Choose another folder with -o.")
    return {spec.name: records[spec.name] for spec in specs if spec.name in records}


def known_arms(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, in the order given. Raises MvlError, listing them, for an arm that does not exist."""
    for name in names:
        if name not in ARMS:
            raise MvlError(f"there is no arm '{name}'", remedy=f"Choose among {', '.join(ARMS)}.")
    return tuple(dict.fromkeys(names))
