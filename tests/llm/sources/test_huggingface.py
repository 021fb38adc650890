"""A layer over HTTP: which bytes are asked for, and what happens when the network or the server misbehaves."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from gguf_models import write_gguf
from here import left_in
from hub_server import COMMIT, Hub, serving
from llm_models import make_model, reference, save_model

from mvl_auto.errors import MvlError
from mvl_auto.llm import ensure_block, load_block
from mvl_auto.llm.sources import http_file

SOURCE = "hf:made/model"
LAYERS = 6


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of six layers of 50 kB, in shards, with a card that states a licence."""
    folder = tmp_path_factory.mktemp("served")
    model = make_model(hidden_size=64, intermediate_size=192, num_hidden_layers=LAYERS, vocab_size=2000)
    save_model(folder, model, shard_size="300KB")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\nlicense: not this\n")
    return folder


@pytest.fixture
def hub(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    shutil.copytree(served, tmp_path / "served")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf_cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(http_file, "FIRST_PAUSE", 0.0)
    with serving(tmp_path / "served") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    return tmp_path / "blocks"


def assert_empty(bank: Path) -> None:
    """No block, no half-written file."""
    assert left_in(bank) == []


def same_as_on_disk(hub: Hub, bank: Path, layer: int) -> None:
    """The block in the bank has the weights of the served files."""
    expected = load_block(f"file:{hub.folder}", layer, bank.with_name("expected")).state_dict()
    found = load_block(SOURCE, layer, bank).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("layer", [0, 3, LAYERS - 1])
def test_only_the_layers_bytes_are_read(hub, bank, layer):
    card = ensure_block(SOURCE, layer, bank)
    files = {file.name: file.stat().st_size for file in hub.folder.iterdir()}
    assert len([name for name in files if name.endswith(".safetensors")]) > 3
    assert card.bytes_read == hub.bytes_sent
    small = files["config.json"] + files["model.safetensors.index.json"] + files["README.md"]
    assert card.bytes_read - small <= card.bytes_layer + 2 * http_file.FIRST_BYTES
    assert card.bytes_read < 0.4 * sum(files.values())
    same_as_on_disk(hub, bank, layer)


def test_for_a_layer_of_some_megabytes_it_is_less_than_a_fifth_more(hub, bank, tmp_path):
    model = make_model(hidden_size=512, intermediate_size=1536, num_hidden_layers=2, vocab_size=2000)
    hub.folder = save_model(tmp_path / "larger", model, shard_size="4MB", dtype=torch.bfloat16)
    card = ensure_block(SOURCE, "last", bank)
    assert card.bytes_layer == 2 * card.parameters
    assert hub.bytes_sent <= 1.2 * card.bytes_layer


def test_neighbouring_tensors_come_in_one_request(hub, bank):
    ensure_block(SOURCE, 2, bank)
    asked = [request for request in hub.requests if request.file.endswith(".safetensors")]
    assert len(asked) <= 2 * len({request.file for request in asked}) + 1  # its beginning, and the layer or its end


def test_a_model_in_one_piece(hub, bank, tmp_path):
    hub.folder = save_model(tmp_path / "single", reference("llama").model)
    assert (hub.folder / "model.safetensors").is_file()
    block = load_block(SOURCE, 1, bank)
    found = block(reference("llama").inputs[1], causal=True, rotary=True, final_norm=False)
    torch.testing.assert_close(found, reference("llama").outputs[1], rtol=1e-5, atol=1e-5)


def test_the_card_tells_where_the_block_is_from(hub, bank):
    card = ensure_block(SOURCE, "last", bank)
    assert (card.source, card.revision, card.licence) == (SOURCE, COMMIT, "apache-2.0")
    assert (card.layer, card.num_layers) == (LAYERS - 1, LAYERS)
    assert ensure_block(f"{SOURCE}@{COMMIT}", "last", bank).revision == COMMIT


def test_what_is_in_the_bank_is_not_asked_for_again(hub, bank):
    first = ensure_block(SOURCE, 1, bank)
    asked = len(hub.requests)
    assert ensure_block(SOURCE, 1 - LAYERS, bank) == first
    assert len(hub.requests) == asked


def test_all_bytes_are_of_the_commit_that_the_first_answer_named(hub, bank):
    ensure_block(SOURCE, 1, bank)
    assert [request.revision for request in hub.requests] == ["main"] + [COMMIT] * (len(hub.requests) - 1)


def test_redirects_to_another_server_are_followed(hub, bank):
    hub.redirects = True
    assert ensure_block(SOURCE, 1, bank).revision == COMMIT
    same_as_on_disk(hub, bank, 1)


def test_the_token_is_sent(hub, bank, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    ensure_block(SOURCE, 1, bank)
    assert {request.token for request in hub.requests} == {"hf_secret"}


def test_a_gguf_file_of_the_hub(hub, bank):
    model = make_model(hidden_size=256, intermediate_size=512, num_hidden_layers=LAYERS)
    file = write_gguf(hub.folder / "made.Q8_0.gguf", model, GGMLQuantizationType.Q8_0)
    card = ensure_block(f"{SOURCE}/made.Q8_0.gguf", "last", bank)
    assert (card.quantisation, card.licence, card.revision) == ("Q8_0", "apache-2.0", COMMIT)
    found = load_block(f"{SOURCE}/made.Q8_0.gguf", "last", bank).state_dict()
    expected = load_block(f"file:{file}", "last", bank).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# -------------------------------------------------------------------------------- broken connections


@pytest.mark.parametrize("cuts", [[0], [1000], [20_000, 0, 10_000], [5, 5, 5, 5]])
def test_a_cut_connection_is_taken_up_where_it_broke(hub, bank, cuts, caplog):
    hub.wrong_for, hub.cuts = ".safetensors", list(cuts)
    with caplog.at_level(logging.INFO):
        card = ensure_block(SOURCE, 3, bank)
    assert hub.cuts == []
    assert "asking again" in caplog.text
    assert hub.bytes_sent == card.bytes_read  # not one byte was sent twice
    same_as_on_disk(hub, bank, 3)


def test_a_connection_that_is_cut_again_and_again_is_given_up(hub, bank):
    hub.wrong_for, hub.cuts = ".safetensors", [10] * 20
    with pytest.raises(MvlError, match=f"tried {http_file.TRIES} times"):
        ensure_block(SOURCE, 3, bank)
    assert_empty(bank)
    hub.cuts = []
    same_as_on_disk(hub, bank, 3)


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_server_that_stumbles_is_asked_again(hub, bank, status):
    hub.wrong_for, hub.statuses = ".safetensors", [status] * (http_file.TRIES - 1)
    same_as_on_disk(hub, bank, 0)
    assert hub.statuses == []


def test_a_server_that_keeps_stumbling_is_given_up(hub, bank):
    hub.statuses = [500] * 20
    with pytest.raises(MvlError, match=r"the server answered 500"):
        ensure_block(SOURCE, 0, bank)
    assert_empty(bank)


def test_a_file_replaced_while_it_is_read_is_noticed(hub, bank, monkeypatch):
    real = http_file.fetch

    def replaced(host, name, url, start, length):
        received = real(host, name, url, start, length)
        if start:
            received.size += 1
        return received

    monkeypatch.setattr(http_file, "fetch", replaced)
    with pytest.raises(MvlError, match="was replaced"):
        ensure_block(SOURCE, 3, bank)
    assert_empty(bank)


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("status", "error_code", "said"),
    [
        (401, "GatedRepo", r"gated.*Accept it at https://huggingface.co/made/model.*hf auth login, or set HF_TOKEN"),
        (403, "GatedRepo", r"gated.*Accept it at https://huggingface.co/made/model"),
        (401, "RepoNotFound", r"the model does not exist at http://127.*or is private"),
        (401, None, "or is private"),
        (403, None, "may not be read with this account"),
        (404, "RepoNotFound", "the model does not exist"),
        (404, "RevisionNotFound", "this revision does not exist"),
        (404, None, "has no config.json"),
        (418, None, "the server answered 418"),
    ],
)
def test_a_refusal_says_what_to_do(hub, bank, status, error_code, said):
    hub.statuses, hub.error_code = [status], error_code
    with pytest.raises(MvlError, match=said) as caught:
        ensure_block(SOURCE, 0, bank)
    assert "made/model" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(hub.requests) == 1
    assert_empty(bank)


def test_whoever_has_a_token_is_told_to_use_the_right_one(hub, bank, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    hub.statuses, hub.error_code = [403], "GatedRepo"
    with pytest.raises(MvlError, match="use a token of the account that accepted"):
        ensure_block(SOURCE, 0, bank)


def test_a_file_shorter_than_its_header_promises(hub, bank):
    """The server answers 416 to ranges behind the end; so the lie is told before."""
    for shard in hub.folder.glob("*.safetensors"):
        shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(MvlError, match=r"model-0000.*safetensors: has .* bytes; according to its header"):
        ensure_block(SOURCE, 2, bank)
    assert_empty(bank)


def test_a_416_in_the_middle_of_a_file(hub, bank):
    hub.wrong_for = ".safetensors"
    hub.statuses = [416]
    with pytest.raises(MvlError, match="does not support byte ranges"):
        ensure_block(SOURCE, 0, bank)
    assert_empty(bank)


def test_an_empty_file(hub, bank):
    (hub.folder / "config.json").write_bytes(b"")
    with pytest.raises(MvlError, match=r"config.json: is not valid JSON"):
        ensure_block(SOURCE, 0, bank)


def test_a_server_without_ranges_is_refused_before_the_whole_file_has_come(hub, bank, tmp_path):
    model = make_model(hidden_size=512, intermediate_size=1536, num_hidden_layers=4, vocab_size=2000)
    hub.folder = save_model(tmp_path / "larger", model, dtype=torch.bfloat16)
    hub.serves_ranges = False
    with pytest.raises(MvlError, match="does not support byte ranges"):
        ensure_block(SOURCE, 0, bank)
    assert_empty(bank)


def test_pickled_weights_are_not_read(hub, bank):
    for file in hub.folder.glob("*.safetensors*"):
        file.unlink()
    (hub.folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    with pytest.raises(MvlError, match=r"neither model.safetensors nor .*runs the code in it"):
        ensure_block(SOURCE, 0, bank)
    assert "pytorch_model.bin" not in hub.files_asked()


def test_a_file_that_is_not_there(hub, bank):
    with pytest.raises(MvlError, match=r"the file other\.gguf does not exist"):
        ensure_block(f"{SOURCE}/other.gguf", 0, bank)


# -------------------------------------------------------------------------- without a network, cache


def test_a_hub_that_cannot_be_reached_is_given_up_at_once(hub, bank, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(http_file, "FIRST_PAUSE", 1e6)  # a second try would never end
    with pytest.raises(MvlError, match=r"cannot be reached at http://127.0.0.1:9 \(ConnectError"):
        ensure_block(SOURCE, 0, bank)
    assert_empty(bank)


def in_hf_cache(hub: Hub, cache: Path, files: list[str]) -> None:
    """Put files where huggingface_hub's downloads put them."""
    repo = cache / "models--made--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT).mkdir(parents=True)
    for name in files:
        shutil.copy(hub.folder / name, repo / "snapshots" / COMMIT / name)


def test_files_in_huggingface_hubs_cache_are_read_from_there(hub, bank, tmp_path):
    in_hf_cache(hub, tmp_path / "hf_cache", [file.name for file in hub.folder.iterdir()])
    card = ensure_block(SOURCE, 2, bank)
    assert card.revision == COMMIT
    assert hub.requests == []
    same_as_on_disk(hub, bank, 2)


def test_what_the_cache_lacks_is_asked_for_in_the_caches_version(hub, bank, tmp_path):
    in_hf_cache(hub, tmp_path / "hf_cache", ["config.json"])
    ensure_block(SOURCE, 2, bank)
    assert "config.json" not in hub.files_asked()
    assert {request.revision for request in hub.requests} == {COMMIT}


def test_offline_mode_asks_nobody(hub, bank, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MvlError, match="HF_HUB_OFFLINE is set"):
        ensure_block(SOURCE, 2, bank)
    assert hub.requests == []
    in_hf_cache(hub, tmp_path / "hf_cache", [file.name for file in hub.folder.iterdir()])
    assert ensure_block(SOURCE, 2, bank).revision == COMMIT
