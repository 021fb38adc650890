"""A trained network without parts of it: each change is what it says, and the network is whole again afterwards."""

from __future__ import annotations

import math

import pytest
import torch
from builders import make_case, write_array
from networks import RANDOM_BLOCK, tiny, tiny_llm

from mvl_auto.ablation.free_looks import LOOKS, gradient, looks_of, mean_cosine, with_references
from mvl_auto.errors import MvlError
from mvl_auto.llm import load_block
from mvl_auto.network import build_network
from mvl_auto.network.loss import Targets

IMAGE = torch.randn(1, 1, 16, 16, 24, generator=torch.Generator().manual_seed(0))
GRID = (2, 2, 3)


@pytest.fixture
def network(tmp_path_factory):
    block = load_block(RANDOM_BLOCK, "last", tmp_path_factory.mktemp("blocks"))
    network = build_network(tiny(llm=tiny_llm()), 1, 2, block).eval()
    torch.nn.init.constant_(network.llm.gate, 0.7)
    return network


@torch.inference_mode()
def after_llm(network, look: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens before and after the LLM part, (n, d) each, and so that the network must be run."""
    seen = {}
    hook = network.llm.register_forward_hook(lambda _, args, out: seen.update(before=args[0][0], after=out[0]))
    with LOOKS[look](network):
        network(IMAGE)
    hook.remove()
    return seen["before"], seen["after"]


def test_without_the_block_tokens_pass_as_they_are(network):
    before, after = after_llm(network, "as it is")
    assert not torch.allclose(before, after)
    before, after = after_llm(network, "without block")
    assert torch.equal(before, after)


def test_the_mean_of_the_block_is_added_to_every_token(network):
    before, after = after_llm(network, "as it is")
    added = after - before
    assert added.std(dim=0).max() > 1e-4, "tokens differ in what the block adds"
    same_before, same_after = after_llm(network, "mean of block")
    assert torch.equal(before, same_before)
    torch.testing.assert_close(same_after - same_before, added.mean(dim=0).expand_as(added), atol=1e-5, rtol=1e-4)


def test_without_the_trunk_the_llm_part_reads_the_tokens_of_the_stem(network):
    with torch.inference_mode():
        tokens = network.tokens(network.stem(IMAGE)[-1])[0]
    before, after = after_llm(network, "without trunk")
    torch.testing.assert_close(before, tokens)
    assert not torch.allclose(before, after)


@torch.inference_mode()
@pytest.mark.parametrize("look", LOOKS)
def test_the_network_is_whole_again_afterwards(network, look):
    whole = network(IMAGE)
    weights = list(network.state_dict())
    with LOOKS[look](network):
        changed = network(IMAGE)
    assert torch.equal(changed, whole) == (look == "as it is")
    assert torch.equal(network(IMAGE), whole)
    assert list(network.state_dict()) == weights


def test_a_network_without_an_llm_part_has_no_looks_at_it():
    assert looks_of(build_network(tiny(), 1, 2)) == ("as it is", "without trunk")


def test_the_mean_cosine_of_three_rows_by_hand():
    rows = [torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]), torch.tensor([0.0, 3.0])]
    assert mean_cosine(rows) == pytest.approx(1 / 3)  # 1, 0 and 0
    assert mean_cosine([torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])]) == pytest.approx(1 / math.sqrt(2))
    assert mean_cosine([torch.zeros(2), torch.ones(2)]) is None
    assert mean_cosine([torch.ones(2)]) is None


def test_images_find_their_references_by_name_in_any_format(tmp_path):
    for folder, ending in (("images", ".nii.gz"), ("labels", ".nrrd")):
        for name in "ab":
            write_array(tmp_path / folder / f"{name}{ending}", make_case((8, 8, 8), seed=1)[0][0], (1, 1, 1))
    cases = with_references(tmp_path / "images", tmp_path / "labels", 1)
    assert [(case.name, case.label.name) for case in cases] == [("a", "a.nrrd"), ("b", "b.nrrd")]
    (tmp_path / "labels" / "b.nrrd").unlink()
    with pytest.raises(MvlError, match="labels: has no reference for the image b"):
        with_references(tmp_path / "images", tmp_path / "labels", 1)


def test_the_gradient_is_that_of_stem_tokens_and_trunk(network):
    label = torch.zeros(1, 16, 16, 24, dtype=torch.int16)
    label[:, 4:9] = 1
    targets = Targets(torch.eye(2), softmax=True, masked=False)
    row = gradient(network, IMAGE, label, targets)
    assert not network.training
    parts = ("stem.", "tokens.", "trunk.")
    size = sum(p.numel() for name, p in network.named_parameters() if name.startswith(parts))
    assert row.shape == (size,)
    assert row.norm() > 0
    assert all(p.grad is None for p in network.parameters())
