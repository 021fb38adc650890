"""mvl_block, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from llm_models import make_model, save_model

from mvl_auto.cli.block import main
from mvl_auto.llm import list_blocks

RANDOM = "random:hidden=32,heads=4,kv_heads=2,ffn=48,seed=0"


@pytest.fixture
def source(tmp_path: Path) -> str:
    folder = save_model(tmp_path / "made", make_model())
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: made-licence\n---\n")
    return f"file:{folder}"


def test_an_empty_bank_lists_what_could_be_added(root, capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == f"root: {root} ($MVL_ROOT)"
    assert "the bank is empty" in said
    for model in ("hf:HuggingFaceTB/SmolLM2-135M", "hf:meta-llama/Llama-3.1-8B", "hf:google/gemma-3-270m"):
        assert model in said


def test_add_then_list_show_and_verify(root, source, capsys):
    assert main(["add", source, "--layer", "-2"]) == 0
    (card,) = list_blocks(root / "blocks")
    assert card.layer == 1
    added = capsys.readouterr().out
    assert f"--llm '{source}' --llm-layer 1" in added
    assert main(["list"]) == 0
    assert card.name in capsys.readouterr().out
    assert main(["show", "made"]) == 0
    shown = capsys.readouterr().out
    for fact in (card.name, card.sha256, source, "made-licence", "1 of 3", f"{card.parameters:,} in float32"):
        assert fact in shown
    assert main(["verify"]) == 0
    assert f"{card.name}: sound" in capsys.readouterr().out


def test_add_two_layers(root, source, capsys):
    assert main(["add", source, "--layers", "2"]) == 0
    added = capsys.readouterr().out
    assert f"--llm '{source}' --llm-layer 2 --llm-layers 2" in added
    assert "1-2 of 3, counted from 0" in added
    assert main(["list"]) == 0
    assert "1-2 of 3" in capsys.readouterr().out
    assert main(["add", source, "--layers", "4"]) == 2
    assert "has no 4 layers that end with layer 2" in capsys.readouterr().err


def test_verify_names_what_is_damaged(root, source, capsys):
    for added in (source, RANDOM):
        assert main(["add", added]) == 0
    good, bad = list_blocks(root / "blocks")
    with open(root / "blocks" / f"{bad.name}.safetensors", "ab") as stream:
        stream.write(b"x")
    capsys.readouterr()
    assert main(["verify"]) == 1
    said = capsys.readouterr().out
    assert f"{good.name}: sound" in said
    assert f"{bad.name}.safetensors: is damaged" in said
    assert "2 blocks, 1 damaged" in said


def test_verify_names_an_edited_card(root, capsys):
    assert main(["add", RANDOM]) == 0
    (card,) = list_blocks(root / "blocks")
    path = root / "blocks" / f"{card.name}.json"
    path.write_text(path.read_text().replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": 1e-03'))
    capsys.readouterr()
    assert main(["verify"]) == 1
    said = capsys.readouterr().out
    assert f"{card.name}.json: was edited" in said
    assert "1 block, 1 damaged" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "SmolLM2"], "is not a source of blocks"),
        (["add", "file:/nowhere/model"], "/nowhere/model: is missing"),
        (["add", "none"], "'none' stands for no block"),
        (["show", "x"], "'x' matches no block"),
    ],
)
def test_bad_input_is_one_line(root, words, said, capsys):
    assert main(words) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("mvl_block: ")
    assert said in errors[0]


def test_the_name_may_be_shortened_until_two_answer_to_it(root, source, capsys):
    for layer in ("0", "1"):
        assert main(["add", source, "--layer", layer]) == 0
    assert main(["show", "made-layer1"]) == 0
    assert main(["show", "made"]) == 2
    assert "matches several blocks" in capsys.readouterr().err
