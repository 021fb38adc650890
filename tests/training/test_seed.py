"""What a run takes from its seed, and what it must not take from an earlier training of the same run."""

from __future__ import annotations

import importlib

import pytest
import torch

from mvl_auto.errors import MvlError
from mvl_auto.training import TrainingOptions, train


def run(prepared, name, steps, seed=0):
    return train(
        prepared.folder,
        "0",
        TrainingOptions(run=name, steps=steps, seed=seed, workers=0),
        results_folder=prepared.root / "results" / "Dataset007_Tiny",
        blocks_folder=prepared.blocks,
    )


@pytest.fixture
def begin(prepared, monkeypatch):
    """A function: seed -> the weights that a run begins with, and its first batch."""

    def look(session, batches, *rest):
        weights = torch.cat([p.detach().flatten() for p in session.learner.network.parameters() if p.requires_grad])
        seen.append((weights, next(batches).image))

    seen = []
    monkeypatch.setattr(importlib.import_module("mvl_auto.training.task"), "optimise", look)

    def begun(seed, name):
        with pytest.raises(MvlError, match="before the first step"):  # as none was taken
            run(prepared, name, steps=1, seed=seed)
        return seen.pop()

    return begun


def test_the_seed_decides_about_the_first_weights_and_about_the_batches(begin):
    first, same, other = begin(3, "one"), begin(3, "two"), begin(4, "three")
    for what in (0, 1):
        assert torch.equal(first[what], same[what])
        assert not torch.equal(first[what], other[what])


def test_a_longer_training_is_validated_anew(prepared):
    folder = run(prepared, "longer", steps=1).folder / "validation"
    files = sorted(folder.iterdir())
    assert files
    for file in files:
        file.write_bytes(b"stale")
    run(prepared, "longer", steps=2)
    assert sorted(folder.iterdir()) == files
    assert all(file.read_bytes() != b"stale" for file in files)
