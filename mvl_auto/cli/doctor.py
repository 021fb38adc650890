"""mvl_doctor: say all that is wrong or odd with a dataset, and repair a copy of it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.alike import alike, remedy_in, where
from mvl_auto.cli.common import DONE, PARTLY_FAILED, Command, run_command
from mvl_auto.cli.values import positive
from mvl_auto.tables import table
from mvl_auto.text import count_text

if TYPE_CHECKING:
    from mvl_auto.planners import Diagnosis, Finding, Repair

MOST_ROWS = 20  # of each table on the screen; the JSON files have all


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", required=True, metavar="DATASET", help="number, name or path")
    parser.add_argument(
        "--fix", type=Path, metavar="FOLDER", help="write a repaired copy of the dataset there, with repairs.json"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found there too")
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (default: one per core)")


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api

    diagnosis, repairs = api.doctor(
        args.dataset,
        root=args.root,
        fix=args.fix,
        output=args.json,
        workers=args.workers,
        progress=args.progress,
    )
    print(overview(diagnosis))
    told = findings(diagnosis.findings, "--json FILE" if args.json is None else str(args.json), str(args.dataset))
    print(told, end="")
    if args.json is not None:
        print(f"\nwrote {args.json}")
    if repairs is None:
        if count := len(diagnosis.repairable_files):
            command = f"mvl_doctor -d {shlex.quote(str(args.dataset))} --fix FOLDER"
            print(f"\n{count_text(count, 'file')} can be repaired, in a copy: {command}")
        return DONE if diagnosis.usable else PARTLY_FAILED
    report = args.fix / "repairs.json"
    print(treatment(repairs.repairs, report), end="")
    if repairs.remaining:
        print(f"\nleft in the copy:{findings(repairs.remaining, str(report), str(args.fix))}", end="")
    print(f"\nwrote {args.fix}, with repairs.json")
    if not repairs.usable:
        return PARTLY_FAILED
    print(f"next: mvl_plan_and_preprocess -d {shlex.quote(str(args.fix))}")
    return DONE


def overview(diagnosis: Diagnosis) -> str:
    counts = {"to mend": len(diagnosis.preventing), "odd": len(diagnosis.odd)}
    found = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing wrong, nothing odd"
    return f"\n{diagnosis.dataset}: {diagnosis.usable_cases} of {diagnosis.cases} cases can be used; {found}"


def findings(found: Sequence[Finding], all_in: str, dataset: str) -> str:
    """A table of what prevents use, and one of what is odd, each with a line ahead; empty without any.

    dataset: as the user named it, for the commands among the remedies.
    """
    from mvl_auto.planners.fingerprint import group_anomalies

    text = ""
    for heading, prevents_use in (("to be mended before it can be used", True), ("odd, but can be used", False)):
        of_kind = [each for each in found if each.prevents_use == prevents_use]
        rows = [(group.where, group.what, remedy_in(group.remedy, dataset)) for group in group_anomalies(of_kind)]
        if rows:
            text += f"\n{heading}:\n{_cut(['file', 'what', 'what to do'], rows, all_in)}\n"
    return text


def treatment(repairs: Sequence[Repair], report: Path) -> str:
    """A table of what was done to which files, and of what could not be done; figures are those of the first file."""
    text = ""
    for heading, outcome, last in (
        ("repaired in the copy", "repaired", "done"),
        ("could not be repaired", "left", "why"),
    ):
        kinds = alike((each for each in repairs if each.outcome == outcome), _told_of)
        rows = [(where([each.file for each in kind]), kind[0].found, kind[0].done) for kind in kinds]
        if rows:
            text += f"\n{heading}:\n{_cut(['file', 'found', last], rows, str(report))}\n"
    return text or "\nnothing to repair: the copy is as the original\n"


def _told_of(repair: Repair) -> tuple[str, str]:
    return repair.file, f"{repair.found} {repair.done}"


def _cut(header: Sequence[str], rows: Sequence[Sequence[str]], all_in: str) -> str:
    more = f"\n... and {len(rows) - MOST_ROWS} more, see {all_in}" if len(rows) > MOST_ROWS else ""
    return f"{table(header, rows[:MOST_ROWS], wrapped=2)}{more}"


COMMAND = Command(
    name="mvl_doctor",
    summary="Look at a dataset and every case of it, and say all that is wrong or odd, with what to do about it. The "
    "dataset is never changed: --fix writes a repaired copy. Exit code 1 when some cases cannot be used.",
    example="""
        mvl_doctor -d 4
        mvl_doctor -d data/Task04_Hippocampus --fix data/Task104_Repaired
    """,
    add_arguments=add_arguments,
    run=run,
)
