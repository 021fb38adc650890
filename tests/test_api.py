"""The Python API: its surface, folds by any of their names, and planning that trusts what has not changed."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from builders import make_dataset
from trained import make_configuration, make_plan

import mvl_auto
import mvl_auto.plans
from mvl_auto import api, planners
from mvl_auto.errors import MvlError
from mvl_auto.llm import ensure_block
from mvl_auto.locks import locked
from mvl_auto.plans import LlmSettings, write_document
from mvl_auto.runs.trained import load_block_of

BLOCK = "random:hidden=32,heads=4,kv_heads=2,ffn=64,seed=0"


def plan(root: Path, **changes) -> mvl_auto.plans.Plan:
    settings = {"llm": BLOCK, "memory": 10**9, "device": "cpu", "workers": 1, "plan_only": True} | changes
    return api.plan_and_preprocess(7, root=root, **settings)


@pytest.fixture
def dataset(root: Path) -> Path:
    return make_dataset(root / "raw", "nnunet", cases=5, shape=(10, 12, 11))


@pytest.fixture
def planned(root: Path, dataset: Path) -> Path:
    plan(root)
    return root / "preprocessed" / "Dataset007_Tiny"


def times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.json")}


def test_the_public_surface():
    assert sorted(mvl_auto.__all__) == [
        "AblationOptions", "MvlError", "Plan", "Predictor", "__version__", "ablate", "audit", "compare", "doctor",
        "evaluate", "explain", "plan_and_preprocess", "predict", "pretrain",
        "train",
    ]  # fmt: skip
    for name in mvl_auto.__all__:
        assert getattr(mvl_auto, name) is not None
    assert set(mvl_auto.__all__) <= set(dir(mvl_auto))
    assert mvl_auto.MvlError is MvlError
    with pytest.raises(AttributeError, match="segment"):
        mvl_auto.segment  # noqa: B018


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (["fold0"], ["0"]),
        ([2, "1", "fold1", "fold_2"], ["2", "1"]),
        (["all"], ["all"]),
        (0, ["0"]),
        ("fold0", ["0"]),
        ([0, "1"], ["0", "1"]),
        ("all", ["all"]),
        (["fold_all", "Fold3"], ["all", "3"]),
    ],
)
def test_folds_by_any_of_their_names(wanted, chosen):
    assert api.choose_folds(wanted, 5) == chosen


@pytest.mark.parametrize("wanted", ["5", "fold5", "-1", "fold", "0.5", "every", ""])
def test_a_fold_that_does_not_exist_lists_those_that_do(wanted):
    with pytest.raises(MvlError, match=r"0, 1, 2, 3, 4, all"):
        api.choose_folds(["0", wanted], 5)


def test_a_word_is_one_fold_and_never_its_letters():
    with pytest.raises(MvlError, match="no fold '12'"):
        api.choose_folds("12", 5)
    assert api.choose_folds("12", 13) == ["12"]


def test_a_word_is_one_configuration_and_never_its_letters(root, dataset):
    with pytest.raises(MvlError, match="no configuration '3d_nosuch'"):
        plan(root, configurations="3d_nosuch")
    assert "3d_fullres" in plan(root, configurations="3d_fullres").configurations


def test_memory_and_time_may_be_words(root, dataset):
    assert plan(root, memory="1GB").memory_budget == 10**9
    assert plan(root, seconds="1m30s").time_budget == 90
    with pytest.raises(MvlError, match=r"'8XB' is not an amount of memory\. Give 8GB, 500MB or 8GiB\."):
        plan(root, memory="8XB")


def test_from_python_errors_speak_of_arguments(root, dataset):
    with pytest.raises(MvlError, match=r"Run mvl_auto\.plan_and_preprocess\(dataset=7\) first\."):
        mvl_auto.train(7, root=root)
    plan(root)
    with pytest.raises(MvlError, match="no fold '9'"):
        mvl_auto.train(7, 9, root=root)


def test_from_python_there_is_progress_unless_it_is_switched_off(root, dataset, capsys):
    mvl_auto.doctor(7, root=root, workers=1)
    assert "100 %" in capsys.readouterr().err
    mvl_auto.doctor(7, root=root, workers=1, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_planned_folder_has_all_that_belongs_to_the_plan(planned):
    plan_json, fingerprint, splits, record = (
        json.loads((planned / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("plans", "fingerprint", "splits", "dataset")
    )
    assert [case["name"] for case in fingerprint["cases"]] == [f"tiny_{n:03d}" for n in range(5)]
    assert plan_json["fingerprint_hash"] == splits["fingerprint_hash"]
    assert sorted(name for fold in splits["folds"] for name in fold) == [f"tiny_{n:03d}" for n in range(5)]
    assert Path(record["folder"]).name == "Dataset007_Tiny"
    assert plan_json["memory_budget"] == 10**9
    assert plan_json["configurations"]["3d_fullres"]["network"]["llm"]["source"] == BLOCK


def test_planning_again_writes_the_same_bytes_and_reads_no_image_anew(root, planned, caplog):
    before = {file.name: file.read_bytes() for file in planned.glob("*.json")}
    with caplog.at_level(logging.INFO):
        plan(root)
    assert {file.name: file.read_bytes() for file in planned.glob("*.json")} == before
    assert "unchanged since its fingerprint was taken" in caplog.text
    assert "replaced" not in caplog.text


def test_a_changed_case_is_noticed_by_its_name(root, dataset, planned, caplog):
    shutil.copy(dataset / "imagesTr" / "tiny_000_0000.nii.gz", dataset / "imagesTr" / "tiny_003_0000.nii.gz")
    shutil.copy(dataset / "labelsTr" / "tiny_000.nii.gz", dataset / "labelsTr" / "tiny_003.nii.gz")
    with caplog.at_level(logging.INFO):
        plan(root)
    assert "tiny_003" in caplog.text
    content = json.loads((planned / "fingerprint.json").read_text(encoding="utf-8"))
    hashes = {case["name"]: case["image_hash"] for case in content["cases"]}
    assert hashes["tiny_003"] == hashes["tiny_000"]


def test_a_renamed_label_is_noticed(root, dataset, planned, caplog):
    text = (dataset / "dataset.json").read_text(encoding="utf-8")
    (dataset / "dataset.json").write_text(text.replace('"core"', '"nucleus"'))
    with caplog.at_level(logging.INFO):
        assert plan(root).labels.class_names == ("background", "nucleus", "shell")
    assert "dataset.json" in caplog.text


def test_splits_made_by_hand_stay_while_the_cases_are_the_same(root, dataset, planned):
    content = json.loads((planned / "splits.json").read_text(encoding="utf-8"))
    content["folds"] = content["folds"][::-1]
    (planned / "splits.json").write_text(json.dumps(content))
    plan(root)
    assert json.loads((planned / "splits.json").read_text(encoding="utf-8"))["folds"] == content["folds"]


def test_another_plan_replaces_the_old_one_and_says_so(root, planned, caplog):
    assert plan(root, llm="none").configuration().network.llm.source == "none"
    assert "replaced by another plan" in caplog.text


def test_strict_refuses_what_is_odd_by_the_name_of_its_file(root, dataset):
    for kind, file in [("imagesTr", "tiny_00{}_0000.nii.gz"), ("labelsTr", "tiny_00{}.nii.gz")]:
        shutil.copy(dataset / kind / file.format(0), dataset / kind / file.format(1))
    with pytest.raises(MvlError, match="tiny_001"):
        plan(root, strict=True)
    assert not (root / "preprocessed" / "Dataset007_Tiny" / "plans.json").exists()
    assert plan(root, strict=False)


@pytest.mark.parametrize("changes", [{"preset": "XXL"}, {"llm": "llama"}, {"configurations": ["3d_lowres"]}])
def test_words_that_mean_nothing_here_are_refused_before_a_plan_is_written(root, dataset, changes):
    with pytest.raises(MvlError):
        plan(root, **changes)
    assert not (root / "preprocessed" / "Dataset007_Tiny" / "plans.json").exists()


def test_with_a_cascade_its_first_stage_is_prepared():
    low = make_configuration(name="3d_lowres")
    plan = make_plan(make_configuration(), low, make_configuration(name="3d_cascade_fullres", previous_stage=low.name))
    assert plan.with_previous_stages(["3d_cascade_fullres"]) == ["3d_lowres", "3d_cascade_fullres"]
    assert plan.with_previous_stages(["3d_cascade_fullres", "3d_fullres", "3d_lowres"]) == [
        "3d_lowres", "3d_cascade_fullres", "3d_fullres",
    ]  # fmt: skip
    assert plan.with_previous_stages(["3d_fullres"]) == ["3d_fullres"]


def test_a_preset_plans_for_a_gpu_that_is_not_here(root, dataset):
    assert plan(root, preset="M", memory=None).memory_budget == 16 * 2**30


def test_two_budgets_of_memory_are_one_too_many(root, dataset):
    with pytest.raises(MvlError, match="both a preset"):
        plan(root, preset="M")


def test_with_a_time_the_device_is_asked_how_fast_it_is(root, dataset):
    chosen = plan(root, seconds=90.0)
    assert chosen.time_budget == 90
    assert "measured here" in chosen.configuration().reasons["iterations"]
    assert plan(root).time_budget is None


def test_numbers_by_hand_stand(root, dataset):
    chosen = plan(root, overrides=planners.Overrides(depth=1, steps=7)).configuration()
    assert (chosen.network.depth, chosen.steps) == (1, 7)
    with pytest.raises(MvlError, match="both say how long"):
        plan(root, seconds=90.0, overrides=planners.Overrides(steps=7))


@pytest.fixture
def wide_block(root):
    """A block of the bank that passes for a pretrained one, wider than the default."""
    folder = root / "blocks"
    card = ensure_block("random:hidden=640,heads=10,kv_heads=5,ffn=1792,seed=0", "last", folder)
    card = card.model_copy(update={"source": "hf:made/wide"}).seal()
    write_document(folder / f"{card.name}.json", card)
    return card


def test_auto_names_the_widest_block_of_the_bank_on_a_large_gpu_and_training_finds_it(root, dataset, wide_block):
    chosen = plan(root, llm="auto", preset="XL", memory=None).configuration()
    assert chosen.network.llm == LlmSettings(source="hf:made/wide", layer=0, hidden_size=640, tokens="pooled")
    assert load_block_of(chosen, None, root / "blocks").card == wide_block


def test_auto_means_the_smallest_block_on_a_cpu_and_training_takes_no_other(root, dataset, wide_block, monkeypatch):
    chosen = plan(root, llm="auto").configuration()
    assert chosen.network.llm == LlmSettings(source="auto", hidden_size=576, tokens="pooled")
    monkeypatch.setattr("mvl_auto.llm.auto.AUTO", ())  # no network
    with pytest.raises(MvlError, match=r"width 576 \(but hf:made/wide of width 640\)"):
        load_block_of(chosen, None, root / "blocks")


def test_a_block_that_was_asked_for_is_planned_at_its_width(root, dataset, wide_block):
    known = {
        "hf:made/wide": 640,
        "hf:HuggingFaceTB/SmolLM2-360M": 960,
        "hf:meta-llama/Llama-3.1-8B@main": 4096,
        BLOCK: 32,
    }
    for source, width in known.items():
        network = plan(root, llm=source, preset="XL", memory=None).configuration().network
        assert (network.llm.source, network.llm.hidden_size) == (source, width)


def test_two_processes_do_not_plan_in_one_folder(root, dataset, planned):
    with locked(planned, "preprocessing"), pytest.raises(MvlError, match="another process is preprocessing"):
        plan(root)


# ----------------------------------------------------------------------------------------- doctor


def test_a_place_that_is_none_is_refused_before_any_case_is_read(root, dataset):
    (dataset / "imagesTr" / "tiny_000_0000.nii.gz").write_bytes(b"damaged")
    with pytest.raises(MvlError, match="cannot be written there"):
        api.doctor(7, root=root, fix=dataset / "copy", output=root / "found.json")
    assert not (root / "found.json").exists()


def test_the_doctor_answers_with_what_it_found_and_did(root, dataset):
    found = api.doctor("Tiny", root=root)
    assert str(found) == str(found.diagnosis)
    assert found._repr_html_().startswith("<table>")
    diagnosis, repairs = found
    assert (diagnosis.usable_cases, diagnosis.findings, repairs) == (5, (), None)
    diagnosis, repairs = api.doctor(dataset, fix=root / "copy")
    assert (repairs.dataset, repairs.source, repairs.repairs) == (diagnosis.dataset, str(dataset), ())
    assert (root / "copy" / "dataset.json").read_bytes() == (dataset / "dataset.json").read_bytes()


@pytest.mark.parametrize("tokens", ["all", "pooled", "queries"])
def test_another_block_reads_the_tokens_that_the_planned_one_reads(tokens):
    found = api.training.block_of_run("hf:them/theirs", LlmSettings(source="auto", tokens=tokens))
    assert found == LlmSettings(source="hf:them/theirs", tokens=tokens)


def test_a_block_where_none_was_planned_reads_pooled_tokens():
    none = LlmSettings(source="none")
    assert api.training.block_of_run("auto", none) == LlmSettings(source="auto", tokens="pooled")
    assert api.training.block_of_run(None, none) is None
    with pytest.raises(MvlError):
        api.training.block_of_run("no such syntax", none)
