"""Training a fold: it learns, it can be stopped and goes on bit for bit, and it refuses what does not belong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mvl_auto.errors import MvlError
from mvl_auto.files import sha256_of_file
from mvl_auto.runs import load_trained
from mvl_auto.runs.checkpoint import read_state, read_tensors
from mvl_auto.training import TrainingOptions, train


def run(prepared, name, steps=6, fold="0", **words):
    return train(
        prepared.folder,
        fold,
        TrainingOptions(run=name, steps=steps, workers=0, **words),
        results_folder=prepared.root / "results" / "Dataset007_Tiny",
        blocks_folder=prepared.blocks,
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
    return [line.split(",")[0:4:2] for line in lines]


class Interrupting:
    """Batches that raise Ctrl-C before the one of a step is made."""

    def __init__(self, monkeypatch, at: int) -> None:
        from mvl_auto.training import patches

        make = patches.Patches.batch
        monkeypatch.setattr(patches.Patches, "batch", lambda own, step: self.check(step) or make(own, step))
        self.at = at

    def check(self, step: int) -> None:
        if step == self.at:
            self.at = -1
            raise KeyboardInterrupt


def test_ended_at_any_moment_and_resumed_it_is_the_run_without_a_stop_bit_for_bit(prepared, monkeypatch):
    from mvl_auto.training import loop

    whole = run(prepared, "whole", steps=30)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    Interrupting(monkeypatch, at=25)  # after the checkpoints of the steps 10 and 20
    with pytest.raises(KeyboardInterrupt):
        run(prepared, "parts", steps=30)
    folder = whole.folder.parents[1] / "parts" / "fold0"
    assert read_state(folder).step == 20
    assert read_state(folder, "earlier.safetensors").step == 10
    parts = run(prepared, "parts", steps=30)
    assert losses(parts.folder) == losses(whole.folder)
    assert_same_checkpoints(parts.folder, whole.folder)
    assert not (folder / "earlier.safetensors").exists()


def assert_same_checkpoints(*folders):
    one, other = (load_file(folder / "checkpoint.safetensors") for folder in folders)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(prepared, monkeypatch, caplog):
    from mvl_auto.training import loop

    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    Interrupting(monkeypatch, at=25)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, "torn", steps=30)
    folder = prepared.root / "results" / "Dataset007_Tiny" / "torn" / "fold0"
    content = (folder / "checkpoint.safetensors").read_bytes()
    (folder / "checkpoint.safetensors").write_bytes(content[:5000])
    result = run(prepared, "torn", steps=30)
    assert result.steps == 30
    assert "is damaged" in caplog.text
    assert "step 10" in caplog.text
    assert [int(line[0]) for line in losses(folder)] == [10, 20, 30]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_first_and_the_same_command_resumes(prepared, number, code):
    name = f"stopped_{code}"
    folder = prepared.root / "results" / "Dataset007_Tiny" / name / "fold0"
    words = ["7", "fold0", "-n", name, "--steps", "100000", "--workers", "0", "--device", "cpu"]
    with started(prepared, words) as process:
        wait_for_steps(folder, process)
        process.send_signal(number)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == code, complaints
    last = complaints.splitlines()[-1]
    step = read_state(folder).step
    assert f"step {step} is saved" in last
    assert "mvl_train 7 fold0 -n" in last
    assert run(prepared, name, steps=step + 2).steps == step + 2


def test_a_second_signal_ends_it_at_once(prepared):
    folder = prepared.root / "results" / "Dataset007_Tiny" / "hasty" / "fold0"
    code = f"""
import os, signal
from pathlib import Path
from mvl_auto.training import TrainingOptions, loop, train
take_step = loop.take_step
def take_step_while_signals_arrive(session, batch, rate):
    if session.step == 12:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    return take_step(session, batch, rate)
