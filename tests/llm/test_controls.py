"""What stands in a block's place: each keeps what it says it keeps."""

from __future__ import annotations

import pytest
import torch
from llm_models import make_model, save_model

from mvl_auto.errors import MvlError
from mvl_auto.llm import load_block
from mvl_auto.llm.controls import Rotated, orthogonal, permuted, randomised
from mvl_auto.llm.layers import LayerRange

TOKENS = 6


@pytest.fixture(params=["llama", "qwen2", "qwen3"])
def block(request, tmp_path):
    """A block of a language model whose norms and biases are not those of the start."""
    model = make_model(request.param)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return load_block(f"file:{save_model(tmp_path / 'model', model)}", "last", tmp_path / "blocks")


def tokens(hidden: int) -> torch.Tensor:
    return torch.randn(2, TOKENS, hidden, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("rotary", [True, False])
def test_a_rotated_block_is_the_same_function(block, rotary, final_norm):
    x = tokens(block.card.hidden_size)
    turned = Rotated(block, seed=0)
    expected = block(x, causal=True, rotary=rotary, final_norm=final_norm)
    torch.testing.assert_close(
        turned(x, causal=True, rotary=rotary, final_norm=final_norm), expected, rtol=1e-4, atol=1e-4
    )
    inner = turned.block.state_dict()["layer.mlp.up_proj.weight"]
    assert not torch.allclose(inner, block.state_dict()["layer.mlp.up_proj.weight"].float(), atol=1e-2)
    assert not any(weight.requires_grad for weight in turned.parameters())


@pytest.mark.parametrize("final_norm", [True, False])
def test_two_rotated_layers_are_the_same_function(block, tmp_path, final_norm):
    two = load_block(block.card.source, LayerRange("last", 2), tmp_path / "blocks")
    x = tokens(two.card.hidden_size)
    turned, expected = Rotated(two, seed=0), two(x, rotary=True, final_norm=final_norm)
    torch.testing.assert_close(
        turned(x, causal=False, rotary=True, final_norm=final_norm), expected, rtol=1e-4, atol=1e-4
    )
    for name in ("layer.mlp.up_proj.weight", "layer2.mlp.up_proj.weight"):
        assert not torch.allclose(turned.block.state_dict()[name], two.state_dict()[name].float(), atol=1e-2), name
    assert not torch.allclose(expected, block(x, rotary=True, final_norm=final_norm), atol=1e-2)


@pytest.mark.parametrize("control", [permuted, randomised])
def test_a_control_changes_both_of_two_layers(block, tmp_path, control):
    two = load_block(block.card.source, LayerRange("last", 2), tmp_path / "blocks")
    before, after = two.state_dict(), control(two, 0).state_dict()
    for layer in ("layer", "layer2"):
        name = f"{layer}.mlp.down_proj.weight"
        assert after[name].std() == pytest.approx(float(before[name].std()), rel=0.1)
        assert not torch.equal(after[name], before[name])
    assert not torch.equal(after["layer.mlp.down_proj.weight"], after["layer2.mlp.down_proj.weight"])


def test_a_block_with_other_norms_cannot_be_rotated(tmp_path):
    source = f"file:{save_model(tmp_path / 'model', make_model('gemma3_text'))}"
    with pytest.raises(MvlError, match="gemma3_text"):
        Rotated(load_block(source, "last", tmp_path / "blocks"), seed=0)


def test_the_turn_is_orthogonal():
    turn = orthogonal(16, seed=0)
    torch.testing.assert_close(turn @ turn.T, torch.eye(16, dtype=torch.float64))
    assert not torch.equal(turn, orthogonal(16, seed=1))


def test_random_matrices_have_the_statistics_of_the_block_and_its_norms(block):
    other = randomised(block, seed=0)
    for name, weight in block.state_dict().items():
        drawn = other.state_dict()[name]
        if weight.ndim < 2:
            assert torch.equal(drawn, weight), name
            continue
        assert not torch.equal(drawn, weight), name
        assert drawn.dtype == weight.dtype
        error = 4 * weight.float().std() / weight.numel() ** 0.5
        assert abs(drawn.float().mean() - weight.float().mean()) < error, name
        assert drawn.float().std() / weight.float().std() == pytest.approx(1, abs=4 / weight.numel() ** 0.5), name
    same = randomised(block, seed=0).state_dict()
    assert all(torch.equal(weight, same[name]) for name, weight in other.state_dict().items())


def test_the_turn_is_that_of_its_seed():
    torch.manual_seed(1)
    first = orthogonal(8, seed=0)
    torch.manual_seed(2)
    assert torch.equal(orthogonal(8, seed=0), first)
    assert not torch.allclose(orthogonal(8, seed=1), first)


def test_the_signs_of_the_turn_are_those_of_a_positive_diagonal():
    """Mezzadri 2007: with R's diagonal positive the matrix is drawn evenly; Q.T @ normal is that R."""
    normal = torch.randn(8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert ((orthogonal(8, seed=3).T @ normal).diagonal() > 0).all()


def test_each_control_is_named_after_its_block_and_its_seed(tmp_path):
    block = load_block("random:hidden=16,heads=2,ffn=24,seed=0", "last", tmp_path)
    name = block.card.name
    assert permuted(block, seed=3).card.name == f"{name}-permuted3"
    assert randomised(block, seed=4).card.name == f"{name}-random4"
    assert Rotated(block, seed=5).block.card.name == f"{name}-rotated5"
    assert block.card.name == name
