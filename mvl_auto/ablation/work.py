"""Work on the runs of a study: what is missing is trained, here, in worker processes or on a Dask cluster."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mvl_auto.ablation.record import RATES, RECORDS, Rates, RunRecord, read_records
from mvl_auto.ablation.run import RunPlaces, RunSpec, finish_run
from mvl_auto.ablation.study import SEARCH, Study, best_rates, finished, keep_study
from mvl_auto.ablation.tables import write_evidence
from mvl_auto.errors import MvlError, PartlyFailed
from mvl_auto.files import ensure_writable_folder, write_json
from mvl_auto.jobs.outcome import JobFailed, log_trace
from mvl_auto.jobs.run import run_jobs
from mvl_auto.locks import locked
from mvl_auto.progress import Progress, silent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workers:
    """How runs are worked on: jobs processes on this machine, or a Dask cluster at scheduler's address."""

    jobs: int = 1
    scheduler: str | None = None


def all_records(folder: Path, study: Study) -> list[RunRecord]:
    """Of all finished runs of the study, those of earlier calls with other arms or folds among them."""
    return [record for record in read_records(folder / RECORDS) if record.basis == study.record.basis]


@dataclass
class Outcome:
    """records: of the finished runs that were asked for. failures: a line for each run that was not finished."""

    records: list[RunRecord] = field(default_factory=list)
    failures: list[MvlError] = field(default_factory=list)


def work_on(
    study: Study, places: RunPlaces, given: Rates, workers: Workers, progress: Progress = silent
) -> list[RunRecord]:
    """Finish every run of the study; returns their records.

    given: the rates of every arm, where they are not searched. A run that fails does not stop the others.
    Raises PartlyFailed (its `result`: the records of the others) when runs failed, MvlError for what stops all of them.
    """
    folder = ensure_writable_folder(places.study)
    with locked(folder, "running an ablation"):
        keep_study(folder, study.record)
        rates = search_rates(study, places, given, workers, progress)
        outcome = finish_all(list(study.specs(rates)), places, workers, progress)
        write_evidence(all_records(folder, study), folder)
    if outcome.failures:
        count = len(outcome.failures)
        error = PartlyFailed(
            f"{count} of {count + len(outcome.records)} runs failed (first: {outcome.failures[0]})",
            remedy="The same command does the missing ones.",
        )
        error.result = outcome.records
        raise error
    return outcome.records


def runs_to_do(study: Study, places: RunPlaces, given: Rates) -> list[str]:
    """Names of the runs that can be trained now: of the search of learning rates first, of the others when it is over.

    Writes study.json. Raises MvlError when the folder has another study, or a run that was made under other conditions.
    """
    folder = ensure_writable_folder(places.study)
    with locked(folder, "running an ablation"):
        keep_study(folder, study.record)
        specs, where = _next_runs(study, places, given)
        done = finished(folder / where.records, specs)
        return [spec.name for spec in specs if spec.name not in done]


def do_one(study: Study, places: RunPlaces, given: Rates, name: str) -> RunRecord:
    """Finish the run of this name alone, as a job of a cluster does; a finished one is only read.

    Raises MvlError where it cannot be trained yet, or what `runs_to_do` does.
    """
    keep_study(ensure_writable_folder(places.study), study.record)
    searches = {spec.name: spec for spec in _searches(study)}
    specs, where = ([searches[name]], _searching(places)) if name in searches else _next_runs(study, places, given)
    chosen = [spec for spec in specs if spec.name == name]
    if not chosen:
        raise MvlError(f"there is no run {name} to train now", file=places.study, remedy="Leave out --only.")
    done = finished(places.study / where.records, chosen)
    return done[name] if done else finish_run(chosen[0], where)


def _next_runs(study: Study, places: RunPlaces, given: Rates) -> tuple[list[RunSpec], RunPlaces]:
    """The runs of the search as long as one of them is missing, else all others; and where they are done."""
    searches = _searches(study)
    there = finished(places.study / SEARCH, searches)
    if len(there) < len(searches):
        return searches, _searching(places)
    rates = best_rates(list(there.values())) if searches else dict.fromkeys(study.record.arms, given)
    return list(study.specs(rates)), places


def _searches(study: Study) -> list[RunSpec]:
    return list(study.search_specs()) if study.record.learning_rates else []


def _searching(places: RunPlaces) -> RunPlaces:
    return replace(places, records=SEARCH, keep=False, looks=False)


def search_rates(
    study: Study, places: RunPlaces, given: Rates, workers: Workers, progress: Progress
) -> dict[str, Rates]:
    """The rates of each arm: searched where the study says so, and written to rates.json, else those given."""
    if not study.record.learning_rates:
        return dict.fromkeys(study.record.arms, given)
    outcome = finish_all(list(study.search_specs()), _searching(places), workers, progress)
    missing = set(study.record.arms) - {record.arm for record in outcome.records}
    if missing:
        raise MvlError(
            f"no learning rate was found for {', '.join(sorted(missing))}: {outcome.failures[0]}", file=places.study
        )
    best = best_rates(outcome.records)
    tried = [
        {"arm": each.arm, **each.rates.model_dump(), "steps": each.steps, "dice": each.mean_dice}
        for each in outcome.records
    ]
    chosen = {arm: rates.model_dump() for arm, rates in best.items()}
    write_json(places.study / RATES, {"chosen": chosen, "tried": tried})
    return best


def finish_all(specs: list[RunSpec], places: RunPlaces, workers: Workers, progress: Progress) -> Outcome:
    """The records of all runs, in their order; those that are there already are only read."""
    folder = ensure_writable_folder(places.study / places.records)
    done = finished(folder, specs)
    outcome = Outcome()
    todo = [spec for spec in specs if spec.name not in done]
    if done:
        log.info("%d of %d runs are finished already", len(done), len(specs))
    with progress("ablation runs", len(specs), unit="run", done=len(done)) as advance:
        for spec, result in run_jobs(partial(finish_run, places=places), todo, workers.jobs, workers.scheduler):
            if isinstance(result, RunRecord):
                done[spec.name] = result
                log.info("%s: Dice %.4f", spec.name, result.mean_dice)
            else:
                outcome.failures.append(failure_of(spec, result))
            advance(1, note=spec.name)
    outcome.records.extend(done[spec.name] for spec in specs if spec.name in done)
    return outcome


def failure_of(spec: RunSpec, result: MvlError | JobFailed) -> MvlError:
    if isinstance(result, JobFailed):
        log_trace(log, spec.name, result)
    error = MvlError(f"failed: {result}", file=spec.name)
    log.warning("%s", error)
    return error
