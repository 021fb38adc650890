"""The report of a run, or of several side by side: what was collected, as one HTML file."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_auto.errors import MvlError
from mvl_auto.evaluation.compare import ModelComparison, compare_models
from mvl_auto.evaluation.scored import read_models
from mvl_auto.files import ensure_writable_folder, open_regular, reading
from mvl_auto.outputs import leaving_no_trace
from mvl_auto.planners.fingerprint import group_anomalies
from mvl_auto.progress import Progress, silent
from mvl_auto.report.collect import RunRecord, collect_run
from mvl_auto.report.figures import as_svg, draw_curves, draw_distributions
from mvl_auto.report.machine import describe_environment
from mvl_auto.report.page import write_page
from mvl_auto.report.pictures import Picture, make_pictures
from mvl_auto.report.scores import RunScores, score_table
from mvl_auto.report.volumes import PAGE_BYTES
from mvl_auto.version import __version__

if TYPE_CHECKING:
    from mvl_auto.plans import Configuration, Plan

REPORT = "report.html"
PAGE_START = b"<!doctype html"
MOST_LABEL_COLUMNS = 6  # of the table of cases; with more labels it has the worst one of each case
SHOWN_LEVELS = {"WARNING", "ERROR", "CRITICAL"}
NO_COMPARISON = "The runs cannot be compared: {error}"


@dataclass(frozen=True)
class Report:
    """The file, its bytes, and what could not be shown, in sentences."""

    path: Path
    size: int
    problems: tuple[str, ...]


def write_report(
    runs: Path | Mapping[str, Path],
    output: Path | None = None,
    *,
    volumes: bool = True,
    progress: Progress = silent,
) -> Report:
    """Write the report of a run, or of several.

    runs: the folder of a run (results/<dataset>/<run>) or of one fold; or name -> folder of several. output: the HTML
    file (default: report.html in the folder of a single run). volumes: embed volumes that the page's viewer can scroll.
    Whatever is missing is said in the page. Raises MvlError when a folder is not a run, or nothing can be written.
    """
    named = dict(runs) if isinstance(runs, Mapping) else {"": Path(runs)}
    if output is None and len(named) > 1:
        raise MvlError("a report of several runs needs a file", remedy="Name it: -o compared.html.")
    records = [collect_run(folder, name) for name, folder in named.items()]
    path = Path(output) if output is not None else next(iter(named.values())) / REPORT
    _check_page(path)
    with leaving_no_trace(path.absolute().parent):
        return _write(path, named, records, volumes, progress)


def _check_page(path: Path) -> None:
    """Raise MvlError for a file that is there and is no web page: of all that is read for a report, none is one."""
    if not path.exists() or path.is_dir():  # a folder is refused when the page is written
        return
    with reading(path), open_regular(path) as stream:
        start = stream.read(len(PAGE_START)).lower()
    if start not in (b"", PAGE_START):
        raise MvlError("is there already, and is not a report", file=path, remedy="Name another file with -o.")


def _write(
    path: Path, named: Mapping[str, Path], records: Sequence[RunRecord], volumes: bool, progress: Progress
) -> Report:
    ensure_writable_folder(path.absolute().parent)
    budget = PAGE_BYTES // len(records) if volumes else 0
    parts = [_describe_run(record, number, budget, progress) for number, record in enumerate(records)]
    comparison = _compare(named) if len(named) > 1 else {}
    context = {
        "title": " · ".join(dict.fromkeys(record.dataset for record in records)),
        "several": len(records) > 1,
        "runs": parts,
        "comparison": comparison,
        "volumes": {key: value for part in parts for key, value in part["volumes"].items()},
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "version": __version__,
    }
    size = write_page(path, "report.html", context)
    found = [f"{part['name']}: {line}" if len(parts) > 1 else line for part in parts for line in part["problems"]]
    return Report(path, size, (*found, *comparison.get("problems", ())))


def _describe_run(record: RunRecord, number: int, budget: int, progress: Progress) -> dict[str, Any]:
    """All that the template shows of one run."""
    scores = score_table(record)
    problems = record.all_problems
    pictures: tuple[Picture, ...] = ()
    volumes: dict[str, Any] = {}
    prefix = f"r{number}-"
    if scores is not None:
        made = make_pictures(record, scores, budget, prefix, progress)
        pictures, volumes, problems = made.pictures, made.volumes, [*problems, *made.missing]
    environment = next((fold.environment for fold in record.folds if fold.environment), None)
    states = [fold.state for fold in record.folds if fold.state]
    return {
        "id": f"run{number}",
        "prefix": prefix,
        "name": record.name,
        "dataset": record.dataset,
        "folder": str(record.folder),
        "configuration": record.configuration,
        "problems": problems,
        "folds": record.folds,
        "finished": sum(fold.finished for fold in record.folds),
        "seconds": sum(state.elapsed for state in states),
        "cases_known": len(record.raw.cases) if record.raw else None,
        "scores": scores,
        "overview": _overview(scores) if scores else None,
        "per_label": _label_rows(scores) if scores else [],
        "label_columns": _label_columns(scores) if scores else [],
        "curves": draw_curves(record),
        "distributions": draw_distributions(scores) if scores else [],
        "pictures": pictures,
        "volumes": volumes,
        "volumes_note": _volumes_note(len(volumes), len(scores.cases)) if scores else "",
        "class_names": list(record.plan.labels.class_names) if record.plan else [],
        "plan_words": _plan_words(record.plan, record.configuration),
        "anomalies": group_anomalies(record.anomalies),
        "warnings": _warnings(record),
        "settings": _settings(record),
        "environment": environment or describe_environment(),
        "environment_is_of_training": environment is not None,
        "commands": _commands(record),
    }


def _volumes_note(embedded: int, cases: int) -> str:
    if not embedded:
        return "This page has no volumes to scroll through."
    few = f"The page has the volumes of {embedded} of {cases} cases, the worst and those with pictures: no more fit. "
    return few * (embedded < cases) + "A click on a case opens it."


def _overview(scores: RunScores) -> dict[str, Any]:
    metrics = []
    for metric in scores.metrics:
        low, high = scores.summary.interval(metric)
        metrics.append({"name": metric, "mean": scores.summary.mean(metric), "low": low, "high": high})
    return {"metrics": metrics, "cases": len(scores.cases), "failed": len(scores.failed)}


def _label_rows(scores: RunScores) -> list[dict[str, Any]]:
    table, presence = scores.summary.per_label(), scores.summary.presence()
    return [
        {
            "label": label,
            "reference": int(presence.loc[label, "reference"]),
            "prediction": int(presence.loc[label, "prediction"]),
            "metrics": {metric: table.loc[label, metric].to_dict() for metric in scores.metrics},
        }
        for label in scores.summary.labels
    ]


def _label_columns(scores: RunScores) -> list[str]:
    labels = scores.summary.labels
    return list(labels) if 1 < len(labels) <= MOST_LABEL_COLUMNS else []


def _plan_words(plan: Plan | None, configuration: Configuration | None) -> list[tuple[str, str, str]]:
    """(field, value, reason) of everything in the plan that has a reason."""
    if plan is None or configuration is None:
        return []
    from mvl_auto.planners.reasons import values

    try:
        known = values(plan, configuration)
    except KeyError:  # a plan of another version has reasons for fields that this one does not know
        known = {}
    return [(field, known.get(field, ""), reason) for field, reason in configuration.reasons.items()]


def _warnings(record: RunRecord) -> list[tuple[str, str, str, str]]:
    """(where, time, level, message) of the warnings and errors in the logs."""
    logs = [("preparation", record.preparation), *((fold.name, fold.log) for fold in record.folds)]
    return [
        (where, line.time, line.level.lower(), line.message)
        for where, lines in logs
        for line in lines
        if line.level in SHOWN_LEVELS
    ]


def _settings(record: RunRecord) -> list[tuple[str, str]]:
    """Of the folds' states: those that all folds share once, others with each fold's."""
    states = {fold.name: fold.state for fold in record.folds if fold.state}
    if not states:
        return []
    skipped = {
        *("schema_version", "training_cases", "validation_cases", "optimizer_steps", "fold", "finished", "scaler"),
        *("dataset", "step", "elapsed"),  # in the title and in the table of folds
    }
    columns = {name: state.model_dump(mode="json") for name, state in states.items()}
    found = []
    for field in next(iter(columns.values())):
        if field in skipped:
            continue
        values = {name: _value_text(column[field]) for name, column in columns.items()}
        same = set(values.values())
        text = same.pop() if len(same) == 1 else ", ".join(f"{name}: {value}" for name, value in values.items())
        if text:
            found.append((field, text))
    return found


def _value_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def _commands(record: RunRecord) -> list[str]:
    """The commands that made the run, program names without their folders."""
    from mvl_auto.report.collect import STARTED

    found = [match["command"] for line in record.preparation if (match := STARTED.fullmatch(line.message))]
    found += [command for fold in record.folds for command in fold.commands]
    short = [_without_folder(command) for command in dict.fromkeys(found)]
    root = record.folder.parents[2]
    return [f"export MVL_ROOT={shlex.quote(str(root))}", *dict.fromkeys(short)] if short else []


def _without_folder(command: str) -> str:
    """A command line of a log.txt with its program's name alone; older logs quoted nothing."""
    try:
        program, *words = shlex.split(command)
        return shlex.join([Path(program).name, *words])
    except ValueError:  # a quote without its partner
        program, _, rest = command.partition(" ")
        return f"{Path(program).name} {rest}".strip()


def _compare(named: Mapping[str, Path]) -> dict[str, Any]:
    """The statistics of mvl_compare, or why there are none."""
    from mvl_auto.evaluation.comparison_files import HEADER, NOTE, cells, draw

    problems: list[str] = []
    try:
        models = [read_models([str(folder)])[0] for folder in named.values()]
    except MvlError as error:
        return {"problems": [NO_COMPARISON.format(error=error)]}
    models = [type(model)(name, model.runs) for name, model in zip(named, models, strict=True)]
    comparison: ModelComparison | None = None
    for only_common in (False, True):
        try:
            comparison = compare_models(models, only_common=only_common)
            break
        except MvlError as error:
            problems.append(str(error) if only_common else f"{error} Compared is what all runs have.")
    if comparison is None:
        return {"problems": [NO_COMPARISON.format(error=problems[-1])]}
    return {
        "header": HEADER,
        "rows": [cells(row) for row in comparison.rows],
        "note": NOTE,
        "unit": comparison.unit,
        "reason": comparison.reason,
        "figure": as_svg(draw(comparison), "comparison"),
        "problems": problems,
    }
