"""Look at a dataset, plan its training, prepare its cases, and find what is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from mvl_auto.alike import lines_of_reasons
from mvl_auto.arguments import as_bytes, as_seconds, list_of_words
from mvl_auto.errors import MvlError
from mvl_auto.files import nothing_unfinished
from mvl_auto.jobs.dask import check_address
from mvl_auto.locks import locked
from mvl_auto.logs import LOG, log_file
from mvl_auto.outputs import check_apart, check_not_read, leaving_no_trace
from mvl_auto.paths import (
    blocks_folder,
    find_raw_dataset,
    find_root,
    preprocessed_folder,
)
from mvl_auto.plans import Plan, Tokens, write_document
from mvl_auto.progress import ONLY_IN_FILE, Progress, silent
from mvl_auto.text import count_text

if TYPE_CHECKING:
    from mvl_auto.datasets import Dataset
    from mvl_auto.planners import Diagnosis, Overrides, Repairs

log = logging.getLogger(__name__)


def plan_and_preprocess(
    dataset: str | int | Path,
    *,
    root: Path | str | None = None,
    configurations: str | Sequence[str] | None = None,
    memory: int | str | None = None,
    preset: str | None = None,
    seconds: float | str | None = None,
    device: str = "auto",
    llm: str = "auto",
    llm_layer: int | Literal["last"] = "last",
    llm_tokens: Tokens | None = None,
    llm_layers: int = 1,
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
    the speed of `device` is then measured. llm, llm_layer: the frozen block, in the block bank's syntax. llm_layers:
    how many consecutive layers of the model it has, the last of which is `llm_layer`. llm_tokens: which pass it, "all",
    "pooled" (the default) or "queries" (docs/network.md). overrides: values of the plan that the user chose
    (mvl_auto.planners.Overrides). scheduler: the address of a Dask cluster that works on the cases, in place of
    `workers` processes. strict: anomalies of the dataset are an error (mvl_auto.planners.stage.AnomaliesFound lists
    them). keep_going: plan without the cases that cannot be used.
    Raises MvlError for what the user can mend; PartlyFailed at the end when cases were left out or could not be
    prepared: the plan is its `result`.
    """
    from mvl_auto import planners
    from mvl_auto.datasets import paths_read, read_dataset
    from mvl_auto.llm.known import known_blocks, llm_settings
    from mvl_auto.llm.layers import LayerRange
    from mvl_auto.planners import stage
    from mvl_auto.planners.budget import choose_budget

    root, memory, seconds = find_root(root), as_bytes(memory), as_seconds(seconds)
    if scheduler is not None:
        check_address(scheduler)
    unread: list[MvlError] = []
    raw = read_dataset(find_raw_dataset(dataset, root), unread if keep_going else None)
    folder = preprocessed_folder(root, raw.id)
    block = llm_settings(llm, LayerRange(llm_layer, llm_layers), llm_tokens)
    blocks = known_blocks(block, blocks_folder(root))
    budget = choose_budget(memory, preset, seconds, device)
    overrides = overrides or planners.Overrides()
    overrides.check(budget)
    speed = partial(planners.time_step, device="cpu" if budget.device == "cpu" else device)
    check_apart(folder, paths_read(raw), remedy="Move the dataset to the folder raw of the root.")
    with leaving_no_trace(folder), locked(folder, "preprocessing"), nothing_unfinished(folder), log_file(folder / LOG):
        fingerprint = stage.take_fingerprint(raw, folder, workers, scheduler, keep_going, unread, progress)
        if strict:
            stage.refuse_anomalies(fingerprint, raw.folder, folder)
        plan = planners.plan(fingerprint, budget, block, overrides, blocks, speed)
        chosen = plan.with_previous_stages(list_of_words(configurations or plan.recommended))
        stage.write_plan(raw, fingerprint, plan, folder)
        failures = []
        if not plan_only:
            usable = {case.name for case in fingerprint.cases}
            raw = replace(raw, cases=tuple(case for case in raw.cases if case.name in usable))
            failures = _prepare(raw, plan, chosen, folder, workers, scheduler, progress)
        failures = stage.log_left_out(fingerprint, raw.folder) + failures
        stage.raise_if_partly_failed(failures, plan, "planned with" if plan_only else "prepared")
    return plan


class Checkup(NamedTuple):
    """What the doctor found, and did in the copy; None where no copy was made. It prints as a table of the findings."""

    diagnosis: Diagnosis
    repairs: Repairs | None

    def __str__(self) -> str:
        return str(self.diagnosis)

    def _repr_html_(self) -> str:
        return self.diagnosis._repr_html_()


def doctor(
    dataset: str | int | Path,
    *,
    root: Path | str | None = None,
    fix: Path | str | None = None,
    output: Path | str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Checkup:
    """All that is wrong or odd with a raw dataset, which is only read; and a copy of it that is repaired.

    dataset: number, name or path. fix: a new folder for the copy (default: none is made). output: a JSON file for the
    diagnosis. Raises MvlError when dataset.json cannot be read, or something cannot be written.
    """
    from mvl_auto import planners
    from mvl_auto.planners.doctor.repair import check_place

    folder = find_raw_dataset(dataset, find_root(root))
    if fix is not None:
        check_place(folder, Path(fix))  # before every file is read
    if output is not None:
        _check_diagnosis(Path(output), folder, fix)
    diagnosis = planners.examine_dataset(folder, workers=workers, progress=progress)
    if output is not None:
        write_document(Path(output), diagnosis)
    if fix is None:
        return Checkup(diagnosis, None)
    return Checkup(diagnosis, planners.repair_dataset(folder, Path(fix), workers=workers, progress=progress))


def _check_diagnosis(output: Path, dataset: Path, fix: Path | str | None) -> None:
    """Raises MvlError where the file of the diagnosis would lie in the dataset, replace a file of it, or be in the way
    of the repaired copy.
    """
    from mvl_auto.datasets import files_of, inspect_dataset, paths_read

    raw, _ = inspect_dataset(dataset)
    remedy = "Choose another place with --json."
    for taken, what in ((dataset, "the dataset"), (fix, "the repaired copy")):
        if taken is not None and output.resolve().is_relative_to(Path(taken).resolve()):
            raise MvlError(f"would lie in {what}", file=output, remedy=remedy)
    check_not_read([output], [*paths_read(raw), *(file for case in raw.cases for file in files_of(case))], remedy)


def _prepare(
    raw: Dataset,
    plan: Plan,
    names: Sequence[str],
    folder: Path,
    workers: int | None,
    scheduler: str | None,
    progress: Progress,
) -> list[str]:
    """Returns why cases could not be prepared, in a line for each kind of reason; the log has them by case."""
    from mvl_auto import preprocessing

    report = preprocessing.preprocess_dataset(
        raw, plan, names, folder, workers=workers, scheduler=scheduler, progress=progress
    )
    done = count_text(len(report.done), "case")
    log.info("%s: %s prepared, %d kept from before", ", ".join(names), done, len(report.reused))
    for case, reason in report.failed.items():
        log.error("%s: %s", case, reason, extra={ONLY_IN_FILE: True})
    lines = lines_of_reasons(report.failed)
    for line in lines:
        log.error("%s", line)
    return lines
