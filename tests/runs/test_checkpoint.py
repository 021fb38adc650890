"""Weights through safetensors and back into another network, and the files that do not fit."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import RANDOM_BLOCK, tiny, tiny_llm

from mvl_auto.errors import MvlError
from mvl_auto.llm import load_block
from mvl_auto.network import build_network
from mvl_auto.network.optimizer import trainable
from mvl_auto.network.presets import preset
from mvl_auto.runs import State
from mvl_auto.runs.checkpoint import AVERAGED, CHECKPOINT, read_tensors, save
from mvl_auto.runs.trained import load_weights

STATE = State(
    dataset="Dataset007_Tiny",
    configuration="3d_fullres",
    fold="0",
    plan_hash="0" * 64,
    block=None,
    seed=0,
    training_cases=(),
    validation_cases=(),
    budget_steps=10,
    budget_seconds=None,
    step=10,
    elapsed=1.0,
    finished=True,
)
PLANNED = tiny(llm=tiny_llm())
KINDS = {
    "mvl": PLANNED,
    "mvl in 2D": tiny(2, llm=tiny_llm()),
    "LoRA": tiny(llm=tiny_llm(lora_rank=2)),
    "paper": preset("paper", PLANNED),
    "unet": preset("unet", PLANNED),
}


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    return load_block(RANDOM_BLOCK, "last", tmp_path_factory.mktemp("blocks"))


def fresh(settings, block, seed):
    # adapters are put into the block itself
    return build_network(settings, 1, 3, copy.deepcopy(block) if settings.llm.present else None, seed).eval()


def moved(network):
    """As training leaves it: no gate, no adapter and no scale at its start value, so that each shows in the logits."""
    generator = torch.Generator().manual_seed(2)
    for weight in trainable(network).values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return network


def written(folder, network):
    """The weights of a network as they come back from its checkpoint."""
    save(folder, STATE, {AVERAGED + name: weight for name, weight in trainable(network).items()})
    return read_tensors(folder / CHECKPOINT, (AVERAGED,))[AVERAGED]


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_network_of_another_seed_gives_the_same_logits_with_the_weights_from_the_file(kind, block, tmp_path):
    if kind == "LoRA":
        pytest.importorskip("peft", reason="LoRA needs the extra [lora]")
    settings = KINDS[kind]
    original, other = moved(fresh(settings, block, seed=0)), fresh(settings, block, seed=1)
    image = torch.randn(2, 1, *(17, 16, 9)[: settings.dimensions], generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(other(image), original(image), atol=1e-2)
    weights = written(tmp_path, original)
    load_weights(other, weights, tmp_path / CHECKPOINT)
    assert torch.equal(other(image), original(image))
    of_the_block = [name for name in weights if name.startswith("llm.block.")]
    assert all("lora_" in name for name in of_the_block), "the frozen block is not stored again"
    assert bool(of_the_block) == (kind == "LoRA")


def without(weights, name):
    return {key: weight for key, weight in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda weights: without(weights, "llm.gate"), "llm.gate"),
        (lambda weights: weights | {"llm.grate": torch.zeros(24)}, "llm.grate"),
        (lambda weights: weights | {"llm.map_in.weight": weights["llm.map_in.weight"].T}, "llm.map_in.weight"),
        (lambda weights: weights | {"llm.gate": torch.zeros(1)}, "llm.gate"),
    ],
    ids=["missing", "additional", "turned", "one for all channels"],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_nothing_is_copied(change, named, block, tmp_path):
    weights = change(written(tmp_path, moved(fresh(PLANNED, block, seed=0))))
    other = fresh(PLANNED, block, seed=1)
    before = {name: weight.clone() for name, weight in trainable(other).items()}
    with pytest.raises(MvlError, match=f"{CHECKPOINT}.*first at '{named}'"):
        load_weights(other, weights, tmp_path / CHECKPOINT)
    assert all(torch.equal(before[name], weight) for name, weight in trainable(other).items())
