"""A block that is attached for the last part of a run: the plain ViT until then, resumable, and it stays."""

from __future__ import annotations

import pytest
import torch
from interrupted import stop_before
from networks import tiny_llm
from safetensors.torch import load_file

from mvl_auto.runs import load_trained
from mvl_auto.runs.checkpoint import AVERAGED, read_state, read_tensors
from mvl_auto.training import TrainingOptions, loop, train

LATE = tiny_llm(tokens="queries", queries=4, start=0.5, mapper_rate=10.0)


def run(prepared, name, steps, llm=LATE):
    return train(
        prepared.folder,
        "0",
        TrainingOptions(run=name, steps=steps, workers=0, llm=llm),
        results_folder=prepared.root / "results" / "Dataset007_Tiny",
        blocks_folder=prepared.blocks,
    )


def averaged(folder):
    return read_tensors(folder / "checkpoint.safetensors", (AVERAGED,))[AVERAGED]


@pytest.fixture(scope="module")
def whole(prepared):
    return run(prepared, "late", steps=20).folder


def test_until_its_step_the_run_is_that_of_the_plain_vit_and_then_the_gate_opens(prepared, whole, monkeypatch):
    assert read_state(whole).block_since == 10
    assert averaged(whole)["llm.gate"].abs().max() > 0
    stop_before(monkeypatch, 10)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, "late_half", steps=20)
    stop_before(monkeypatch, 10)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, "plain_half", steps=20, llm=tiny_llm(source="none"))
    results = whole.parents[1]
    late, plain = (averaged(results / name / "fold0") for name in ("late_half", "plain_half"))
    assert all(torch.equal(late[name], weight) for name, weight in plain.items())
    assert late["llm.gate"].abs().max() == 0
    assert read_state(results / "late_half" / "fold0").block_since is None


@pytest.mark.parametrize("step", [10, 20])
def test_stopped_before_or_after_that_step_and_resumed_it_is_the_same_run(prepared, whole, monkeypatch, step):
    """Checkpoints are of the steps 10 (before the block's first) and 20."""
    name = f"late_stopped_{step}"
    long_run = run(prepared, f"{name}_whole", steps=30)
    stop_before(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, name, steps=30)
    again = run(prepared, name, steps=30)
    one, other = (load_file(each.folder / "checkpoint.safetensors") for each in (again, long_run))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert read_state(again.folder).block_since == 15


def test_a_finished_run_that_is_made_longer_keeps_its_block(prepared, whole, monkeypatch):
    """Step 20 is a third of 60: without what it remembers the run would lose the block again."""
    seen = []
    take = loop.take_step
    monkeypatch.setattr(
        loop,
        "take_step",
        lambda session, *words: seen.append(session.learner.network.llm.attached) or take(session, *words),
    )
    longer = run(prepared, "late", steps=60)
    assert seen == [True] * 40
    assert read_state(longer.folder).block_since == 10


def test_a_block_that_is_taken_out_has_trained_the_network_and_is_not_in_it(prepared, monkeypatch):
    early = tiny_llm(tokens="queries", queries=4, end=0.5, mapper_rate=10.0)
    attached = []
    taken = loop.training_step

    def watched(learner, *args, **named):
        attached.append(getattr(learner.network.llm, "attached", None))
        return taken(learner, *args, **named)

    monkeypatch.setattr(loop, "training_step", watched)
    folder = run(prepared, "early", steps=4, llm=early).folder
    plain = run(prepared, "never", steps=4, llm=tiny_llm(source="none")).folder
    assert attached[:4] == [True, True, False, False]
    assert averaged(folder)["llm.gate"].abs().max() > 0
    assert not torch.equal(averaged(folder)["norm.weight"], averaged(plain)["norm.weight"])
    assert load_trained(folder, prepared.blocks).network.llm is None


@pytest.mark.parametrize("wrong", [{"end": 0.5, "residual": "none"}, {"start": 0.5, "end": 0.5}])
def test_a_block_must_be_attached_before_it_is_taken_out_and_leave_a_residual(wrong):
    with pytest.raises(ValueError, match="taken out"):
        tiny_llm(**wrong)
