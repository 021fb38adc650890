"""The frozen block as a module: what it computes in each mode, that it stays frozen, and that it compiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from llm_models import TOKENS, make_model, reference, save_model

from mvl_auto.llm import FrozenBlock, load_block
from mvl_auto.llm.controls import permuted

RANDOM = "random:hidden=32,heads=4,kv_heads=2,ffn=48,seed=3"
MODES = [{}, {"causal": True}, {"rotary": True}, {"causal": True, "rotary": True, "final_norm": False}]


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> FrozenBlock:
    """A llama layer with random norms, float32."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder / "model", reference("llama").model)
    return load_block(f"file:{folder / 'model'}", 1, folder / "blocks")


@pytest.fixture(scope="module")
def half_block(tmp_path_factory: pytest.TempPathFactory) -> FrozenBlock:
    """The same layer, stored in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    save_model(folder / "model", make_model(), dtype=torch.bfloat16)
    return load_block(f"file:{folder / 'model'}", 1, folder / "blocks")


def tokens(seed: int = 0, **options: object) -> torch.Tensor:
    return torch.randn(2, TOKENS, 32, generator=torch.Generator().manual_seed(seed)).to(**options)


def by_hand(block: FrozenBlock, hidden_nd: np.ndarray, causal: bool) -> np.ndarray:
    """Llama's layer and final norm in numpy, float64, without rotary positions. One sequence (n, d)."""
    weights = {name: weight.double().numpy() for name, weight in block.state_dict().items()}
    geometry = block.card.geometry

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + geometry.rms_norm_eps) * weights[f"{name}.weight"]

    def project(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"layer.{name}.weight"].T

    x = norm(hidden_nd, "layer.input_layernorm")
    query, key, value = (project(x, f"self_attn.{name}_proj") for name in "qkv")
    heads, width = geometry.num_attention_heads, geometry.head_dim
    attended = []
    for head in range(heads):
        shared = head // (heads // geometry.num_key_value_heads)
        q = query[:, head * width : (head + 1) * width]
        k, v = (part[:, shared * width : (shared + 1) * width] for part in (key, value))
        scores = q @ k.T / np.sqrt(width)
        if causal:
            scores[np.triu_indices(len(scores), 1)] = -np.inf
        share = np.exp(scores - scores.max(-1, keepdims=True))
        attended.append(share / share.sum(-1, keepdims=True) @ v)
    h = hidden_nd + project(np.concatenate(attended, -1), "self_attn.o_proj")
    x = norm(h, "layer.post_attention_layernorm")
    gate = project(x, "mlp.gate_proj")
    return norm(h + project(gate / (1 + np.exp(-gate)) * project(x, "mlp.up_proj"), "mlp.down_proj"), "norm")


@pytest.mark.parametrize("causal", [False, True])
def test_without_rotary_positions_it_is_the_formula(block, causal):
    hidden = tokens()
    expected = by_hand(block, hidden[0].double().numpy(), causal)
    np.testing.assert_allclose(block(hidden, causal=causal)[0], expected, rtol=1e-4, atol=1e-4)


def test_without_mask_and_positions_the_order_of_tokens_means_nothing(block):
    hidden, order = tokens(), torch.randperm(TOKENS, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block(hidden[:, order]), block(hidden)[:, order])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("images", [1, 3])
def test_an_image_gives_the_same_in_every_batch(block, images, mode):
    hidden = tokens()[:1]
    found = block(hidden.expand(images, -1, -1), **mode)
    torch.testing.assert_close(found, block(tokens(), **mode)[:1].expand(images, -1, -1))


def test_positions_are_on_the_device_of_the_tokens(block):
    """Whatever the default device is: here it is one that holds no numbers."""
    hidden = tokens()
    with torch.device("meta"):
        found = block(hidden, rotary=True)
    assert torch.equal(found, block(hidden, rotary=True))


@pytest.mark.parametrize("mode", [{"causal": True}, {"rotary": True}])
def test_with_either_it_means_something(block, mode):
    hidden, order = tokens(), torch.arange(TOKENS).flip(0)
    assert not torch.allclose(block(hidden[:, order], **mode), block(hidden, **mode)[:, order], atol=1e-2)


def test_a_causal_block_does_not_look_ahead(block):
    changed = tokens()
    changed[:, 4:] += 1
    before, after = block(tokens(), causal=True), block(changed, causal=True)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(block(tokens())[:, :4], block(changed)[:, :4])


def test_weights_that_lack_or_are_not_of_the_layer_are_refused(block):
    weights = block.state_dict()
    name = "layer.mlp.up_proj.weight"
    with pytest.raises(RuntimeError, match=f"Missing key.*{name}"):
        FrozenBlock(block.card, {other: weight for other, weight in weights.items() if other != name})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*layer\.other"):
        FrozenBlock(block.card, weights | {"layer.other": weights[name]})


