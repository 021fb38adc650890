"""Models compared: what is paired with what, which unit counts, the files, and each way it can be refused."""

from __future__ import annotations

import csv
import itertools
import json
import unicodedata
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mvl_auto.errors import MvlError
from mvl_auto.evaluation import LabelScore, Scoring, summarise, write_scores
from mvl_auto.evaluation.compare import ALL_LABELS, compare_models
from mvl_auto.evaluation.comparison_files import as_json, draw, escape_latex, latex, markdown, write_comparison
from mvl_auto.evaluation.scored import read_models
from mvl_auto.evaluation.statistics import holm, wilcoxon

CASES = ("a", "b", "c", "d", "e", "f")
FIRST = {"liver": (0.5, 0.6, 0.7, 0.8, 0.9, 0.4), "tumour": (0.1, 0.2, 0.3, 0.1, 0.2, 0.3)}
STEPS = {"liver": (0.01, 0.02, 0.03, 0.04, 0.05, 0.06), "tumour": (-0.01, 0.04, 0.0, 0.03, -0.02, 0.05)}


def write(folder, values, metric: str = "dice", cases=CASES, stem: str = "scores", **settings):
    """values: label -> one per case; NaN is undefined."""
    scores = {
        case: [LabelScore(label, {metric: of_label[number]}, 1, 1) for label, of_label in values.items()]
        for number, case in enumerate(cases)
    }
    write_scores(summarise(scores, Scoring((metric,), **settings)), folder, stem=stem)
    return folder


def moved(values, factor: float = 1.0):
    return {
        label: [value + factor * step for value, step in zip(values[label], STEPS[label], strict=True)]
        for label in values
    }


@pytest.fixture
def two(tmp_path):
    return write(tmp_path / "vit", FIRST), write(tmp_path / "llm", moved(FIRST))


def rows_of(comparison, metric: str = "dice"):
    return {row.label: row for row in comparison.rows if row.metric == metric}


def test_two_models_case_by_case(two):
    comparison = compare_models(read_models(two))
    rows = rows_of(comparison)
    assert (comparison.unit, comparison.metrics) == ("case", ("dice",))
    assert "seed" in comparison.reason
    assert list(rows) == ["liver", "tumour", ALL_LABELS]
    liver = rows["liver"]
    assert (liver.first, liver.second) == ("vit", "llm")
    assert liver.first_mean == pytest.approx(0.65)
    assert liver.second_mean == pytest.approx(0.685)
    assert liver.compared.difference == pytest.approx(0.035)
    assert (liver.wins, liver.losses) == (6, 0)
    assert liver.compared.p_value == pytest.approx(2 / 2**6)
    assert (rows["tumour"].wins, rows["tumour"].losses, rows["tumour"].compared.equal) == (3, 2, 1)


def test_all_labels_is_the_mean_over_the_labels_of_each_case(two):
    comparison = compare_models(read_models(two))
    expected = {case: (STEPS["liver"][n] + STEPS["tumour"][n]) / 2 for n, case in enumerate(CASES)}
    assert comparison.differences["dice", "vit", "llm", ALL_LABELS] == pytest.approx(expected)


def test_an_undefined_score_leaves_the_case_out_for_this_label(tmp_path):
    broken = moved(FIRST) | {"tumour": [float("nan"), *moved(FIRST)["tumour"][1:]]}
    comparison = compare_models(read_models([write(tmp_path / "vit", FIRST), write(tmp_path / "llm", broken)]))
    rows = rows_of(comparison)
    assert (rows["liver"].compared.cases, rows["tumour"].compared.cases) == (6, 5)
    assert rows["tumour"].first_mean == pytest.approx(np.mean(FIRST["tumour"][1:])), "of the cases that both have"
    assert comparison.differences["dice", "vit", "llm", ALL_LABELS]["a"] == pytest.approx(STEPS["liver"][0])


def test_holm_over_labels_and_pairs(tmp_path):
    paths = [write(tmp_path / name, moved(FIRST, factor)) for name, factor in (("a", 0), ("b", 1), ("c", -2))]
    comparison = compare_models(read_models(paths))
    assert comparison.pairs == [("a", "b"), ("a", "c"), ("b", "c")]
    single = [row for row in comparison.rows if row.label != ALL_LABELS]
    assert [row.p_corrected for row in single] == pytest.approx(holm([row.compared.p_value for row in single]))
    overall = [row for row in comparison.rows if row.label == ALL_LABELS]
    assert [row.p_corrected for row in overall] == pytest.approx(holm([row.compared.p_value for row in overall]))


