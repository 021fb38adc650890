"""The charts, by matplotlib, as SVG inside the page.

Their colours are the page's CSS variables, so that they follow its dark mode; their text is text.
"""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mvl_auto.evaluation.metrics import METRICS
from mvl_auto.extras import need
from mvl_auto.report.collect import RunRecord
from mvl_auto.report.scores import RunScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 6  # colours of the page for lines that stand beside each other: --series-0, ...
INK, MUTED, LINE = "#010101", "#010102", "#010103"  # never seen: stand for the page's colours
SERIES_COLOURS = tuple(f"#01011{number}" for number in range(SERIES))
COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    "#000000": "var(--ink)",
    "#ffffff": "none",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES_COLOURS)},
    "#2166ac": "var(--better)",
    "#b35806": "var(--worse)",  # those of evaluation.comparison_files
}
WIDE = 5.6  # inches of a figure; the page scales it
MOST_LABELS = 40  # rows of a distribution
JITTER = 0.22  # of a row, to both sides
STYLE: dict[Any, Any] = {  # matplotlib's own names
    "svg.fonttype": "none",
    "svg.hashsalt": "mvl_auto",  # ids that are the same in every run
    "font.size": 9.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.parse_math": False,
}


def draw_curves(run: RunRecord) -> list[tuple[str, str]]:
    """(title, SVG) of each column of progress.csv that is worth a look: loss, Dice on patches, learning rate."""
    wanted = {
        "loss": "Training loss",
        "dice": "Dice on validation patches, while training",
        "learning_rate": "Learning rate",
    }
    drawn = []
    for column, title in wanted.items():
        lines = {fold.name: _points(fold.curves, column) for fold in run.folds}
        lines = {name: points for name, points in lines.items() if points}
        if lines:
            drawn.append((title, _draw_lines(lines, column)))
    return drawn


def draw_distributions(scores: RunScores) -> list[tuple[str, str]]:
    """(title, SVG) of each metric: a row for each label, a point for each case, quartiles and median."""
    return [(metric_title(metric), _draw_distribution(scores, metric)) for metric in scores.metrics if _is_main(metric)]


def as_svg(figure: Figure, name: str) -> str:
    """The SVG element of a figure, to stand in HTML: without style rules and ids that would reach beyond it.

    name: makes its ids unlike those of the page's other figures.
    """
    stream = io.StringIO()
    with _style():
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(stream.getvalue())
    for element in list(root.iter()):
        for child in list(element):
            if child.tag.endswith(("}metadata", "}style")):
                element.remove(child)
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: _clean(key, value, name) for key, value in element.attrib.items()}
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    return ET.tostring(root, encoding="unicode")


def new_figure(height: float, width: float = WIDE) -> Figure:
    """Raises MvlError when matplotlib is not installed."""
    need("matplotlib", "the report's charts")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _style() -> Any:
    from matplotlib import rc_context

    return rc_context(STYLE)


def _clean(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    value = value.replace("url(#", f"url(#{name}-")
    if key.endswith("href") and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key == "style":
        for colour, variable in COLOURS.items():
            value = value.replace(colour, variable)
    return value


def _points(curves: Mapping[str, tuple[float, ...]], column: str) -> list[tuple[float, float]]:
    pairs = zip(curves.get("step", ()), curves.get(column, ()), strict=False)
    return [(step, value) for step, value in pairs if math.isfinite(value)]


def _draw_lines(lines: Mapping[str, Sequence[tuple[float, float]]], column: str) -> str:
    figure = new_figure(2.9)
    with _style():
        axis = figure.subplots()
        for number, (name, points) in enumerate(lines.items()):
            steps, values = zip(*points, strict=True)
            style = ("-", "--", ":", "-.")[number // SERIES % 4]
            marker = "o" if len(points) == 1 else ""
            colour = SERIES_COLOURS[number % SERIES]
            axis.plot(steps, values, style, color=colour, linewidth=1.6, label=name, marker=marker, markersize=4)
        axis.set_xlabel("step")
        axis.grid(True, axis="y")
        if column == "learning_rate":
            axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        if len(lines) > 1:
            axis.legend(frameon=False, fontsize=8, ncols=3, labelcolor=MUTED)
        return as_svg(figure, f"curve-{column}")


def _draw_distribution(scores: RunScores, metric: str) -> str:
    import numpy as np

    wide = scores.summary.wide(metric)
    labels = list(wide.columns)
    if len(labels) > MOST_LABELS:
        up = METRICS[metric].higher_is_better
        labels = list(wide.mean().sort_values(ascending=bool(up)).index[:MOST_LABELS])
    figure = new_figure(0.75 + 0.42 * max(len(labels), 2))
    rng = np.random.default_rng(0)  # places of points only
    with _style():
        axis = figure.subplots()
        for row, label in enumerate(labels):
            values = wide[label].dropna().to_numpy()
            _draw_row(axis, row, values, rng)
        axis.set_yticks(range(len(labels)), [_one_line(str(label)) for label in labels])
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.grid(True, axis="x")
        axis.spines["left"].set_visible(False)
        if _is_share(metric):
            axis.set_xlim(-0.02, 1.02)
        axis.set_xlabel(metric_title(metric))
        return as_svg(figure, f"spread-{metric}")


def _draw_row(axis: Axes, row: int, values: Any, rng: Any) -> None:
    import numpy as np

    if not len(values):
        return
    low, middle, high = np.percentile(values, [25, 50, 75])
    places = row + rng.uniform(-JITTER, JITTER, len(values))
    axis.plot(values, places, "o", color=SERIES_COLOURS[0], alpha=0.6, markersize=3.4, markeredgewidth=0)
    axis.plot([low, high], [row, row], color=INK, linewidth=4, alpha=0.35, solid_capstyle="butt")
    axis.plot([middle], [row], "|", color=INK, markersize=13, markeredgewidth=2.2)


def _is_main(metric: str) -> bool:
    return metric in {"dice", "hd95_mm", "nsd", "lesion_f1", "volume_error_ml", "assd_mm", "boundary_iou"}


def _is_share(metric: str) -> bool:
    return not METRICS[metric].unit


def metric_title(metric: str) -> str:
    """What a metric is, with its unit: the heading of a chart."""
    return (
        METRICS[metric].meaning[:1].upper()
        + METRICS[metric].meaning[1:]
        + (f" ({METRICS[metric].unit})" if METRICS[metric].unit else "")
    )


def _one_line(text: str) -> str:
    """A label's name in a chart: without what XML cannot hold, and not longer than its place."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return plain if len(plain) <= 28 else plain[:27] + "…"
