"""What records say: comparisons by hand, no test of a single run, groups that are never mixed."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from mvl_auto.ablation.evidence import tables_of
from mvl_auto.ablation.record import Amount, Basis, Length, Machine, Rates, RunRecord, read_records
from mvl_auto.ablation.tables import (
    FEW,
    intervals,
    latex,
    look_cells,
    markdown,
    page_context,
    row_cells,
    write_evidence,
)
from mvl_auto.evaluation.statistics import compare_runs
from mvl_auto.plans import write_document

CASES = tuple(f"case_{number}" for number in range(6))


def record(arm: str, fold: int, seed: int, dice: list[float | None], **changes) -> RunRecord:
    basis = Basis(
        dataset="Dataset007_Tiny",
        configuration="3d_fullres",
        plan_hash="p" * 64,
        fingerprint_hash="f" * 64,
        splits_hash="s" * 64,
        length=Length(steps=100),
    )
    machine = Machine(
        processor="AMD EPYC",
        instruction_sets=("avx2",),
        device="cpu",
        threads=1,
        precision="float32",
        torch_version="2.13.0",
    )
    fields = {
        "name": f"{arm}-100-fold{fold}-seed{seed}",
        "basis": basis,
        "arm": arm,
        "amount": Amount(share=1.0),
        "fold": str(fold),
        "seed": seed,
        "rates": Rates(learning_rate=1e-3),
        "training_cases": ("a", "b"),
        "initial_hash": f"i{seed}",
        "batches_hash": f"b{seed}",
        "trainable_parameters": 10,
        "frozen_parameters": 0,
        "block": None,
        "steps": 100,
        "seconds": 20.0,
        "started": "2026-11-26T10:00:00+00:00",
        "machine": machine,
        "scores": {case: {"organ": value} for case, value in zip(CASES, dice, strict=False)},
        "command": f"mvl_ablate -d 7 --arms {arm}",
    }
    return RunRecord(**(fields | changes))


def study(effect: float = 0.02, runs: int = 3) -> list[RunRecord]:
    rng = np.random.default_rng(0)
    records = []
    for seed in range(runs):
        plain = 0.7 + 0.02 * rng.random(len(CASES))
        records.append(record("vit", 0, seed, list(plain)))
        records.append(
            record("pretrained", 0, seed, list(plain + effect + 0.002 * rng.random(len(CASES))), seconds=30.0)
        )
    return records


def test_the_difference_is_that_of_paired_runs_by_hand():
    records = study()
    (table,) = tables_of(records)
    (row,) = table.overall
    assert (row.first, row.second) == ("vit", "pretrained")
    by_arm = {arm: [r for r in records if r.arm == arm] for arm in ("vit", "pretrained")}
    differences = np.array(
        [
            [b.scores[case]["organ"] - a.scores[case]["organ"] for case in CASES]
            for a, b in zip(by_arm["vit"], by_arm["pretrained"], strict=True)
        ]
    )
    assert row.compared.difference == pytest.approx(differences.mean())
    assert row.compared == compare_runs(differences)
    assert row.compared.unit == "run"
    costs = {arm.name: arm.cost for arm in table.arms}
    assert costs == pytest.approx({"vit": 1.0, "pretrained": 1.5})


def test_one_run_gets_no_interval_and_no_p_value():
    (table,) = tables_of(study(runs=1))
    assert math.isnan(table.overall[0].compared.p_value)
    text = markdown([table])
    (line,) = [line for line in text.splitlines() if line.startswith("| pretrained | vit")]
    assert line.count("| - ") == 4
    assert FEW in text


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": Amount(share=0.1)},
        {"basis": study()[0].basis.model_copy(update={"plan_hash": "q" * 64})},
        {"basis": study()[0].basis.model_copy(update={"length": Length(steps=200)}), "steps": 200},
        {"machine": study()[0].machine.model_copy(update={"precision": "bfloat16"})},
    ],
)
def test_runs_of_other_conditions_are_a_table_of_their_own(changes):
    other = [each.model_copy(update=changes) for each in study(effect=-0.5)]
    tables = tables_of([*study(), *other])
    assert len(tables) == 2
    assert sorted(round(table.overall[0].compared.difference, 1) for table in tables) == [-0.5, 0.0]


def test_runs_that_were_cut_short_are_left_out_and_named():
    records = study()
    records[-1] = records[-1].model_copy(update={"steps": 60})
    (table,) = tables_of(records)
    assert table.overall[0].compared.runs == 2
    assert any("pretrained-100-fold0-seed2" in note for note in table.notes)


def test_a_check_is_compared_with_the_block_alone():
    records = [*study(), *(each.model_copy(update={"arm": "aa"}) for each in study() if each.arm == "pretrained")]
    (table,) = tables_of(records)
    assert [(row.first, row.second) for row in table.overall if row.second == "aa"] == [("pretrained", "aa")]
    (null,) = [row for row in table.overall if row.second == "aa"]
    assert null.compared.difference == 0


def test_what_a_label_has_nowhere_is_left_out():
    records = study()
    scores = {case: {"organ": None if case == CASES[0] else dice["organ"]} for case, dice in records[0].scores.items()}
    records[0] = records[0].model_copy(update={"scores": scores})
    (table,) = tables_of(records)
    assert records[0].mean_dice == pytest.approx(
        np.mean([s["organ"] for s in scores.values() if s["organ"] is not None])
    )
    assert math.isfinite(table.overall[0].compared.difference)


def test_files_have_every_comparison_and_escape_what_others_wrote(tmp_path):
    records = [each.model_copy(update={"command": "mvl_ablate -d '<script>alert(1)</script>'"}) for each in study()]
    files = {file.suffix: file for file in write_evidence(records, tmp_path)}
    assert set(files) == {".html", ".md", ".csv", ".tex"}
    page = files[".html"].read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "pretrained" in page
    (row,) = list(csv.DictReader(files[".csv"].open()))
    assert float(row["difference"]) == pytest.approx(tables_of(records)[0].overall[0].compared.difference)
    assert row["arm"] == "pretrained"
    assert r"\begin{tabular}" in files[".tex"].read_text()


def test_an_empty_study_is_a_page_too(tmp_path):
    files = write_evidence([], tmp_path)
    assert all(file.is_file() for file in files)


def test_records_come_back_as_they_were_written(tmp_path):
    records = study()
    for each in records:
        write_document(tmp_path / f"{each.name}.json", each)
    assert read_records(tmp_path) == sorted(records, key=lambda each: each.name)


def test_free_looks_are_averaged_over_the_runs_that_were_looked_at():
    looked = [
        record("vit", 0, 0, [0.8, 0.6]),
        record("pretrained", 0, 0, [0.8, 0.6], free_looks={"as it is": 0.7, "without block": 0.6}, gate=0.1),
        record("pretrained", 0, 1, [0.8, 0.6], free_looks={"as it is": 0.8, "without block": None}, gate=0.3),
    ]
    (table,) = tables_of(looked)
    assert look_cells(table) == [["pretrained", "2", "0.7500", "0.6000", "-", "-", "-", "-", "0.2000"]]
    assert "| without block |" in markdown([table])
    assert "without trunk" not in markdown(tables_of(looked[:1])).split("Free looks")[0]


def test_two_runs_are_enough_for_an_interval_in_table_and_picture():
    """The longest bar ends 48 % from the middle of the picture, and zero is in the middle."""
    (table,) = tables_of(study(runs=2))
    (cells,) = row_cells(table)
    assert "-" not in cells[4:]
    compared = table.overall[0].compared
    (bar,) = intervals(table)
    reach = max(abs(compared.low), abs(compared.high))
    assert bar["low"] == pytest.approx(50 + 48 * compared.low / reach)
    assert bar["middle"] == pytest.approx(50 + 48 * compared.difference / reach)
    assert bar["width"] == pytest.approx(48 * (compared.high - compared.low) / reach)


def test_one_run_is_no_bar_of_the_picture():
    (table,) = tables_of(study(runs=1))
    assert intervals(table) == []


def test_what_was_looked_at_is_a_table_of_the_latex_file_too():
    plain = study()
    looked = [each.model_copy(update={"free_looks": {"without_block": 0.5}}) for each in plain]
    tables = [latex(tables_of(records)).count(r"\begin{tabular}") for records in (plain, looked)]
    assert tables == [2, 3]


def test_the_longest_bar_of_the_picture_is_that_of_the_widest_interval_and_none_is_longer():
    other = [
        each.model_copy(
            update={
                "arm": "random",
                "name": f"random-{each.name}",
                "scores": {case: {"organ": of["organ"] ** (1.0 + each.seed)} for case, of in each.scores.items()},
            }
        )
        for each in study()
        if each.arm == "pretrained"
    ]
    (table,) = tables_of([*study(), *other])
    bars = intervals(table)
    assert {bar["arm"] for bar in bars} == {"pretrained", "random"}
    reach = [max(abs(bar["low"] - 50), abs(bar["low"] + bar["width"] - 50)) for bar in bars]
    assert max(reach) == pytest.approx(48)
    assert min(reach) < 40


def test_the_page_is_named_after_its_datasets_in_order():
    names = [f"Dataset{number:03}_Tiny" for number in range(8)]
    records = [record("vit", 0, 0, [0.8] * 6) for _ in names]
    records = [
        each.model_copy(update={"basis": each.basis.model_copy(update={"dataset": name})})
        for each, name in zip(records, reversed(names), strict=True)
    ]
    assert page_context(tables_of(records), records)["title"] == ", ".join(names)
