"""A layer out of a GGUF file: parity with the model it was converted from, and every quantization there is."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import _type_traits
from gguf_models import permute, write_gguf
from llm_models import LLAMA3_ROPE, NUM_LAYERS, make_model, reference

from mvl_auto.errors import MvlError
from mvl_auto.llm import load_block
from mvl_auto.llm.formats.gguf_header import read_header
from mvl_auto.llm.formats.gguf_layers import undo_permutation
from mvl_auto.llm.formats.random_access import MappedFile

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
CONVERTED = ["llama", "llama-biases-llama3-rope", "llama-no-groups-wide-heads", "mistral", "qwen2", "qwen3"]
QUANTISED = sorted(set(_type_traits) - {Type.BF16})
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize("variant", CONVERTED)
def test_every_layer_computes_what_the_converted_model_does(variant, tmp_path):
    expected = reference(variant)
    file = write_gguf(tmp_path / "model.gguf", expected.model, words=50)
    for layer in range(NUM_LAYERS):
        block = load_block(f"file:{file}", layer, tmp_path / "blocks")
        found = block(expected.inputs[layer], causal=True, rotary=True, final_norm=False)
        torch.testing.assert_close(found, expected.outputs[layer], **TOLERANCE)
    last = load_block(f"file:{file}", "last", tmp_path / "blocks")
    torch.testing.assert_close(last(expected.inputs[-1], causal=True, rotary=True), expected.normed, **TOLERANCE)


@pytest.mark.parametrize("heads", [1, 2, 5])
def test_undoing_the_permutation_is_its_inverse(heads):
    for shape in [(heads * 8, 3), (heads * 8,)]:
        rows = np.random.default_rng(0).normal(size=shape)
        np.testing.assert_array_equal(undo_permutation(torch.from_numpy(permute(rows, heads)), heads).numpy(), rows)


@pytest.mark.parametrize("quantisation", [Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1])
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_a_quantised_layer_is_the_model_with_rounded_weights(quantisation, model_type, tmp_path):
    """Every matrix of the reference is quantized and dequantized by the gguf package, in the converter's order."""
    model = make_model(model_type)
    file = write_gguf(tmp_path / "model.gguf", model, quantisation)
    block = load_block(f"file:{file}", 1, tmp_path / "blocks")
    for name, weight in model.model.layers[1].state_dict().items():
        expected = weight.numpy()
        if weight.ndim > 1:
            heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[1], 0) if model_type == "llama" else 0
            order = np.arange(len(expected))
            order = permute(order, heads) if heads else order
            rounded = np.empty_like(expected)
            rounded[order] = gguf.dequantize(gguf.quantize(expected[order], quantisation), quantisation)
            expected = rounded
        np.testing.assert_array_equal(block.layer.get_parameter(name).numpy(), expected, err_msg=name)
    assert block.card.quantisation == quantisation.name
    assert block.card.dtype == "float32"


@pytest.mark.parametrize("quantisation", QUANTISED, ids=lambda kind: kind.name)
def test_every_quantisation_of_the_gguf_package_is_read(quantisation, tmp_path):
    """Bytes at random are valid blocks of any type: what matters is that gguf's numbers come out, in their places."""
    model = make_model(num_hidden_layers=1, **WIDE)
    file = write_gguf(tmp_path / "f32.gguf", model)
    block = load_block(f"file:{_with_bytes(file, quantisation)}", 0, tmp_path / "blocks")
    found = block.layer.get_parameter("mlp.down_proj.weight").numpy()
    header = gguf.GGUFReader(tmp_path / f"{quantisation.name}.gguf")
    theirs = next(tensor for tensor in header.tensors if tensor.name == "blk.0.ffn_down.weight")
    np.testing.assert_array_equal(found, gguf.dequantize(theirs.data, quantisation))
    assert found.shape == (256, 512)


