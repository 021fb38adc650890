"""Charts stand in HTML: no rule, id or text of them reaches beyond, and their colours are the page's."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from reported import HOSTILE

from mvl_auto.evaluation.metrics import METRICS
from mvl_auto.report.collect import collect_run
from mvl_auto.report.figures import as_svg, draw_curves, draw_distributions, metric_title, new_figure
from mvl_auto.report.scores import score_table


@pytest.fixture
def charts(make_run):
    record = collect_run(make_run(names=HOSTILE))
    return [*draw_curves(record), *draw_distributions(score_table(record))]


def test_curves_and_distributions_are_drawn(charts):
    assert [title for title, _ in charts] == ["Training loss", "Learning rate", "Dice similarity coefficient"]
    texts = [element.text for element in ET.fromstring(charts[0][1]).iter("text")]
    assert {"fold0", "fold1", "step"} <= set(texts)


def test_the_title_of_a_metric_says_by_itself_what_it_is():
    titles = [metric_title(metric) for metric in METRICS]
    assert len(set(titles)) == len(METRICS)
    assert not [title for title in titles if title.split()[0] in {"Its", "Of", "That", "As", "Whatever"}]
    assert metric_title("hd95_mm") == "95th percentile of the Hausdorff distance (mm)"


def test_nothing_of_a_chart_reaches_beyond_it(charts):
    ids = []
    for _, svg in charts:
        root = ET.fromstring(svg)
        assert root.tag == "svg"
        assert not {"style", "metadata", "script"} & {element.tag for element in root.iter()}
        own = [element.get("id") for element in root.iter() if element.get("id")]
        used = re.findall(r"url\(#([^)]+)\)", svg) + [
            element.get("href")[1:] for element in root.iter() if element.get("href")
        ]
        assert set(used) <= set(own)
        ids += own
    assert len(ids) == len(set(ids))


def test_a_chart_is_the_same_in_every_run():
    def drawn() -> str:
        figure = new_figure(2)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], clip_on=True)
        return as_svg(figure, "curve")

    assert "clip-path" in drawn()
    assert drawn() == drawn()


def test_colours_are_those_of_the_page(charts):
    for _, svg in charts:
        assert "#0101" not in svg
        assert "var(--series-0)" in svg


def test_a_hostile_name_is_text(charts):
    svg = charts[-1][1]
    assert "<script" not in svg
    assert any((element.text or "").startswith("</script>") for element in ET.fromstring(svg).iter("text"))