loop.take_step = take_step_while_signals_arrive
train(Path({str(prepared.folder)!r}), "0", TrainingOptions(run="hasty", steps=100000, workers=0),
      results_folder=Path({str(folder.parents[1])!r}), blocks_folder=Path({str(prepared.blocks)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGTERM
    assert not (folder / "checkpoint.safetensors").exists()


@contextmanager
def started(prepared, words):
    """The command, at work; if it has not ended by itself, it is killed."""
    program = Path(sys.executable).with_name("mvl_train")
    environment = os.environ | {"MVL_ROOT": str(prepared.root)}
    with subprocess.Popen([program, *words], env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_steps(folder, process):
    while not (folder / "progress.csv").is_file():
        assert process.poll() is None
        time.sleep(0.05)


def test_a_second_process_on_the_same_fold_stops_and_a_killed_one_leaves_no_lock(prepared):
    folder = prepared.root / "results" / "Dataset007_Tiny" / "busy" / "fold0"
    code = f"""
from pathlib import Path
from mvl_auto.training import TrainingOptions, train
train(Path({str(prepared.folder)!r}), "0", TrainingOptions(run="busy", steps=100000, workers=0),
      results_folder=Path({str(folder.parent.parent)!r}), blocks_folder=Path({str(prepared.blocks)!r}))
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


def test_other_settings_for_a_run_that_is_there_are_refused(prepared, trained):
    with pytest.raises(MvlError, match=r"other settings \(seed 0\)"):
        run(prepared, "learned", steps=150, seed=1)
    with pytest.raises(MvlError, match=r"other settings \(learning_rate 0.003\)"):
        run(prepared, "learned", steps=150, learning_rate=1e-3)
    with pytest.raises(MvlError, match="another plan"):
        run(prepared, "learned", steps=150, batch_size=3)


def test_a_finished_run_goes_on_when_it_is_given_more(prepared):
    first = run(prepared, "extended", steps=10)
    before = read_tensors(first.folder / "resume.safetensors", ("optimizer.",))["optimizer."]
    assert {int(value) for name, value in before.items() if name.endswith(".step")} == {10}
    assert run(prepared, "extended", steps=None).steps == 10, "without a length it keeps the one it had"
    again = run(prepared, "extended", steps=16)
    assert again.steps == 16
    assert [int(line[0]) for line in losses(again.folder)] == [10, 16]
    after = read_tensors(again.folder / "resume.safetensors", ("optimizer.",))["optimizer."]
    assert {int(value) for name, value in after.items() if name.endswith(".step")} == {16}
    assert run(prepared, "extended", steps=None, seconds=again.seconds + 8).steps > 16


def test_a_run_has_its_own_batch_size_rate_and_network(prepared):
    result = run(prepared, "own", steps=2, batch_size=3, learning_rate=1e-4, network="unet")
    trained = load_trained(result.folder, prepared.blocks)
    assert trained.configuration.batch_size == 3
    assert trained.configuration.network.trunk == "convolution"
    assert trained.network.llm is None
    assert trained.state.learning_rate == 1e-4
    assert run(prepared, None, steps=1, network="vit").folder.parent.name == "3d_fullres_vit"
    with pytest.raises(MvlError, match=r"no network 'resnet'.*vit"):
        run(prepared, "none", network="resnet")


def test_a_new_run_begins_with_the_weights_of_another_and_a_resumed_one_does_not(prepared, trained, caplog):
    caplog.set_level("INFO")
    fresh = run(prepared, "from_nothing", steps=10)
    tuned = run(prepared, "from_learned", steps=10, start_from=trained.folder)
    assert "weights are taken" in caplog.text
    assert tuned.validation.mean() > fresh.validation.mean() + 0.2
    caplog.clear()
    run(prepared, "from_learned", steps=12, start_from=trained.folder)
    assert "weights are taken" not in caplog.text


def test_going_on_in_another_precision_is_said(prepared, monkeypatch, caplog):
    from mvl_auto.network import device
    from mvl_auto.training import loop

    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    Interrupting(monkeypatch, at=12)
    monkeypatch.setattr(device, "cpu_multiplies_bfloat16", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, "mixed", steps=20)
    monkeypatch.setattr(device, "cpu_multiplies_bfloat16", lambda: False)
    run(prepared, "mixed", steps=20)
    assert "computed in bfloat16, now it is float32" in caplog.text


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


def test_only_a_cascade_has_a_first_stage(prepared):
    with pytest.raises(MvlError, match="3d_fullres has no first stage"):
        run(prepared, "alone", previous="learned")


def test_a_missing_case_in_the_cache_is_named_with_what_to_do(prepared, tmp_path):
    import shutil

    copy = tmp_path / "preprocessed"
    shutil.copytree(prepared.folder, copy)
    (copy / "3d_fullres" / "tiny_002.json").unlink()
    with pytest.raises(MvlError, match=r"1 of 6 cases.*tiny_002.*mvl_plan_and_preprocess"):
        train(copy, "0", TrainingOptions(steps=1), results_folder=tmp_path / "results", blocks_folder=prepared.blocks)
    assert not (tmp_path / "results").exists()


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