def _with_bytes(file: Path, quantisation: Type) -> Path:
    """The same model with random bytes for its matrices; below 120 no scale of any type is infinite."""
    rng = np.random.default_rng(0)
    reader = gguf.GGUFReader(file)
    path = file.with_name(f"{quantisation.name}.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("llama."):
            writer.add_key_value(field.name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        if len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, tensor.data)
        else:
            shape = gguf.quant_shape_to_byte_shape(tensor.data.shape, quantisation)
            content = rng.integers(0, 120, shape, dtype=np.uint8)
            writer.add_tensor(tensor.name, content, raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("kind", "dtype"), [(Type.F16, torch.float16), (Type.BF16, torch.bfloat16)])
def test_half_precision_stays_as_it_is(kind, dtype, tmp_path):
    model = make_model()
    block = load_block(f"file:{write_gguf(tmp_path / 'm.gguf', model, kind)}", 0, tmp_path / "blocks")
    expected = model.model.layers[0].self_attn.q_proj.weight.to(dtype)
    assert torch.equal(block.layer.self_attn.q_proj.weight, expected)
    assert block.card.quantisation is None
    assert block(torch.randn(1, 5, 32), causal=True, rotary=True).isfinite().all()  # norms are float32 beside it


def test_the_header_says_what_the_gguf_package_says(tmp_path):
    file = write_gguf(tmp_path / "m.gguf", make_model("qwen3", head_dim=16), Type.Q8_0, words=1000)
    mine, theirs = read_header(MappedFile(file)), gguf.GGUFReader(file)
    scalars = {field.name: field.contents() for field in theirs.fields.values()}
    assert mine.values == {
        key: value for key, value in scalars.items() if not isinstance(value, list) and not key.startswith("GGUF.")
    }
    places = {
        t.name: (tuple(reversed(t.shape.tolist())), t.tensor_type, t.data_offset, t.n_bytes) for t in theirs.tensors
    }
    assert {n: (t.shape, t.type, t.start, t.length) for n, t in mine.tensors.items()} == places


def test_only_the_header_and_the_layer_are_read(tmp_path):
    model = make_model(num_hidden_layers=8, **WIDE)
    file = write_gguf(tmp_path / "m.gguf", model, Type.Q8_0, words=3000)
    card = load_block(f"file:{file}", 5, tmp_path / "blocks").card
    header = gguf.GGUFReader(file).data_offset
    layer = sum(t.n_bytes for t in gguf.GGUFReader(file).tensors if t.name.startswith(("blk.5.", "output_norm")))
    assert card.bytes_layer == layer
    assert card.bytes_read <= header + (1 << 20) + layer + (1 << 15)
    assert card.bytes_read < 0.5 * file.stat().st_size


def test_rope_scalings_of_the_header(tmp_path):
    model = make_model()
    yarn = {"llama__rope__scaling__type": "yarn", "llama__rope__scaling__factor": 4.0}
    file = write_gguf(tmp_path / "yarn.gguf", model, **yarn, llama__rope__scaling__original_context_length=16)
    expected = make_model(
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    )
    hidden = torch.randn(1, 6, 32)
    positions = expected.model.rotary_emb(hidden, torch.arange(6)[None])
    block = load_block(f"file:{file}", 0, tmp_path / "blocks")
    found = block(hidden, rotary=True, causal=True, final_norm=False)
    torch.testing.assert_close(
        found, expected.model.layers[0](hidden, position_embeddings=positions, attention_mask=None), **TOLERANCE
    )
    assert LLAMA3_ROPE["factor"] == 4.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"llama__expert_count": 8}, "mixture of experts"),
        ({"llama__rope__scaling__type": "alibi"}, "rope scaling 'alibi'"),
        ({"split__count": 3}, "one of 3 parts"),
        ({"llama__rope__dimension_count": 4}, "part of each head"),
    ],
)
def test_variants_that_are_not_supported_are_refused(values, said, tmp_path):
    file = write_gguf(tmp_path / "m.gguf", make_model(), **values)
    with pytest.raises(MvlError, match=said) as caught:
        load_block(f"file:{file}", 0, tmp_path / "blocks")
    assert "m.gguf" in str(caught.value)


def test_an_unknown_architecture_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.add_block_count(2)
    writer.add_tensor("blk.0.ssm_a", np.zeros(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(MvlError, match="'mamba"):
        load_block(f"file:{tmp_path / 'm.gguf'}", 0, tmp_path / "blocks")


def test_a_layer_with_tensors_that_the_architecture_lacks_is_refused(tmp_path):
    model = make_model("qwen3", head_dim=16)
    model.config.model_type = "llama"  # q and k norms in a file that says llama
    with pytest.raises(MvlError, match=r"attn_k_norm.weight, blk.0.attn_q_norm.weight, which its architecture"):
        load_block(f"file:{write_gguf_as_llama(tmp_path, model)}", 0, tmp_path / "blocks")


def write_gguf_as_llama(folder: Path, model: object) -> Path:
    """Rename the tensors by the map of the architecture that has them all."""
    import gguf_models

    names = gguf.get_tensor_name_map
    try:
        gguf.get_tensor_name_map = lambda _, count: names(gguf.MODEL_ARCH.QWEN3, count)
        return gguf_models.write_gguf(folder / "m.gguf", model)
    finally:
        gguf.get_tensor_name_map = names
