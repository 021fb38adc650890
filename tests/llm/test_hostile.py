"""Files that lie, or are damaged: one line, no crash, no memory for what isn't there, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf_models import write_gguf
from here import left_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llm_models import make_model, save_model

from mvl_auto.errors import MvlError
from mvl_auto.llm.formats.gguf_layers import read_gguf_layers
from mvl_auto.llm.formats.random_access import MappedFile
from mvl_auto.llm.formats.safetensors_header import read_header
from mvl_auto.llm.layers import LayerRange
from mvl_auto.llm.load import load_block
from mvl_auto.llm.sources.local import extract_from_disk

TWO_TO_60 = 1 << 60
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", make_model(num_hidden_layers=1))


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("gguf") / "m.gguf"
    return write_gguf(file, make_model(num_hidden_layers=1), words=3).read_bytes()


def refused(path: Path, bank: Path) -> str:
    """The line that says why a block is not loaded; the bank stays empty."""
    with pytest.raises(MvlError) as caught:
        load_block(f"file:{path}", 0, bank)
    assert left_in(bank) == []
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------------------- safetensors


def rewrite_header(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the header of a safetensors file and leave its data as it is."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    changed = json.dumps(change(header) or header).encode()
    file.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])


def offsets(start: int, stop: int) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[Q_PROJ].update(data_offsets=[start, stop])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (offsets(0, TWO_TO_60), "impossible entry"),
        (offsets(TWO_TO_60, TWO_TO_60 + 32 * 32 * 4), "hole or an overlap"),
        (offsets(0, 32 * 32 * 4), "hole or an overlap"),
        (offsets(-8, 32 * 32 * 4 - 8), "impossible entry"),
        (offsets(100, 50), "impossible entry"),
        (lambda header: header[Q_PROJ].update(shape=[TWO_TO_60, TWO_TO_60]), "impossible entry"),
        (lambda header: header[Q_PROJ].update(shape=[-32, -32]), "impossible entry"),
        (lambda header: header[Q_PROJ].update(shape=[32.0, 32]), "impossible entry"),
        (lambda header: header[Q_PROJ].update(shape=[1] * 1000), "impossible entry"),
        (lambda header: header[Q_PROJ].update(dtype="F33"), "impossible entry"),
        (lambda header: header[Q_PROJ].update(dtype=["F32"]), "impossible entry"),
        (lambda header: header[Q_PROJ].pop("data_offsets") and None, "impossible entry"),
        (lambda header: header.update({Q_PROJ: None}), "impossible entry"),
        (lambda header: header[Q_PROJ].update(shape=[64, 16]), r"shape \(64, 16\), its geometry needs \(32, 32\)"),
        (lambda header: header.pop(Q_PROJ) and None, "hole or an overlap"),
        (lambda header: header.update({"more": header[Q_PROJ]}), "hole or an overlap"),
        (lambda header: [header], "not a JSON object"),
    ],
)
def test_a_safetensors_header_that_lies(folder, tmp_path, change, said):
    rewrite_header(folder, change)
    with pytest.raises(MvlError, match=said):
        extract_from_disk(folder, LayerRange(0))
    assert refused(folder, tmp_path / "blocks")


@pytest.mark.parametrize("length", [TWO_TO_60, (1 << 64) - 1, 200_000_000, 90_000_000])
def test_a_safetensors_header_of_impossible_length(folder, tmp_path, length):
    file = folder / "model.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
    assert "header" in refused(folder, tmp_path / "blocks")


@pytest.mark.parametrize("content", [b"", b"\x07", b"\x02" + bytes(7) + b"{", b"\x04" + bytes(7) + b"\xff\xfe{}", None])
def test_what_is_no_safetensors_file(folder, tmp_path, content):
    nested = b"[" * 100_000
    (folder / "model.safetensors").write_bytes(
        len(nested).to_bytes(8, "little") + nested if content is None else content
    )
    refused(folder, tmp_path / "blocks")


@pytest.mark.parametrize("missing", [1, 1000, 10_000])
def test_a_truncated_safetensors_file(folder, tmp_path, missing):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-missing])
    assert "according to its header it needs" in refused(folder, tmp_path / "blocks")


def test_bytes_behind_the_last_tensor(folder, tmp_path):
    with open(folder / "model.safetensors", "ab") as stream:
        stream.write(b"PK\x03\x04")
    assert "4 bytes after its last tensor" in refused(folder, tmp_path / "blocks")


@pytest.mark.parametrize("target", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", 7, "x.bin", ""])
def test_an_index_that_points_elsewhere(folder, tmp_path, target):
    (tmp_path / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    index = {"weight_map": {Q_PROJ: target}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "not a plain file name" in refused(folder, tmp_path / "blocks")


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', "{", "null"])
def test_an_index_that_is_none(folder, tmp_path, index):
    (folder / "model.safetensors.index.json").write_text(index)
    refused(folder, tmp_path / "blocks")


def test_a_shard_that_the_index_promises_and_nobody_has(folder, tmp_path):
    names = read_header(MappedFile(folder / "model.safetensors"))
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors" in refused(folder, tmp_path / "blocks")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": TWO_TO_60}, "does not describe a supported model"),
        ({"hidden_size": 64}, "its geometry needs"),
        ({"hidden_size": "many"}, "does not describe a supported model"),
        ({"num_attention_heads": 0}, "does not describe a supported model"),
        ({"num_key_value_heads": 3}, "does not describe a supported model"),
        ({"num_hidden_layers": 0}, "but no layer 0"),
        ({"rms_norm_eps": -1.0}, "does not describe a supported model"),
        ({"rope_parameters": {"rope_type": "../../x", "rope_theta": 1.0}}, "does not describe a supported model"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "does not describe a supported model"),
        ({"hidden_act": "os.system"}, "does not describe a supported model"),
        ({"model_type": "gpt2"}, r"'gpt2'.*not supported \(supported: llama, mistral, qwen2, qwen3, gemma3_text\)"),
        ({"model_type": "llama4"}, "vision-language"),
        ({"model_type": None}, "not supported"),
        ({"model_type": ["llama"]}, "not supported"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized checkpoint"),
    ],
)
def test_a_configuration_that_lies(folder, tmp_path, change, said):
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MvlError, match=said):
        extract_from_disk(folder, LayerRange(0))
    refused(folder, tmp_path / "blocks")


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", "[" * 100_000])
def test_a_configuration_that_is_none(folder, tmp_path, content):
    (folder / "config.json").write_text(content)
    refused(folder, tmp_path / "blocks")


# ------------------------------------------------------------------------------------------ pickles


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickles_are_never_read(folder, tmp_path, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    assert "runs the code in it" in refused(folder, tmp_path / "blocks")
    assert "runs the code in it" in refused(folder / name, tmp_path / "blocks")
    assert not (tmp_path / "mark").exists()


# --------------------------------------------------------------------------------------------- GGUF


def test_the_sound_file_is_read(gguf_bytes, tmp_path):
    (tmp_path / "m.gguf").write_bytes(gguf_bytes)
    assert read_gguf_layers(MappedFile(tmp_path / "m.gguf"), LayerRange(0)).num_layers == 1


@pytest.mark.parametrize("value", [TWO_TO_60, (1 << 64) - 1, 1 << 31])
@pytest.mark.parametrize("place", [8, 16], ids=["tensors", "values"])
def test_a_gguf_with_huge_counts(gguf_bytes, tmp_path, place, value):
    (tmp_path / "m.gguf").write_bytes(gguf_bytes[:place] + struct.pack("<Q", value) + gguf_bytes[place + 8 :])
    assert "according to its header it needs" in refused(tmp_path / "m.gguf", tmp_path / "blocks")


def at(content: bytes, needle: bytes, behind: int, new: bytes) -> bytes:
    """Overwrite bytes, counted from the end of the first occurrence of `needle`."""
    place = content.index(needle) + len(needle) + behind
    return content[:place] + new + content[place + len(new) :]


def words(n: int) -> bytes:
    return struct.pack("<Q", n)


@pytest.mark.parametrize(
    ("needle", "behind", "new", "said"),
    [
        (b"GGUF", 0, struct.pack("<I", 1), "version 1"),
        (b"GGUF", 0, struct.pack(">I", 3), "version 50331648"),
        (b"", 0, b"GGML", "not a GGUF file"),
        (b"tokenizer.ggml.tokens", 8, words(TWO_TO_60), "according to its header it needs"),
        (b"tokenizer.ggml.tokens", 16, words(TWO_TO_60), "according to its header it needs"),
        (b"tokenizer.ggml.tokens", 4, struct.pack("<I", 99), "unknown type 99"),
        (b"llama.block_count", 0, struct.pack("<I", 77), "unknown type 77"),
        (b"llama.block_count", 4, struct.pack("<I", 0), "impossible llama.block_count of 0"),
        (b"llama.embedding_length", 4, struct.pack("<I", 1 << 31), "impossible geometry"),
        (b"llama.attention.head_count", 4, struct.pack("<I", 0), "impossible llama.attention.head_count"),
        (b"llama.attention.head_count_kv", 4, struct.pack("<I", 3), "impossible geometry"),
        (b"blk.0.attn_q.weight", 0, struct.pack("<I", 0), "has 0 dimensions"),
        (b"blk.0.attn_q.weight", 0, struct.pack("<I", 1 << 31), "dimensions"),
        (b"blk.0.attn_q.weight", 4, words(TWO_TO_60), "according to its header it needs"),
        (b"blk.0.attn_q.weight", 4, words(16), "its geometry needs"),
        (b"blk.0.attn_q.weight", 20, struct.pack("<I", 99), "unknown type 99"),
        (b"blk.0.attn_q.weight", 20, struct.pack("<I", 12), "impossible in Q4_K"),
        (b"blk.0.attn_q.weight", 20, struct.pack("<I", 24), "cannot dequantize"),
        (b"blk.0.attn_q.weight", 24, words(TWO_TO_60), "according to its header it needs"),
        (b"blk.0.attn_q.weight", -6, b"k", "lacks blk.0.attn_q.weight"),
        (b"general.architecture", 12, b"mamba", "'mamba"),
    ],
)
def test_a_gguf_header_that_lies(gguf_bytes, tmp_path, needle, behind, new, said):
    (tmp_path / "m.gguf").write_bytes(at(gguf_bytes, needle, behind, new))
    assert said in refused(tmp_path / "m.gguf", tmp_path / "blocks")


def test_arrays_of_arrays_end_somewhere(tmp_path):
    deep = struct.pack("<IQ", 9, 1) * 100_000
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<I", 9)
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + deep)
    assert "nests arrays" in refused(tmp_path / "m.gguf", tmp_path / "blocks")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.99])
def test_a_truncated_gguf(gguf_bytes, tmp_path, share):
    (tmp_path / "m.gguf").write_bytes(gguf_bytes[: int(len(gguf_bytes) * share)])
    refused(tmp_path / "m.gguf", tmp_path / "blocks")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_a_gguf_header_is_refused_or_harmless(gguf_bytes, tmp_path, data):
    content = bytearray(gguf_bytes)
    header_end = gguf_bytes.index(b"output_norm.weight") + 64
    for place in data.draw(st.lists(st.integers(0, header_end), min_size=1, max_size=4)):
        content[place] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    (tmp_path / "m.gguf").write_bytes(content)
    assert "m.gguf" in refusal_if_any(
        lambda: read_gguf_layers(MappedFile(tmp_path / "m.gguf"), LayerRange(0)), "m.gguf"
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_a_safetensors_header_is_refused_or_harmless(folder, data):
    file = folder / "model.safetensors"
    sound = file.read_bytes()
    content = bytearray(sound)
    length = int.from_bytes(content[:8], "little")
    for place in data.draw(st.lists(st.integers(0, 8 + length), min_size=1, max_size=3)):
        content[place] = data.draw(st.sampled_from([0, 57, 34, 44, 255]))
    file.write_bytes(content)
    try:
        assert "model" in refusal_if_any(lambda: extract_from_disk(folder, LayerRange(0)), "model")
    finally:
        file.write_bytes(sound)


def refusal_if_any(read: Callable[[], object], otherwise: str) -> str:
    """The line of a refusal, `otherwise` when there is none; anything else that goes wrong is a bug."""
    try:
        read()
    except MvlError as error:
        return str(error)
    return otherwise


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md"])
def test_a_pipe_in_place_of_a_file_is_refused_at_once(name, tmp_path):
    folder = save_model(tmp_path / "model", make_model())
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert f"{name}: is not a regular file" in refused(folder, tmp_path / "blocks")


def test_a_pipe_or_a_device_in_place_of_a_gguf_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "model.gguf")
    for path in (tmp_path / "model.gguf", Path("/dev/zero")):
        assert "is not a regular file" in refused(path, tmp_path / "blocks")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3_text"])
def test_a_configuration_of_a_billion_layers_is_refused_at_once(architecture, tmp_path):
    folder = save_model(tmp_path / "model", make_model(architecture))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"num_hidden_layers": 10**9, "layer_types": None}))
    assert "1,000,000,000 layers; at most 10,000" in refused(folder, tmp_path / "blocks")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("random:hidden=1000000000,heads=1", "is too large"),
        ("random:hidden=65536,heads=64", "is too large"),
        ("random:hidden=32,heads=4,ffn=1000000000000", "is too large"),
        ("random:hidden=32,heads=4,seed=-1", "out of range"),
        ("random:hidden=32,heads=4,seed=9223372036854775808", "out of range"),
        ("random:hidden=-32,heads=4", "not consistent"),
    ],
)
def test_a_random_block_of_impossible_numbers_is_refused_at_once(source, said, tmp_path):
    with pytest.raises(MvlError, match=said):
        load_block(source, "last", tmp_path)


def test_a_random_block_may_have_the_largest_seed(tmp_path):
    assert load_block("random:hidden=32,heads=4,seed=9223372036854775807", "last", tmp_path).card.parameters
