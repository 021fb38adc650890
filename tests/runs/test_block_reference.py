"""The block that a checkpoint names: the one with its weights and its geometry, and no other."""

from __future__ import annotations

import json

import pytest
import torch
from networks import RANDOM_BLOCK, tiny, tiny_llm
from safetensors.torch import load_file, save_file
from trained import make_configuration, make_plan

from mvl_auto.errors import MvlError
from mvl_auto.files import sha256_of_file
from mvl_auto.llm import BlockCard, load_block
from mvl_auto.llm.layers import LayerRange
from mvl_auto.network.optimizer import trainable
from mvl_auto.plans import read_document, write_document
from mvl_auto.runs import BlockReference, State, load_trained, network_of
from mvl_auto.runs.checkpoint import AVERAGED, PLAN, align_reference, save


@pytest.fixture(params=[1, 2])
def fold(request, tmp_path):
    """A trained fold with a block of one layer or two, in a bank beside it."""
    block = load_block(RANDOM_BLOCK, LayerRange("last", request.param), tmp_path / "blocks")
    llm = tiny_llm(source=RANDOM_BLOCK, hidden_size=32, layers=request.param)
    plan = make_plan(make_configuration(network=tiny(llm=llm)))
    network = network_of(plan, plan.configuration(), block)
    network.llm.gate.data.fill_(1.0)
    card = block.card
    reference = BlockReference(
        name=card.name,
        source=card.source,
        layer=card.layer,
        layers=card.layers,
        sha256=card.sha256,
        geometry_sha256=card.geometry_sha256,
    )
    state = State(
        dataset=plan.dataset, configuration="3d_fullres", fold="0", plan_hash=plan.hash, block=reference, seed=0,
        training_cases=(), validation_cases=(), budget_steps=10, budget_seconds=None, step=10, elapsed=1.0,
        finished=True,
    )  # fmt: skip
    write_document(tmp_path / "run" / PLAN, plan)
    tensors = {AVERAGED + name: weight for name, weight in trainable(network).items()}
    save(tmp_path / "run" / "fold0", state, tensors)
    return tmp_path / "run" / "fold0", state, tensors, tmp_path / "blocks" / f"{card.name}.json"


def edit_card(path):
    content = json.loads(path.read_text())
    content["geometry"]["rms_norm_eps"] = 0.5
    del content["content_sha256"]
    path.write_text(json.dumps(content))


@torch.inference_mode()
def test_an_edited_card_does_not_change_predictions(fold):
    folder, _, _, card = fold
    image = torch.randn(1, 1, 16, 16, 16)
    before = load_trained(folder, card.parent).network(image)
    assert torch.equal(load_trained(folder, card.parent).network(image), before)
    edit_card(card)
    with pytest.raises(MvlError, match="another geometry: its card was edited"):
        load_trained(folder, card.parent)
    card.unlink()
    assert torch.equal(load_trained(folder, card.parent).network(image), before), "fetched again"


@torch.inference_mode()
def test_a_changed_last_layer_is_refused(fold):
    folder, _, _, card_file = fold
    card, weights_file = read_document(card_file, BlockCard), card_file.with_suffix(".safetensors")
    image = torch.randn(1, 1, 16, 16, 16)
    before = load_trained(folder, card_file.parent).network(image)
    weights = load_file(weights_file)
    last = card.geometry.layer_names[-1]
    save_file(weights | {f"{last}.mlp.up_proj.weight": weights[f"{last}.mlp.up_proj.weight"] + 1}, weights_file)
    with pytest.raises(MvlError, match=r"safetensors: is damaged: its sha256 is not that of its card"):
        load_trained(folder, card_file.parent)
    other = card.model_copy(update={"sha256": sha256_of_file(weights_file)}).seal()
    write_document(card_file, other)  # another block, sound in itself
    with pytest.raises(MvlError, match=f"{other.sha256[:12]}..., not {card.sha256[:12]}... as in the checkpoint"):
        load_trained(folder, card_file.parent)
    card_file.unlink()
    assert torch.equal(load_trained(folder, card_file.parent).network(image), before), "fetched again"


@torch.inference_mode()
def test_a_checkpoint_of_an_earlier_version_names_no_geometry(fold):
    folder, state, tensors, card = fold
    earlier = state.model_copy(update={"block": state.block.model_copy(update={"geometry_sha256": None})})
    save(folder, earlier, tensors)
    content = json.loads((folder / "state.json").read_text())
    del content["block"]["geometry_sha256"]
    assert State.model_validate(content) == earlier
    assert load_trained(folder, card.parent).state == earlier
    assert align_reference(state.block, earlier.block) == earlier.block
    assert align_reference(state.block, state.block) == state.block
    assert align_reference(state.block, None) == state.block
    assert align_reference(None, state.block) is None