def test_a_smaller_distance_wins_and_a_signed_error_counts_by_its_size(tmp_path):
    near, far = {"liver": [1.0, 2.0, 3.0]}, {"liver": [4.0, 5.0, 2.0]}
    paths = [write(tmp_path / name, values, "hd95_mm", "xyz") for name, values in (("near", near), ("far", far))]
    row = rows_of(compare_models(read_models(paths)), "hd95_mm")["liver"]
    assert (row.wins, row.losses) == (1, 2)
    less, more = {"liver": [-1.0, 1.0, 0.5]}, {"liver": [-3.0, -2.0, 4.0]}
    paths = [write(tmp_path / n, v, "volume_error_ml", "xyz") for n, v in (("less", less), ("more", more))]
    row = rows_of(compare_models(read_models(paths)), "volume_error_ml")["liver"]
    assert (row.wins, row.losses, row.compared.difference) == (0, 3, pytest.approx(6.5 / 3))


def run_folder(root, name: str, level: float, folds: int = 2):
    """A training run: two folds of three cases each, every Dice `level` above FIRST."""
    for fold in range(folds):
        some = slice(3 * fold, 3 * fold + 3)
        values = {label: [value + level * (1 + 0.1 * fold) for value in FIRST[label][some]] for label in FIRST}
        write(root / name / f"fold{fold}", values, cases=CASES[some], stem="summary")
    return root / name


def test_folds_are_runs_and_each_is_paired_with_its_own(tmp_path):
    vit, llm = run_folder(tmp_path, "vit", 0.0), run_folder(tmp_path, "llm", 0.01)
    comparison = compare_models(read_models([vit, llm]))
    liver = rows_of(comparison)["liver"]
    assert (comparison.unit, liver.compared.runs, liver.compared.cases) == ("run", 2, 6)
    assert liver.compared.difference == pytest.approx(0.0105)
    assert "2 runs" in comparison.reason
    assert set(comparison.differences["dice", "vit", "llm", "liver"]) == set(CASES)


