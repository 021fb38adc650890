"""A run that begins with the weights of another: what fits is taken, image channels are adapted, the rest is listed."""

from __future__ import annotations

import pytest
import torch
from networks import tiny
from trained import make_configuration, make_plan, write_trained

from mvl_auto.errors import MvlError
from mvl_auto.network import build_network
from mvl_auto.network.optimizer import trainable
from mvl_auto.runs.checkpoint import AVERAGED, CHECKPOINT, find_checkpoint, read_tensors
from mvl_auto.training.finetune import start_from, take_what_fits


def weights_of(network):
    return {name: weight.detach().clone() for name, weight in trainable(network).items()}


def test_the_same_network_gets_every_weight():
    source, network = build_network(tiny(), 1, 3, seed=1), build_network(tiny(), 1, 3, seed=2)
    taken = take_what_fits(network, weights_of(source))
    assert not taken.fresh
    assert not taken.adapted
    image = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(network.eval()(image), source.eval()(image))


def test_other_classes_keep_all_but_the_heads():
    source, network = build_network(tiny(), 1, 3, seed=1), build_network(tiny(), 1, 5, seed=2)
    before = weights_of(network)
    taken = take_what_fits(network, weights_of(source))
    assert taken.fresh
    assert all("head" in name for name in taken.fresh)
    after = weights_of(network)
    for name in taken.fresh:
        assert torch.equal(after[name], before[name])
    for name in taken.whole:
        assert torch.equal(after[name], weights_of(source)[name])


@pytest.mark.parametrize(("before", "now"), [(1, 3), (3, 1), (2, 3)])
def test_other_channels_that_all_show_the_same_image_give_the_same_output(before, now):
    source, network = build_network(tiny(), before, 3, seed=1), build_network(tiny(), now, 3, seed=2)
    taken = take_what_fits(network, weights_of(source))
    assert taken.adapted
    assert not taken.fresh
    image = torch.randn(1, 1, 16, 16, 16)
    one, other = (net.eval()(image.expand(1, n, -1, -1, -1)) for net, n in ((source, before), (network, now)))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_another_depth_takes_the_blocks_that_are_there():
    source, network = build_network(tiny(depth=2), 1, 3, seed=1), build_network(tiny(depth=3), 1, 3, seed=2)
    taken = take_what_fits(network, weights_of(source))
    assert taken.fresh
    assert all(name.startswith("trunk.2.") for name in taken.fresh)


@pytest.mark.parametrize("change", [{"spacing": (3.0, 1.0, 0.5)}, {"depth": 1}])
def test_another_voxel_size_and_fewer_blocks_need_nothing_new(change):
    source, network = build_network(tiny(), 1, 3, seed=1), build_network(tiny(**change), 1, 3, seed=2)
    taken = take_what_fits(network, weights_of(source))
    assert not taken.fresh
    assert not taken.adapted
    assert torch.equal(weights_of(network)["trunk.0.scale_1"], weights_of(source)["trunk.0.scale_1"])


def test_a_run_a_fold_or_a_file_is_found_and_several_folds_are_a_question(tmp_path):
    run = write_trained(tmp_path)
    file = run / "fold0" / CHECKPOINT
    assert find_checkpoint(run) == find_checkpoint(run / "fold0") == find_checkpoint(file) == file
    many = write_trained(tmp_path, run="many", folds=("0", "1"))
    with pytest.raises(MvlError, match=r"several trained folds \(fold0, fold1\)"):
        find_checkpoint(many)
    with pytest.raises(MvlError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)


def test_what_does_not_fit_is_listed_and_nothing_at_all_is_refused(tmp_path, caplog):
    caplog.set_level("INFO")
    run = write_trained(tmp_path)
    network = build_network(tiny(), 1, 5)
    start_from(network, run)
    assert "new are decoder.head" in caplog.text
    stored = read_tensors(run / "fold0" / CHECKPOINT, (AVERAGED,))[AVERAGED]
    assert torch.equal(weights_of(network)["norm.weight"], stored["norm.weight"])
    plan = make_plan(make_configuration((16, 16), network=tiny(2, width=12)))
    other = write_trained(tmp_path, plan, run="flat")
    with pytest.raises(MvlError, match="of this network's weights"):
        start_from(build_network(tiny(width=36, stem_channels=(4, 12)), 1, 3), other)
