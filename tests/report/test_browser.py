"""The page in headless Chromium: no console error, the table sorts and filters, cases open, names are harmless."""

from __future__ import annotations

import json

import pytest
from builders import make_dataset
from reported import HOSTILE
from trained import make_plan, write_trained

from mvl_auto import api
from mvl_auto.report import write_report

COLUMN = (
    "return [...document.querySelectorAll('.cases tbody tr')].filter(r => !r.hidden).map(r => r.cells[{}].dataset.sort)"
)
PIXELS = "return [...document.querySelectorAll('#planes canvas')].map(c => c.toDataURL())"


@pytest.fixture
def page(browser, make_run):
    browser.open(write_report(make_run(names=HOSTILE)).path)
    return browser


def test_the_table_sorts_both_ways_and_filters(page):
    values = [float(value) for value in page.run(COLUMN.format(2))]
    assert len(values) == 6
    click = "document.querySelectorAll('.cases thead button')[2].click()"
    page.run(click)
    assert [float(value) for value in page.run(COLUMN.format(2))] == sorted(values)
    page.run(click)
    assert [float(value) for value in page.run(COLUMN.format(2))] == sorted(values, reverse=True)
    assert page.run("return document.querySelectorAll('.cases th[aria-sort=descending]').length") == 1
    page.run(
        "const i = document.querySelector('[data-filter=fold]'); i.value = 'fold1'; i.dispatchEvent(new Event('input'))"
    )
    assert set(page.run(COLUMN.format(1))) == {"fold1"}
    assert page.run("return document.querySelector('.cases output').textContent") == "3 of 6 cases"
    page.run(
        "const i = document.querySelector('[data-filter=failed]'); i.checked = true;i.dispatchEvent(new Event('input'))"
    )
    assert len(page.run(COLUMN.format(1))) == 1
    assert page.errors() == []


def test_a_case_opens_scrolls_and_toggles(page):
    name = page.run(
        "const b = document.querySelectorAll('.cases tbody [data-open]')[2]; b.click(); return b.textContent"
    )
    page.wait_for("return document.getElementById('viewer').dataset.ready")
    assert page.run("return document.getElementById('viewer').open")
    assert page.run("return document.getElementById('viewer-name').textContent") == name
    before = page.run(PIXELS)
    assert len(before) == 3
    assert len(set(before)) == 3
    for key in ("truth", "prediction", "truth", "labels", "fill"):
        page.run(f"document.querySelector('[data-toggle={key}]').click()")
        after = page.run(PIXELS)
        assert after != before, key
        before = after
    page.run("const s = document.querySelector('#planes input'); s.value = 3; s.dispatchEvent(new Event('input'))")
    assert page.run(PIXELS) != before
    assert page.run("return document.querySelector('#planes span').textContent").startswith("axial 4/")
    page.run("viewer.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))")
    page.wait_for(f"return document.getElementById('viewer-name').textContent !== {json.dumps(name)}")
    assert page.errors() == []


def test_the_viewer_shows_the_arrays_that_were_embedded(page):
    decoded = page.driver.execute_async_script(
        "const done = arguments[0]; decode([...sources.keys()][0])"
        ".then(v => done([v.shape, v.truth.reduce((n, c) => n + (c > 0), 0), v.image.length]))"
    )
    shape, labelled, size = decoded
    assert size == shape[0] * shape[1] * shape[2]
    assert labelled > 0


def test_hostile_names_do_nothing_but_are_shown(page):
    assert page.run("return window.hacked === undefined")
    assert page.run("return document.images.length") == 0
    names = page.run(
        "return [...document.querySelectorAll('section[id$=results] tbody th')].map(each => each.textContent)"
    )
    assert names == list(HOSTILE)
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    assert page.errors() == []


@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_is_never_wider_than_its_window(page, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.run("return document.documentElement.scrollWidth") <= width
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_pictures_of_an_audit_open(browser, root):
    folder = make_dataset(root / "raw", cases=4)
    names = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "imagesTr").glob("*.nii.gz"))
    run = write_trained(root, make_plan(), folds=["0", "1"], validation={"0": names[:2], "1": names[2:]})
    report = api.audit(7, root=root)
    browser.open(run / "audit" / "audit.html")
    shown = browser.run("return [...document.querySelectorAll('article h3')].map(each => each.textContent)")
    assert shown == [audited.case for audited, _ in report.cases]
    assert browser.run("return document.querySelectorAll('article path.truth').length") > 0
    assert "no prediction of it" in browser.run("return document.querySelector('.problems').textContent")
    browser.run("document.querySelector('article[data-open]').click()")
    browser.wait_for("return document.getElementById('viewer').dataset.ready")
    assert browser.run("return document.getElementById('viewer').classList.contains('by-label')")
    assert browser.errors() == []