def test_seeds_are_runs_of_one_model(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(6):
        level = rng.normal(0, 0.02)
        noisy = {label: [value + level + rng.normal(0, 0.002) for value in FIRST[label]] for label in FIRST}
        paths.append(str(write(tmp_path / f"seed{number}", noisy)))
    models = read_models([f"first={','.join(paths[:3])}", f"second={','.join(paths[3:])}"])
    liver = rows_of(compare_models(models))["liver"]
    assert (liver.compared.unit, liver.compared.runs, liver.first) == ("run", 3, "first")
    assert liver.compared.p_value > 0.05, "seeds of one network"
    single = rows_of(compare_models(read_models([paths[0], paths[1]])))["liver"]
    assert single.compared.p_value == pytest.approx(2 / 2**6), "over the cases of two runs they differ clearly"


def test_a_path_with_signs_of_the_syntax_is_a_path(tmp_path):
    strange, plain = write(tmp_path / "a=b,c", FIRST), write(tmp_path / "plain", FIRST)
    assert [model.name for model in read_models([str(strange), f"x={plain}"])] == ["a=b,c", "x"]


def test_folders_of_one_name_are_told_apart_by_the_folder_above(tmp_path):
    paths = [write(tmp_path / name / "preds", FIRST) for name in ("vit", "llm")]
    assert [model.name for model in read_models(paths)] == ["vit/preds", "llm/preds"]
    paths = [write(tmp_path / name / "fold0" / "validation", FIRST) for name in ("vit", "llm")]
    assert [model.name for model in read_models(paths)] == ["vit/fold0/validation", "llm/fold0/validation"]
    with pytest.raises(MvlError, match="two models are called"):
        read_models([paths[0], paths[0]])


# ------------------------------------------------------------------------------------ refusals


def refusal(models, *args, **settings) -> str:
    with pytest.raises(MvlError) as caught:
        compare_models(read_models(models), *args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_model_is_no_comparison(two):
    assert "two models" in refusal(two[:1])


def test_other_cases_are_named(two, tmp_path):
    other = write(tmp_path / "other", {label: values[:5] for label, values in FIRST.items()}, cases=CASES[:5])
    message = refusal([two[0], other])
    assert str(other) in message
    assert "lacks 1 case" in message
    assert message.count(": f") == 1
    assert (
        len(compare_models(read_models([two[0], other]), only_common=True).differences["dice", "vit", "other", "liver"])
        == 5
    )
    strangers = write(tmp_path / "strangers", FIRST, cases="uvwxyz")
    assert "no case in common" in refusal([two[0], strangers], only_common=True)


def test_folds_of_other_numbers(tmp_path):
    vit, llm = run_folder(tmp_path, "vit", 0.0), run_folder(tmp_path, "llm", 0.01, folds=1)
    message = refusal([vit, llm])
    assert "fold0, fold1" in message
    assert "same folds" in message
    assert "lacks 3 cases" in refusal([vit / "fold0", vit / "fold1"])


def test_labels_that_only_one_side_has(two, tmp_path):
    other = write(tmp_path / "other", {"liver": FIRST["liver"]})
    assert "label that" in refusal([two[0], other])
    assert list(rows_of(compare_models(read_models([two[0], other]), only_common=True))) == ["liver"]


@pytest.mark.parametrize("what", ["case", "label"])
def test_two_unicode_forms_of_a_name_are_one_name(tmp_path, what):
    paths = []
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "Öd\u00e9m")
        values, cases = ({name: FIRST["liver"]}, CASES) if what == "label" else (FIRST, [name, *CASES[1:]])
        paths.append(write(tmp_path / form, values, cases=cases))
    for row in compare_models(read_models(paths)).rows:
        assert row.compared.cases == len(CASES)
        assert row.first_mean == row.second_mean


def test_names_that_differ_in_upper_and_lower_case_are_told(two, tmp_path):
    other = write(tmp_path / "other", FIRST, cases="abcdeF")
    for settings in ({}, {"only_common": True}):
        message = refusal([two[0], other], **settings)
        assert "case 'F' differs from 'f'" in message
        assert str(two[0] / "scores.json") in message
        assert str(other / "scores.json") in message
    other = write(tmp_path / "labels", {"Liver": FIRST["liver"], "tumour": FIRST["tumour"]})
    assert "label 'Liver' differs from 'liver'" in refusal([two[0], other], only_common=True)


def test_one_case_has_a_difference_and_no_interval(tmp_path):
    paths = [write(tmp_path / name, {"liver": (dice,)}, cases="a") for name, dice in (("vit", 0.5), ("llm", 0.75))]
    (row,) = compare_models(read_models(paths)).rows
    assert row.compared.difference == pytest.approx(0.25)
    assert np.isnan([row.compared.low, row.compared.high]).all()
    assert row.compared.p_value == 1


def test_a_metric_that_was_not_computed(two):
    assert "has no nsd" in refusal(two, "nsd")
    assert "unknown metric" in refusal(two, "dize")


def test_nsd_of_two_tolerances_and_hd95_of_two_versions(tmp_path):
    paths = [write(tmp_path / f"{mm}", FIRST, "nsd", tolerance_mm=mm) for mm in (1.0, 2.0)]
    assert "tolerance" in refusal(paths)
    paths = [write(tmp_path / name, FIRST, "hd95_mm") for name in ("old", "new")]
    content = json.loads((paths[0] / "scores.json").read_text())
    (paths[0] / "scores.json").write_text(json.dumps(content | {"schema_version": 1}))
    assert "another version" in refusal(paths)


def test_damaged_missing_and_newer_files(two, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no scores.json" in refusal([two[0], tmp_path / "empty"])
    assert "is missing" in refusal([two[0], tmp_path / "nowhere"])
    file = two[1] / "scores.json"
    content = json.loads(file.read_text())
    for damage, told in (
        ([], "no scores of cases"),
        (content | {"cases": {}}, "no scores of cases"),
        (content | {"cases": {"a": {"liver": {"dice": "high"}}}}, "damaged"),
        (content | {"cases": {"a": [1]}}, "damaged"),
        (content | {"schema_version": 99}, "format 99"),
    ):
        file.write_text(json.dumps(damage))
        message = refusal(two)
        assert told in message
        assert str(file) in message
    file.write_text('{"cases": ')
    assert "not valid JSON" in refusal(two)


# ------------------------------------------------------------------------------------ the files

STRANGE = 'tu|m<b>o</b>ur_1 & "50 %"\n</script> \\ $x$ ~^#{}'


@pytest.fixture
def strange(tmp_path):
    """Names that would break a table, a page or a plot."""
    values = {STRANGE: FIRST["liver"], "liver": FIRST["tumour"]}
    other = {STRANGE: moved(FIRST)["liver"], "liver": FIRST["tumour"]}
    return compare_models(read_models([write(tmp_path / "v_i%t", values), write(tmp_path / "<llm>", other)]))


def test_all_files_are_written_and_agree(two, tmp_path):
    comparison = compare_models(read_models(two))
    files = write_comparison(comparison, tmp_path / "out")
    assert sorted(path.name for path in files) == sorted(path.name for path in (tmp_path / "out").iterdir())
    with open(tmp_path / "out" / "comparison.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert (
        [row["label"] for row in rows] == [row["label"] for row in content["rows"]] == ["liver", "tumour", ALL_LABELS]
    )
    assert float(rows[0]["difference"]) == content["rows"][0]["difference"] == pytest.approx(0.035)
    assert content["differences"][1]["cases"] == pytest.approx(dict(zip(CASES, STEPS["tumour"], strict=True)))
    assert "+0.0350" in (tmp_path / "out" / "comparison.md").read_text()
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_names_do_not_break_markdown(strange):
    lines = markdown(strange).splitlines()
    table = [line for line in lines if line.startswith("|")]
    cells = {line.replace("\\|", "").count("|") for line in table}
    assert len(table) == 2 + 3
    assert len(cells) == 1, "the same number of cells in each row"
    assert "<b>" not in "".join(lines)
    assert "</script>" not in "".join(lines)


def test_names_do_not_break_latex(strange):
    lines = latex(strange).splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 1 + 3
    assert {row.replace(r"\&", "").count("&") for row in rows} == {11}
    assert escape_latex("a_b & 5 %") == r"a\_b \& 5 \%"
    assert escape_latex("\\") == r"\textbackslash{}"


def test_negative_figures_in_latex_have_a_minus_and_names_their_hyphen(tmp_path):
    paths = [write(tmp_path / name, {"-1": values}) for name, values in (("a-2", (0.9,) * 6), ("b", (0.5,) * 6))]
    (row,) = [line for line in latex(compare_models(read_models(paths))).splitlines() if line.startswith("dice")]
    assert row.startswith("dice & a-2, b & -1 & 6 & 0.9000, 0.5000 & $-$0.4000 & $-$0.4000 to $-$0.4000 &")


def test_the_plot_has_the_names_as_text_and_is_whole_svg(strange, tmp_path):
    *_, svg = write_comparison(strange, tmp_path / "out")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert as_json(strange)["rows"][0]["label"] == STRANGE


def test_titles_of_long_names_do_not_reach_into_each_other_and_cases_are_whole_numbers(tmp_path):
    paths = [write(tmp_path / f"{'long' * 20}{name}" / "preds", FIRST) for name in ("vit", "llm")]
    figure = draw(compare_models(read_models(paths)))
    figure.draw_without_rendering()
    boxes = [axis.title.get_window_extent() for axis in figure.axes]
    assert not [pair for pair in itertools.pairwise(boxes) if pair[0].x1 > pair[1].x0]
    assert boxes[0].x0 >= 0
    assert boxes[-1].x1 <= figure.bbox.x1
    for axis in figure.axes:
        assert all(tick == round(tick) for tick in axis.get_xticks())


def test_the_command(two, tmp_path, capsys):
    from mvl_auto.cli.compare import main

    assert main([*map(str, two), "-o", str(tmp_path / "out"), "-q"]) == 0
    printed = capsys.readouterr().out
    assert "dice: llm minus vit" in printed
    assert "The unit is the case" in printed
    assert max(map(len, printed.splitlines()[:12])) <= 80
    assert (tmp_path / "out" / "comparison.tex").is_file()


def test_the_command_refuses_in_one_line_and_writes_nothing(two, tmp_path, capsys):
    from mvl_auto.cli.compare import main

    assert main([str(two[0]), str(tmp_path / "nowhere"), "-o", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_wilcoxon_of_the_rows_is_that_of_the_differences(two):
    comparison = compare_models(read_models(two))
    for row in comparison.rows:
        values = list(comparison.differences[row.metric, row.first, row.second, row.label].values())
        assert row.compared.p_value == pytest.approx(wilcoxon(values))


def test_files_of_the_same_comparison_are_the_same_bytes(two, tmp_path):
    comparison = compare_models(read_models(two))
    first, second = (write_comparison(comparison, tmp_path / name) for name in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
