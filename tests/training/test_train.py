"""Training a fold: it learns, it can be stopped and goes on bit for bit, and it refuses what does not belong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from mvl_auto.errors import MvlError
from mvl_auto.files import sha256_of_file
from mvl_auto.runs import load_trained
from mvl_auto.runs.checkpoint import read_state
from mvl_auto.training import train
from mvl_auto.training.loop import check_finite


def run(prepared, name, steps=6, fold="0", **words):
    return train(
        prepared.folder,
        fold,
        results_folder=prepared.root / "results" / "Dataset007_Tiny",
        blocks_folder=prepared.blocks,
        run=name,
        steps=steps,
        workers=0,
        **words,
    )


@pytest.fixture(scope="module")
def trained(prepared):
    return run(prepared, "learned", steps=150)


def test_it_learns_what_an_untrained_network_cannot_know(prepared, trained):
    untrained = run(prepared, "untrained", steps=1)
    assert untrained.validation.mean() < 0.3
    assert trained.validation.mean() > 0.5
    assert trained.steps == 150


def test_the_fold_holds_what_the_contract_says(trained):
    names = {path.name for path in trained.folder.iterdir()}
    assert {"checkpoint.safetensors", "state.json", "progress.csv", "log.txt", "validation", "summary.json"} <= names
    state = json.loads((trained.folder / "state.json").read_text())
    assert state["finished"]
    assert state["step"] == 150
    assert not set(state["training_cases"]) & set(state["validation_cases"])
    predicted = {path.name.removesuffix(".nii.gz") for path in (trained.folder / "validation").iterdir()}
    assert predicted == set(state["validation_cases"])
    summary = json.loads((trained.folder / "summary.json").read_text())
    assert set(summary["cases"]) == predicted


def test_the_frozen_block_is_the_same_bytes_after_training_and_not_in_the_checkpoint(prepared, trained):
    (stored,) = prepared.blocks.glob("*.safetensors")
    state = read_state(trained.folder)
    assert sha256_of_file(stored) == state.block.sha256
    in_network = load_trained(trained.folder, prepared.blocks).network.llm.block.state_dict()
    for name, weight in load_file(stored).items():
        assert torch.equal(in_network[name], weight), name
    assert not any(".block." in key for key in load_file(trained.folder / "checkpoint.safetensors"))


def test_a_finished_fold_is_not_trained_again(prepared, trained):
    before = (trained.folder / "checkpoint.safetensors").stat().st_mtime_ns
    again = run(prepared, "learned", steps=150)
    assert (trained.folder / "checkpoint.safetensors").stat().st_mtime_ns == before
    assert again.validation.mean() == pytest.approx(trained.validation.mean())


def losses(folder):
    lines = (folder / "progress.csv").read_text().splitlines()[1:]
    return [line.split(",")[0::2] for line in lines]


def test_interrupted_and_started_again_it_is_the_uninterrupted_run_bit_for_bit(prepared, monkeypatch):
    from mvl_auto.training import loop

    whole = run(prepared, "whole", steps=30)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    calls = []

    def stop_after_two_saves(*args, **words):
        state = save(*args, **words)
        calls.append(state.step)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return state

    save = loop.save_run
    monkeypatch.setattr(loop, "save_run", stop_after_two_saves)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, "parts", steps=30)
    monkeypatch.setattr(loop, "save_run", save)
    parts = run(prepared, "parts", steps=30)
    assert calls == [10, 20]
    assert losses(parts.folder) == losses(whole.folder)
    one, other = (load_file(result.folder / "checkpoint.safetensors") for result in (whole, parts))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_second_process_on_the_same_fold_stops_and_a_killed_one_leaves_no_lock(prepared):
    folder = prepared.root / "results" / "Dataset007_Tiny" / "busy" / "fold0"
    code = f"""
from pathlib import Path
from mvl_auto.training import train
train(Path({str(prepared.folder)!r}), "0", results_folder=Path({str(folder.parent.parent)!r}),
      blocks_folder=Path({str(prepared.blocks)!r}), run="busy", steps=100000, workers=0)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not (folder / "progress.csv").is_file():
            assert process.poll() is None
            time.sleep(0.05)
        with pytest.raises(MvlError, match="another process is training"):
            run(prepared, "busy")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert run(prepared, "busy", steps=2).steps == 2


def test_other_words_on_an_unfinished_run_are_refused(prepared, trained):
    with pytest.raises(MvlError, match=r"other settings \(budget_steps 150\)"):
        run(prepared, "learned", steps=151)
    with pytest.raises(MvlError, match="seed"):
        run(prepared, "learned", steps=150, seed=1)


def test_a_budget_of_time_ends_the_optimisation_in_time(prepared):
    result = run(prepared, "timed", steps=None, seconds=3.0)
    assert result.steps > 0
    # it cannot end before; how long after depends on the machine
    assert result.seconds >= 3.0


def test_a_time_that_is_over_before_the_first_step_leaves_no_network(prepared):
    with pytest.raises(MvlError, match="over before the first step"):
        run(prepared, "hurried", steps=None, seconds=1e-6)
    assert not any((prepared.root / "results").rglob("hurried/fold0/checkpoint.safetensors"))


def test_a_fold_that_does_not_exist_lists_those_there_are(prepared):
    with pytest.raises(MvlError, match=r"no fold '7'.*0, 1, 2, 3, 4, all"):
        run(prepared, "nofold", fold="7")


def test_only_a_cascade_goes_on_from_another_run(prepared):
    with pytest.raises(MvlError, match="3d_fullres goes on from no other run"):
        run(prepared, "alone", previous="learned")


def test_a_missing_case_in_the_cache_is_named_with_what_to_do(prepared, tmp_path):
    import shutil

    copy = tmp_path / "preprocessed"
    shutil.copytree(prepared.folder, copy)
    (copy / "3d_fullres" / "tiny_002.json").unlink()
    with pytest.raises(MvlError, match=r"1 of 6 cases.*tiny_002.*mvl_plan_and_preprocess"):
        train(copy, "0", results_folder=tmp_path / "results", blocks_folder=prepared.blocks, steps=1)
    assert not (tmp_path / "results").exists()


def test_no_number_stops_with_step_and_cases():
    recent = [(41, torch.tensor(0.5), ["a"]), (42, torch.tensor(float("nan")), ["b", "c"])]
    with pytest.raises(FloatingPointError, match=r"nan at step 42 .*cases b, c"):
        check_finite(recent, 1e-3)
    assert check_finite(recent[:1], 1e-3) == 0.5


def test_a_damaged_checkpoint_is_one_line(prepared, trained, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(trained.folder.parent, copy)
    checkpoint = copy / "fold0" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(MvlError, match="is damaged"):
        load_trained(copy / "fold0", prepared.blocks)


def test_a_network_of_another_plan_is_refused(prepared, trained, tmp_path):
    import shutil

    from mvl_auto.plans import Plan, read_document, write_document

    copy = tmp_path / "run"
    shutil.copytree(trained.folder.parent, copy)
    plan = read_document(copy / "plans.json", Plan)
    write_document(copy / "plans.json", plan.model_copy(update={"memory_budget": 1}))
    with pytest.raises(MvlError, match="another plan"):
        load_trained(copy / "fold0", prepared.blocks)
