"""The page in headless Chromium: no console error, the table sorts and filters, cases open, names are harmless."""

from __future__ import annotations

import json
from contextlib import contextmanager

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
    page.run(
        "document.querySelector('#planes canvas').dispatchEvent(new WheelEvent('wheel', {deltaY: 1, bubbles: true}))"
    )
    assert page.run("return document.querySelector('#planes span').textContent").startswith("axial 5/")
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


def test_a_hostile_name_of_a_case_or_run_does_nothing_but_is_shown(browser, root, make_run, tmp_path):
    hostile = "<img src=x onerror=\"window.hacked=3\">&'q'&lt;_b"
    runs = {hostile: make_run("a"), "plain": make_run("b")}
    rename_case(root, "tiny_001", hostile)
    browser.open(write_report(runs, tmp_path / "both.html").path)
    assert browser.run("return document.querySelector('summary').textContent") == hostile
    rows = "return [...document.querySelectorAll('.cases')[0].querySelectorAll('tbody th')].map(th => th.textContent)"
    assert hostile in browser.run(rows)
    browser.run(
        "[...document.querySelectorAll('.cases [data-open]')].find(e => e.textContent === arguments[0]).click()",
        hostile,
    )
    browser.wait_for("return document.getElementById('viewer').dataset.ready")
    assert browser.run("return document.getElementById('viewer-name').textContent") == hostile
    assert browser.run("return window.hacked === undefined")
    assert browser.run("return document.images.length") == 0
    assert browser.errors() == []


def rename_case(root, old: str, new: str) -> None:
    """In the dataset and in every run: files, and what JSON says."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        if path.suffix == ".json":
            path.write_text(path.read_text().replace(old, json.dumps(new)[1:-1]))
        if path.name.startswith(old):
            path.rename(path.with_name(path.name.replace(old, new)))


@contextmanager
def window(browser, width: int, media: str = "", scheme: str = "light"):
    """A window of this width, as paper where media is "print", in light or dark colours."""
    metrics = {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")  # it is resized
    try:
        yield browser
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_is_never_wider_than_its_window(page, width):
    with window(page, width):
        assert page.run("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1400])
def test_the_viewer_stays_within_a_narrow_and_a_wide_window(page, width):
    with window(page, width):
        page.run("document.querySelector('.cases [data-open]').click()")
        page.wait_for("return document.getElementById('viewer').dataset.ready")
        outside = page.run(
            "return [...document.querySelectorAll('#planes canvas')].filter(c => {"
            " const [a, b] = [c.getBoundingClientRect(), c.parentElement.getBoundingClientRect()];"
            " return a.left < b.left || a.right > b.right || b.right > innerWidth}).length"
        )
        assert outside == 0
        ratios = page.run(
            "return [...document.querySelectorAll('#planes canvas')]"
            ".map(c => c.width / c.height * c.clientHeight / c.clientWidth)"
        )
        assert ratios == pytest.approx([1, 1, 1], rel=0.02)  # not squeezed


CONTRAST = """
const light = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((n) => n / 255)
    .map((n) => n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("main *")].filter((node) => node.checkVisibility() && !node.closest("svg, .slice")
    && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())).map((node) => {
  const [a, b] = [light(getComputedStyle(node).color), light(ground(node))];
  return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.tagName + "." + node.className];
}).sort((one, other) => one[0] - other[0])[0];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("media", ["", "print"])
def test_all_text_stands_out_from_its_ground(page, scheme, media):
    """The contrast that WCAG 2.1 asks for (AA), by its formula."""
    with window(page, 1000, media, scheme):
        light = page.run("return getComputedStyle(document.body).backgroundColor") in (
            "rgb(245, 246, 248)",
            "rgb(255, 255, 255)",
        )
        assert light == (scheme == "light" or media == "print")
        ratio, where = page.run(CONTRAST)
        assert ratio >= 4.5, where


def test_paper_has_every_case_and_nothing_to_click(browser, make_run):
    run = make_run()
    evaluate(run, "all")
    browser.open(write_report(run).path)
    with window(browser, 720, "print"):  # A4 without its margins
        assert browser.run("return document.querySelectorAll('.cases tbody tr').length") == 6
        for selector in (".cases .controls", "nav", "#viewer", ".screen"):
            assert not browser.run(f"return document.querySelector('{selector}').checkVisibility()"), selector
        scrolled = (
            "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
        )
        assert browser.run(scrolled) == 0  # with every metric there is
    assert browser.errors() == []


def test_all_runs_are_on_paper(browser, make_run, tmp_path):
    runs = {"first": make_run("a"), '"<i>second</i>': make_run("b", shift=1)}
    browser.open(write_report(runs, tmp_path / "both.html").path)
    shown = "return [...document.querySelectorAll('details .cases')].filter(e => e.checkVisibility()).length"
    assert browser.run(shown) == 1
    browser.driver.execute_cdp_cmd("Page.printToPDF", {})
    assert browser.run(shown) == 2
    heads = browser.run("return [...document.querySelectorAll('details summary')].map(each => each.textContent)")
    assert heads == list(runs)
    assert browser.errors() == []


def evaluate(run, metrics: str) -> None:
    """As `mvl_evaluate -p foldN/validation --metrics METRICS` does for each fold."""
    labels = run.parents[2] / "raw" / "Task007_Tiny" / "labelsTr"
    for fold in run.glob("fold*"):
        api.evaluate(labels, fold / "validation", metrics=metrics, only_common=True)


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
