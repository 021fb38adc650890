"""A comparison as files: CSV, JSON, a Markdown and a LaTeX table, and a plot as PNG and SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_auto.evaluation.compare import ALL_LABELS, ModelComparison, Row
from mvl_auto.evaluation.metrics import METRICS
from mvl_auto.extras import need
from mvl_auto.files import write_json, write_text, writing, writing_all
from mvl_auto.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
STEM = "comparison"
HEADER = (
    *("metric", "models", "label", "n", "means", "difference", "95 % interval"),
    *("won", "effect", "p", "p (Holm)", "detectable"),
)
NOTE = (
    "difference: second minus first model. won: cases on which the second is better, worse, equal. effect: mean "
    "difference over the standard deviation of the units' differences. detectable: the smallest true difference that "
    "this design finds with a probability of 80 %. p (Holm): corrected for the number of labels and pairs."
)
MOST_PANELS = 24
PANEL_INCHES = (3.4, 2.6)
BETTER, WORSE = "#2166ac", "#b35806"  # told apart by colour-blind readers too
INTERVAL = "#808080"
MINUS = re.compile(r"(?<![\w.])-(?=\d)")
LETTERS_ACROSS = 36  # of a panel's title


def comparison_files(folder: Path) -> list[Path]:
    """The files of a comparison: comparison.csv, .json, .md, .tex, .png and .svg."""
    return [Path(folder) / f"{STEM}.{ending}" for ending in ("csv", "json", "md", "tex", "png", "svg")]


def write_comparison(comparison: ModelComparison, folder: Path) -> list[Path]:
    """Write `comparison_files`; returns them. Raises MvlError when it cannot."""
    import pandas as pd

    paths = {path.suffix[1:]: path for path in comparison_files(folder)}
    with writing(paths["csv"]) as beside:
        pd.DataFrame([_flat(row) for row in comparison.rows]).to_csv(beside, index=False)
    write_json(paths["json"], as_json(comparison))
    write_text(paths["md"], markdown(comparison))
    write_text(paths["tex"], latex(comparison))
    figure = draw(comparison)
    from matplotlib import rc_context

    with (
        writing_all(paths["png"], paths["svg"]) as (png, svg),
        rc_context({"svg.hashsalt": STEM}),
    ):  # else its ids are random
        figure.savefig(png, dpi=150)
        figure.savefig(svg, metadata={"Date": None})
    return list(paths.values())


def as_json(comparison: ModelComparison) -> dict[str, Any]:
    """The rows, the differences of each case, and where the scores came from; NaN becomes None."""
    differences = [
        {"metric": metric, "first": first, "second": second, "label": label, "cases": values}
        for (metric, first, second, label), values in comparison.differences.items()
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "mvl_auto_version": __version__,
        "unit": comparison.unit,
        "reason": comparison.reason,
        "note": NOTE,
        "models": {model.name: [str(run.file) for run in model.runs] for model in comparison.models},
        "rows": [
            {
                key: None if isinstance(value, float) and math.isnan(value) else value
                for key, value in _flat(row).items()
            }
            for row in comparison.rows
        ],
        "differences": differences,
    }


def cells(row: Row) -> list[str]:
    """The row as text, one cell for each of HEADER."""
    compared = row.compared
    number = f"{compared.cases}" if compared.unit == "case" else f"{compared.runs} x {compared.cases}"
    return [
        row.metric,
        f"{row.first}, {row.second}",
        row.label,
        number,
        f"{figure_text(row.first_mean)}, {figure_text(row.second_mean)}",
        signed(compared.difference),
        f"{signed(compared.low)} to {signed(compared.high)}",
        f"{row.wins}/{row.losses}/{compared.equal}",
        signed(compared.effect, 2),
        p_text(compared.p_value),
        p_text(row.p_corrected),
        figure_text(compared.detectable),
    ]


def markdown(comparison: ModelComparison) -> str:
    """A table in Markdown, and below it what the columns mean."""
    lines = markdown_table(HEADER, [cells(row) for row in comparison.rows])
    return "\n".join([*lines, "", escape_markdown(comparison.reason), "", NOTE]) + "\n"


def latex(comparison: ModelComparison) -> str:
    """A tabular for booktabs, and what the columns mean as comments."""
    tabular = latex_table(HEADER, [cells(row) for row in comparison.rows], left=3)
    return "\n".join([f"% {comparison.reason}", f"% {NOTE}", *tabular]) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Its lines; every cell is escaped."""
    lines = ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in (header, *rows)]
    return [lines[0], "|" + "---|" * len(header), *lines[1:]]


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """The lines of a tabular for booktabs, its first `left` columns of words; every cell is escaped.

    Figures have the minus of mathematics; that of text is a hyphen.
    """
    escaped = [list(map(escape_latex, row)) for row in (header, *rows)]
    cells_of = [[*row[:left], *(MINUS.sub("$-$", cell) for cell in row[left:])] for row in escaped]
    lines = [" & ".join(row) + r" \\" for row in cells_of]
    columns = "l" * left + "r" * (len(header) - left)
    return [
        *(rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule"),
        *(*lines[1:], r"\bottomrule", r"\end{tabular}"),
    ]


def draw(comparison: ModelComparison) -> Figure:
    """The differences of all cases, ordered, for each pair and label of the first metric; with mean and interval."""
    need("matplotlib", "the plot of a comparison")
    from matplotlib.figure import Figure

    metric = comparison.metrics[0]
    rows = [row for row in comparison.rows if row.metric == metric]
    if len(rows) > MOST_PANELS:
        rows = [row for row in rows if row.label == ALL_LABELS][:MOST_PANELS]
    across = min(len(rows), max(len(rows) // len(comparison.pairs), 1), 4)
    down = math.ceil(len(rows) / across)
    figure = Figure(figsize=(PANEL_INCHES[0] * across, PANEL_INCHES[1] * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for axis, row in zip(axes.flat, rows, strict=False):
        values = comparison.differences[row.metric, row.first, row.second, row.label].values()
        _draw_panel(axis, row, sorted(values))
    for axis in axes.flat[len(rows) :]:
        axis.set_visible(False)
    return figure


def _draw_panel(axis: Axes, row: Row, values: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    up = METRICS[row.metric].higher_is_better
    colours = [BETTER if (value > 0) == bool(up) else WORSE for value in values]
    axis.bar(range(1, len(values) + 1), values, color=colours, width=0.9)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.axhline(row.compared.difference, color="black", linewidth=1.2, linestyle="--")
    if math.isfinite(row.compared.low):
        axis.axhspan(row.compared.low, row.compared.high, color=INTERVAL, alpha=0.25, linewidth=0, zorder=0)
    second, first, label = (_short(_plain(_one_line(name))) for name in (row.second, row.first, row.label))
    between = " " if len(second) + len(first) < LETTERS_ACROSS - len(" minus ") else "\n"
    title = f"{second}{between}minus {first}\n{label}, p (Holm) {p_text(row.p_corrected)}"
    axis.set_title(title, fontsize=8, parse_math=False)
    unit = METRICS[row.metric].unit
    axis.set_ylabel(row.metric + (f" ({unit})" if unit and not row.metric.endswith(unit) else ""), fontsize=8)
    axis.set_xlabel("cases, ordered", fontsize=8)
    axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.tick_params(labelsize=7)


def figure_text(value: float, digits: int = 4) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 4) -> str:
    return "-" if math.isnan(value) else f"{value:+.{digits}f}"


def p_text(value: float) -> str:
    return "-" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def escape_markdown(text: str) -> str:
    """Nothing in a name makes another cell, a line, or HTML."""
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "\\`"), ("*", "\\*")):
        text = text.replace(sign, written)
    return _one_line(text)


def escape_latex(text: str) -> str:
    """The ten special characters of LaTeX as themselves."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    } | {sign: f"\\{sign}" for sign in "&%$#_{}"}
    return _one_line("".join(special.get(sign, sign) for sign in text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _short(text: str) -> str:
    """The end of a long name, which tells paths apart."""
    return text if len(text) <= LETTERS_ACROSS else f"…{text[1 - LETTERS_ACROSS :]}"


def _plain(text: str) -> str:
    """Without control characters, which a font cannot draw and SVG cannot hold."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _flat(row: Row) -> dict[str, Any]:
    """One row of the CSV."""
    named = {name: getattr(row, name) for name in ("metric", "first", "second", "label", "first_mean", "second_mean")}
    named |= asdict(row.compared)
    return named | {"wins": row.wins, "losses": row.losses, "p_corrected": row.p_corrected}
