"""The page as a file: complete in itself, tolerant, hostile names harmless; several runs with mvl_compare's figures."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from builders import write_array
from commands import mvl, succeed
from reported import HOSTILE

from mvl_auto import api
from mvl_auto.errors import MvlError
from mvl_auto.evaluation.compare import compare_models
from mvl_auto.evaluation.comparison_files import cells
from mvl_auto.evaluation.scored import read_models
from mvl_auto.report import machine, write_report
from mvl_auto.report.machine import describe_environment, write_environment


class Page(HTMLParser):
    """Tags with their attributes, the text of scripts, and all other text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.scripts, self.text = [], [], []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif data.strip():
            self.text.append(data.strip())

    def attributes(self, *names):
        return [attrs[name] for _, attrs in self.tags for name in names if name in attrs]


def test_the_page_needs_nothing_from_elsewhere(make_run):
    report = write_report(make_run())
    page = Page(report.path)
    assert report.path.name == "report.html"
    assert report.size == report.path.stat().st_size
    assert all(link.startswith(("data:", "#")) for link in page.attributes("src", "href", "action", "data"))
    assert "default-src 'none'" in next(attrs["content"] for tag, attrs in page.tags if "http-equiv" in attrs)
    assert "url(http" not in report.path.read_text(encoding="utf-8").replace(" ", "")


def test_the_page_has_all_that_is_promised(make_run):
    page = Page(write_report(make_run()).path)
    text = "\n".join(page.text)
    for heading in (
        "Results",
        "Worst, median and best cases",
        "Every case",
        "Training",
        "The plan in words",
        "Warnings",
    ):
        assert heading in page.text
    assert "mvl_train 7 0 1 --steps 10" in text
    assert "the disk <b>is</b> nearly full" in text
    assert text.count("core is missing in the prediction") >= 2  # under its picture, and in the table
    summary_dice = [
        attrs["data-sort"] for tag, attrs in page.tags if tag == "td" and attrs.get("class") == "number bar"
    ]
    assert float(summary_dice[0]) == 0.0


def test_hostile_names_are_text_and_data(make_run):
    page = Page(write_report(make_run(names=HOSTILE)).path)
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 6 + 1  # a volume for each case, and the page's own
    assert not [attrs for tag, attrs in page.tags if "onerror" in attrs or tag == "img"]
    volume = json.loads(page.scripts[0])
    assert volume["labels"] == ["background", *HOSTILE]
    assert "<" not in page.scripts[0]
    assert HOSTILE[0] in page.text


def test_no_volumes_makes_a_small_page_with_the_same_pictures(make_run):
    run = make_run()
    whole, small = write_report(run), write_report(run, run.parent / "small.html", volumes=False)
    assert small.size < whole.size
    for path, count in ((whole.path, 6), (small.path, 0)):
        page = Page(path)
        assert sum("volume" in attrs.get("class", "").split() for tag, attrs in page.tags if tag == "script") == count
        assert sum(attrs.get("class") == "picture" for _, attrs in page.tags) == 6
    assert "This page has no volumes to scroll through." in Page(small.path).text


def test_cases_beyond_the_budget_have_no_volume_and_the_page_says_so(make_run, monkeypatch):
    run = make_run()
    one = max(len(text) for text in Page(write_report(run).path).scripts[:6])
    monkeypatch.setattr("mvl_auto.report.write.PAGE_BYTES", 3 * one)
    page = Page(write_report(run).path)
    volumes = [json.loads(text) for text in page.scripts[:-1]]
    assert 3 <= len(volumes) < 6
    assert sum(len(volume["data"]) for volume in volumes) <= 3 * one
    assert any(f"the volumes of {len(volumes)} of 6 cases" in text for text in page.text)


@pytest.mark.slow
def test_forty_cases_stay_below_30_mb_each_with_its_volume(root, make_run):
    run = make_run(cases=40)
    raw, rng = root / "raw" / "Task007_Tiny", np.random.default_rng(0)
    noise = rng.integers(-1000, 1000, (17, 128, 128)).astype(np.int16)  # nothing packs worse
    labels = rng.integers(0, 3, (2, 17, 128, 128)).astype(np.uint8)
    for array, files in (
        (noise, (raw / "imagesTr").iterdir()),
        (labels[0], (raw / "labelsTr").iterdir()),
        (labels[1], run.glob("fold*/validation/*.nii.gz")),
    ):
        made = write_array(root / "made.nii.gz", array, (3.0, 0.8, 0.8))
        for file in list(files):
            file.unlink()
            file.hardlink_to(made)
        made.unlink()
    report = write_report(run)
    volumes = [json.loads(text) for text in Page(report.path).scripts[:-1]]
    assert len(volumes) == 40
    assert sum(len(volume["data"]) for volume in volumes) > 20e6  # near the most that a page takes
    assert report.size < 30e6