def test_nothing_of_it_trains(block):
    network = torch.nn.Sequential(torch.nn.Linear(32, 32), block).train()
    network(tokens()).sum().backward()
    assert network[0].weight.grad.abs().sum() > 0
    assert not block.training
    assert not block.layer.training
    assert all(not weight.requires_grad and weight.grad is None for weight in block.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_gradients_reach_the_input(block, mode):
    hidden = tokens().requires_grad_()
    block(hidden, **mode)[0, -1].sum().backward()
    assert hidden.grad[0].abs().sum(-1).min() > 0  # the last token sees all tokens
    assert hidden.grad[1].abs().sum() == 0  # and none of the other image


def test_the_gradient_is_the_slope(block):
    hidden, direction = tokens().requires_grad_(), tokens(seed=1)
    weights = tokens(seed=2)
    (block(hidden) * weights).sum().backward()
    step = 2e-3
    with torch.no_grad():
        difference = ((block(hidden + step * direction) - block(hidden - step * direction)) * weights).sum() / (
            2 * step
        )
    assert (hidden.grad * direction).sum().item() == pytest.approx(difference.item(), rel=5e-3)


def test_stored_weights_keep_their_dtype_and_compute_in_the_inputs(block, half_block):
    assert half_block.card.dtype == "bfloat16"
    assert {weight.dtype for weight in half_block.parameters()} == {torch.bfloat16}
    upcast = FrozenBlock(half_block.card, {k: v.float() for k, v in half_block.state_dict().items()})
    assert torch.equal(half_block(tokens()), upcast(tokens()))
    assert half_block(tokens(dtype=torch.float64)).dtype == torch.float64
    assert {weight.dtype for weight in half_block.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", ["block", "half_block"])
@pytest.mark.parametrize("mode", MODES)
def test_it_runs_under_autocast(stored, dtype, mode, request):
    module = request.getfixturevalue(stored)
    hidden = tokens().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        found = module(hidden, **mode)
    found.sum().backward()
    assert found.dtype == torch.float32
    assert hidden.grad.isfinite().all()
    expected = module(hidden, **mode)
    assert (found - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("stored", ["block", "half_block"])
@pytest.mark.parametrize("mode", MODES)
def test_it_compiles_without_a_graph_break(stored, mode, request):
    module = request.getfixturevalue(stored)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tokens(), **mode), module(tokens(), **mode))


OLD_EXPORT = pytest.mark.xfail(torch.__version__.startswith("2.6."), reason="torch 2.6 loses a cast when it exports")


@pytest.mark.parametrize("stored", ["block", pytest.param("half_block", marks=OLD_EXPORT)])
@pytest.mark.parametrize("mode", MODES)
def test_it_exports(stored, mode, request):
    module = request.getfixturevalue(stored)
    exported = torch.export.export(module, (tokens(),), mode).module()
    torch.testing.assert_close(exported(tokens(seed=5), **mode), module(tokens(seed=5), **mode))


def test_a_window_that_holds_all_tokens_changes_nothing(tmp_path):
    save_model(tmp_path / "model", make_model("mistral", sliding_window=TOKENS))
    found = load_block(f"file:{tmp_path / 'model'}", 0, tmp_path / "blocks")
    assert found.card.geometry.sliding_window == TOKENS
    full = FrozenBlock(
        found.card.model_copy(update={"geometry": found.card.geometry.model_copy(update={"sliding_window": None})}),
        found.state_dict(),
    )
    assert torch.equal(found(tokens(), causal=True), full(tokens(), causal=True))


def test_permuted_has_the_same_numbers_and_is_another_function(block):
    other = permuted(block, seed=0)
    for (name, weight), (_, shuffled) in zip(block.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(weight.flatten().sort().values, shuffled.flatten().sort().values), name
        assert not torch.equal(weight, shuffled), name
    difference = (other(tokens()) - block(tokens())).norm()
    assert difference > 0.5 * block(tokens()).norm()
    assert torch.equal(permuted(block, seed=0)(tokens()), other(tokens()))
    assert not torch.equal(permuted(block, seed=1)(tokens()), other(tokens()))


def test_permuted_keeps_the_singular_values(block):
    name = "layer.mlp.up_proj.weight"
    mine, other = block.state_dict()[name], permuted(block, seed=0).state_dict()[name]
    torch.testing.assert_close(torch.linalg.svdvals(mine), torch.linalg.svdvals(other), rtol=1e-4, atol=1e-5)


def test_a_random_block_is_initialised_as_transformers_does(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    theirs = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=128,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=256,
            num_hidden_layers=1,
            vocab_size=8,
        )
    ).model.layers[0]
    mine = load_block("random:hidden=128,heads=4,kv_heads=2,ffn=256,seed=0", "last", tmp_path).layer
    for (name, weight), (_, reference_weight) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert weight.shape == reference_weight.shape
        assert weight.mean().item() == pytest.approx(reference_weight.mean().item(), abs=1e-3), name
        assert weight.std().item() == pytest.approx(reference_weight.std().item(), rel=0.05), name


def test_a_random_block_depends_on_its_seed_alone(tmp_path):
    first = load_block(RANDOM, "last", tmp_path / "a")
    again = load_block(RANDOM, 0, tmp_path / "b")
    other = load_block(RANDOM.replace("seed=3", "seed=4"), "last", tmp_path / "a")
    assert first.card.sha256 == again.card.sha256 != other.card.sha256
    assert torch.equal(first(tokens()), again(tokens()))


def test_adapters_can_be_put_on_its_projections(half_block):
    peft = pytest.importorskip("peft")
    block = FrozenBlock(half_block.card, half_block.state_dict())
    before = block(tokens())
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = peft.inject_adapter_in_model(config, block)
    adapted(tokens()).sum().backward()
    trained = {name for name, weight in adapted.named_parameters() if weight.grad is not None}
    assert trained == {name for name, _ in adapted.named_parameters() if "lora_" in name}
    assert len(trained) == 4
    assert not torch.equal(adapted(tokens()), before)
