"""What an ablation found, as files: one page, Markdown, CSV and LaTeX, from the runs that are finished so far."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from mvl_auto.ablation.arms import ARMS
from mvl_auto.ablation.evidence import FEWEST_RUNS, REFERENCES, EvidenceTable, tables_of
from mvl_auto.ablation.record import RunRecord
from mvl_auto.evaluation.compare import Row
from mvl_auto.evaluation.comparison_files import figure_text, latex_table, markdown_table, p_text, signed
from mvl_auto.files import write_text, writing
from mvl_auto.report.page import write_page
from mvl_auto.text import count_text
from mvl_auto.version import __version__

STEM = "evidence"
ARM_HEADER = (
    "arm",
    "what stands in the block's place",
    "runs",
    "Dice",
    "s per step",
    "of vit's",
    "learning rate, mappers",
)
ROW_HEADER = ("arm", "against", "runs x cases", "difference", "95 % interval", "p", "p (Holm)", "detectable")
LOOKS = ("as it is", "without block", "mean of block", "without trunk")  # free_looks.LOOKS
LOOK_HEADER = ("arm", "runs", *LOOKS, "gradient cosine", "... without block", "mean gate")
LOOK_NOTE = (
    "Free looks: mean Dice of the trained networks after a change at prediction only (ablation/free_looks.py), and the "
    "mean cosine between the gradients of two samples."
)
NOTE = (
    "A run is one fold and one seed. difference: mean Dice of the arm minus that of the other, on runs with the same "
    "fold, seed and cases. The unit is the run: test and interval count the variation between runs and between cases "
    "(evaluation/statistics.py, compare_runs). p (Holm): corrected for the number of comparisons. detectable: the "
    "smallest true difference that this many runs find with a probability of 80 %."
)
FEW = "With one run of an arm nothing can be said about it: no interval and no p value is given."


def write_evidence(records: Iterable[RunRecord], folder: Path) -> list[Path]:
    """Write evidence.html, .md, .csv and .tex into `folder`; returns the files. Raises MvlError when it cannot."""
    import pandas as pd

    records = list(records)
    tables = tables_of(records)
    paths = {ending: Path(folder) / f"{STEM}.{ending}" for ending in ("html", "md", "csv", "tex")}
    write_page(paths["html"], "ablation.html", page_context(tables, records))
    write_text(paths["md"], markdown(tables))
    write_text(paths["tex"], latex(tables))
    with writing(paths["csv"]) as beside:
        pd.DataFrame(flat_rows(tables)).to_csv(beside, index=False)
    return list(paths.values())


def arm_cells(table: EvidenceTable) -> list[list[str]]:
    """One row for each arm, for ARM_HEADER."""
    rows = []
    for arm in table.arms:
        rates = next(iter(arm.runs.values())).rates
        what = ARMS[arm.arm].what if arm.arm in ARMS else ""
        cost = "-" if math.isnan(arm.cost) else f"{arm.cost:.2f}"
        how = f"{rates.learning_rate:g}" + ("" if rates.mapper_rate == 1 else f", x {rates.mapper_rate:g}")
        rows.append([arm.name, what, str(len(arm.runs)), figure_text(arm.dice), f"{arm.seconds:.3f}", cost, how])
    return rows


def row_cells(table: EvidenceTable) -> list[list[str]]:
    """One row for each comparison of all labels together, for ROW_HEADER."""
    return [
        [
            row.second,
            row.first,
            f"{row.compared.runs} x {row.compared.cases}",
            signed(row.compared.difference),
            f"{signed(row.compared.low)} to {signed(row.compared.high)}" if row.compared.runs >= FEWEST_RUNS else "-",
            p_text(row.compared.p_value) if row.compared.runs >= FEWEST_RUNS else "-",
            p_text(row.p_corrected) if row.compared.runs >= FEWEST_RUNS else "-",
            figure_text(row.compared.detectable) if row.compared.runs >= FEWEST_RUNS else "-",
        ]
        for row in table.overall
    ]


def look_cells(table: EvidenceTable) -> list[list[str]]:
    """One row for each arm whose runs were looked at, for LOOK_HEADER: means over these runs."""
    rows = []
    for arm in table.arms:
        looked = [record for record in arm.runs.values() if record.free_looks is not None]
        if looked:
            dice = [[(record.free_looks or {}).get(name) for record in looked] for name in LOOKS]
            cosines = [[(record.gradient_cosines or {}).get(name) for record in looked] for name in LOOKS[:2]]
            gates = [record.gate for record in looked]
            rows.append([arm.name, str(len(looked)), *map(mean_text, [*dice, *cosines, gates])])
    return rows


def mean_text(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return figure_text(fmean(there)) if there else "-"


def notes_of(table: EvidenceTable) -> list[str]:
    """Sentences below a table: where the figures come from, and what to mind."""
    machines = sorted(
        {
            f"{r.machine.processor} ({', '.join(r.machine.instruction_sets) or 'no AVX2'}), {r.machine.precision}, "
            f"{count_text(r.machine.threads, 'thread')}"
            for r in table.records
        }
    )
    few = [FEW] if any(len(arm.runs) < FEWEST_RUNS for arm in table.arms) else []
    return [f"Equal {table.equal}. Computed on {'; '.join(machines)}.", *few, *table.notes]


def markdown(tables: Sequence[EvidenceTable], level: int = 2) -> str:
    """The tables in Markdown, each under its own heading."""
    parts = [] if tables else ["No run is finished yet.\n"]
    for table in tables:
        parts += [
            f"{'#' * level} {table.title}\n",
            "\n".join(markdown_table(ARM_HEADER, arm_cells(table))) + "\n",
            "\n".join(markdown_table(ROW_HEADER, row_cells(table))) + "\n",
            *(["\n".join(markdown_table(LOOK_HEADER, looks)) + "\n"] if (looks := look_cells(table)) else []),
            " ".join(notes_of(table)) + "\n",
        ]
    return "\n".join([*parts, *([f"{NOTE} {LOOK_NOTE}\n"] if tables else [])])


def latex(tables: Sequence[EvidenceTable]) -> str:
    """Two tabulars for booktabs for each group of runs."""
    lines = [f"% {NOTE}", f"% {LOOK_NOTE}"]
    for table in tables:
        lines += ["", f"% {table.title}", *(f"% {note}" for note in notes_of(table))]
        lines += latex_table(ARM_HEADER, arm_cells(table), left=2)
        lines += latex_table(ROW_HEADER, row_cells(table), left=2)
        if looks := look_cells(table):
            lines += latex_table(LOOK_HEADER, looks, left=1)
    return "\n".join(lines) + "\n"


def flat_rows(tables: Sequence[EvidenceTable]) -> list[dict[str, object]]:
    """Every comparison, of every label, as one row of a CSV file."""
    return [
        {
            "dataset": table.basis.dataset,
            "configuration": table.basis.configuration,
            "training_cases": str(table.amount),
            "length": str(table.basis.length),
            "arm": row.second,
            "against": row.first,
            "label": row.label,
            "runs": row.compared.runs,
            "cases": row.compared.cases,
            "dice": row.second_mean,
            "dice_of_other": row.first_mean,
            "difference": row.compared.difference,
            **({} if row.compared.runs < FEWEST_RUNS else measures(row)),
        }
        for table in tables
        for row in table.rows
    ]


def measures(row: Row) -> dict[str, float]:
    """What only several runs can say."""
    compared = row.compared
    return {
        "low": compared.low,
        "high": compared.high,
        "bootstrap_low": compared.bootstrap_low,
        "bootstrap_high": compared.bootstrap_high,
        "p": compared.p_value,
        "p_holm": row.p_corrected,
        "detectable": compared.detectable,
    }


def page_context(tables: Sequence[EvidenceTable], records: Sequence[RunRecord]) -> dict[str, object]:
    """What assets/ablation.html shows."""
    datasets = ", ".join(sorted({record.basis.dataset for record in records})) or "no runs yet"
    shown = [
        {
            "title": table.title,
            "arms": arm_cells(table),
            "rows": row_cells(table),
            "looks": look_cells(table),
            "notes": notes_of(table),
            "intervals": intervals(table),
        }
        for table in tables
    ]
    runs = [
        {
            "name": record.name,
            "dice": record.mean_dice,
            "steps": record.steps,
            "seconds": record.seconds,
            "command": record.command,
        }
        for record in records
    ]
    return {
        "title": datasets,
        "tables": shown,
        "runs": runs,
        "note": f"{NOTE} {LOOK_NOTE}",
        "arm_header": ARM_HEADER,
        "row_header": ROW_HEADER,
        "look_header": LOOK_HEADER,
        "version": __version__,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "volumes": {},
    }


def intervals(table: EvidenceTable) -> list[dict[str, object]]:
    """The differences from the first reference as bars of a picture: places in percent of its width."""
    rows = [row for row in table.overall if row.first == REFERENCES[0] and row.compared.runs >= FEWEST_RUNS]
    reach = max((max(abs(row.compared.low), abs(row.compared.high)) for row in rows), default=0.0)
    if not reach or not math.isfinite(reach):
        return []

    def place(value: float) -> float:
        return 50 + 48 * value / reach

    return [
        {
            "arm": row.second,
            "low": place(row.compared.low),
            "width": place(row.compared.high) - place(row.compared.low),
            "middle": place(row.compared.difference),
            "text": f"{signed(row.compared.difference)} ({signed(row.compared.low)} to {signed(row.compared.high)})",
        }
        for row in rows
    ]
