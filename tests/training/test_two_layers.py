"""A frozen block of two layers in a run: it resumes, it predicts, and it is that block and no other."""

from __future__ import annotations

import pytest
import torch
from interrupted import stop_before
from networks import tiny_llm
from safetensors.torch import load_file, save_file

from mvl_auto.errors import MvlError
from mvl_auto.files import sha256_of_file
from mvl_auto.llm import list_blocks
from mvl_auto.plans import write_document
from mvl_auto.runs import load_trained
from mvl_auto.runs.checkpoint import read_state
from mvl_auto.training import TrainingOptions, train


def run(prepared, blocks, name):
    return train(
        prepared.folder,
        "0",
        TrainingOptions(run=name, steps=20, workers=0, llm=tiny_llm(layers=2)),
        results_folder=blocks.parent / "results",
        blocks_folder=blocks,
    )


def test_a_run_resumes_with_its_two_layers_and_no_others_and_predicts(prepared, tmp_path, monkeypatch):
    blocks = tmp_path / "blocks"
    whole = run(prepared, blocks, "whole")
    (card,) = list_blocks(blocks)
    state = read_state(whole.folder)
    assert (state.block.sha256, state.block.layer, state.block.layers) == (card.sha256, 1, 2)
    stop_before(monkeypatch, 15)
    with pytest.raises(KeyboardInterrupt):
        run(prepared, blocks, "parts")
    files = [blocks / f"{card.name}{ending}" for ending in (".json", ".safetensors")]
    sound = [file.read_bytes() for file in files]
    weights = load_file(files[1])
    weights["layer2.self_attn.v_proj.weight"] += 1
    save_file(weights, files[1])
    write_document(files[0], card.model_copy(update={"sha256": sha256_of_file(files[1])}).seal())
    for again in (lambda: run(prepared, blocks, "parts"), lambda: load_trained(whole.folder, blocks)):
        with pytest.raises(MvlError, match="block"):
            again()
    for file, content in zip(files, sound, strict=True):
        file.write_bytes(content)
    parts = run(prepared, blocks, "parts")
    one, other = (load_file(each.folder / "checkpoint.safetensors") for each in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
    assert parts.validation.mean() == whole.validation.mean()
    network = load_trained(parts.folder, blocks).network
    assert torch.equal(network.llm.block.layer2.mlp.up_proj.weight, weights["layer2.mlp.up_proj.weight"])