@pytest.mark.parametrize(
    "lost", ["plans.json", "fold0/summary.json", "fold0/state.json", "fold0/progress.csv", "fold0/validation", "raw"]
)
def test_a_damaged_run_has_a_report_that_says_what_is_missing(root, make_run, lost):
    run = make_run()
    place = root / "raw" if lost == "raw" else run / lost
    place.rename(place.with_name("moved"))
    report = write_report(run, volumes=False)
    assert report.problems
    page = Page(report.path)
    assert "What is missing" in page.text
    assert set(report.problems) <= set(page.text)


def test_a_run_without_anything_but_a_plan_has_a_report(make_run):
    run = make_run()
    for fold in ("fold0", "fold1"):
        (run / fold).rename(run.parent / fold)
    report = write_report(run)
    assert "No fold was trained yet." in report.problems
    assert "There are no scores yet: they are written when the validation of a fold is done." in Page(report.path).text


def test_several_runs_have_the_figures_of_mvl_compare(make_run, tmp_path):
    runs = {"first": make_run("a"), "sec<b>ond": make_run("b", shift=1)}
    page = Page(write_report(runs, tmp_path / "both.html").path)
    models = read_models([f"first={runs['first']}", f"sec<b>ond={runs['sec<b>ond']}"])
    for row in compare_models(models).rows:
        assert set(cells(row)) <= set(page.text)
    assert "sec<b>ond" in page.text


def test_runs_that_do_not_fit_stand_side_by_side_without_statistics(make_run, tmp_path):
    first, second = make_run("a"), make_run("b")
    (second / "fold1" / "summary.json").unlink()
    report = write_report({"a": first, "b": second}, tmp_path / "both.html")
    assert any("cannot be compared" in problem for problem in report.problems)
    assert "Every case" in Page(report.path).text


def test_several_runs_need_a_file(make_run):
    with pytest.raises(MvlError, match="needs a file"):
        write_report({"a": make_run("a"), "b": make_run("b")})


def test_the_machine_of_the_training_is_told_apart_from_that_of_the_report(make_run):
    run = make_run()
    assert "This report was written on" in Page(write_report(run).path).text
    write_environment(run / "fold0")
    assert "Trained on" in Page(write_report(run).path).text


def test_the_machine_is_described(tmp_path):
    found = describe_environment()
    assert found.cores >= 1
    assert found.packages["numpy"]
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H100\nIRQ: 5\n")
    assert machine._gpus(tmp_path) == ("NVIDIA H100",)


def test_the_command_finds_runs_by_words(root, make_run):
    make_run("a")
    assert "a/report.html" in succeed("report", "-d", 7, root=root)
    make_run("b")
    done = mvl("report", "-d", 7, root=root)
    assert done.returncode == 2
    assert "-d 7 -n a, -d 7 -n b" in done.stderr
    assert "both.html" in succeed("report", "-d", 7, "-n", "a", "b", "-o", "both.html", "--no-volumes", root=root)
    assert (root / "both.html").is_file()


@pytest.mark.parametrize("words", [["nowhere"], ["a=nowhere"]])
def test_a_folder_that_is_not_there_is_one_line(root, words):
    with pytest.raises(MvlError, match="is not a folder"):
        api.report(words, root=root)


@pytest.mark.parametrize(
    ("logged", "shown"),
    [
        ("/venv/bin/mvl_train 7 0 --name x", "mvl_train 7 0 --name x"),
        ("'/my venv/bin/mvl_train' -d 'a folder/Dataset007' 'x;y'", "mvl_train -d 'a folder/Dataset007' 'x;y'"),
        ("/venv/bin/mvl_train 7 0 it's", "mvl_train 7 0 it's"),  # logs of older versions quoted nothing
    ],
)
def test_commands_are_shown_as_they_can_be_typed(logged, shown):
    from mvl_auto.report.write import _without_folder

    assert _without_folder(logged) == shown
