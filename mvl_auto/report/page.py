"""A page as one HTML file: jinja2 with autoescape, style and script inside, and a policy that forbids any request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from mvl_auto.evaluation.metrics import METRICS
from mvl_auto.files import write_text
from mvl_auto.text import duration_text, memory_text

ASSETS = "assets"
LABEL_COLOURS = 7  # of assets/page.css: --label-0, ...


def render(template: str, context: Mapping[str, Any]) -> str:
    """The HTML of assets/<template>. All text of the context is escaped, but what it marks as `Markup`."""
    import jinja2
    from markupsafe import Markup, escape

    folder = files("mvl_auto.report").joinpath(ASSETS)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": score_text,
        "duration": duration_text,
        "memory": memory_text,
        "breakable": lambda text: Markup("_<wbr>").join(escape(part) for part in str(text).split("_")),
        "svg": Markup,  # figures.as_svg: its text is escaped by ElementTree
        "label_colour": lambda klass: f"var(--label-{(int(klass) - 1) % LABEL_COLOURS})",
    }
    environment.globals |= {"metrics": METRICS, "isfinite": math.isfinite}
    inlined = {name: Markup(folder.joinpath(name).read_text(encoding="utf-8")) for name in ("page.css", "page.js")}
    return environment.get_template(template).render(style=inlined["page.css"], script=inlined["page.js"], **context)


def write_page(path: Path, template: str, context: Mapping[str, Any]) -> int:
    """Render and write; returns the bytes written. Raises MvlError when the file cannot be written."""
    text = render(template, context)
    write_text(path, text)
    return len(text.encode("utf-8"))


def score_text(value: float | None, metric: str = "dice") -> str:
    """Three decimals of a share, two of mm and ml; a dash where it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{2 if METRICS[metric].unit else 3}f}"
