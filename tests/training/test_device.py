"""Which device a process takes, and what is refused; the GPUs that torch sees are set, as there are none here."""

from __future__ import annotations

import pytest
import torch

from mvl_auto.cli.train import main
from mvl_auto.errors import MvlError
from mvl_auto.network.device import choose_device
from mvl_auto.ranks import SINGLE, Rank, rank_here


def see(monkeypatch, gpus: int, apple: bool = False):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)


@pytest.mark.parametrize(
    ("name", "gpus", "apple", "expected"),
    [
        ("auto", 0, False, "cpu"),
        ("auto", 1, False, "cuda"),
        ("auto", 0, True, "cpu"),
        ("cpu", 1, False, "cpu"),
        ("cuda:1", 2, False, "cuda:1"),
        ("mps", 0, True, "mps"),
    ],
)
def test_a_process_alone_takes_the_device_it_is_given(monkeypatch, name, gpus, apple, expected):
    see(monkeypatch, gpus, apple)
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("cuda", 0, "device cuda was asked for, torch sees 0 GPUs. Use --device cpu."),
        ("cuda:2", 2, "device cuda:2 was asked for, torch sees 2 GPUs. Use --device cuda."),
        ("mps", 2, "device mps was asked for, torch sees no Apple GPU. Use --device cpu."),
        ("meta", 2, "'meta' is no device. Use auto, cpu, cuda, cuda:1 or mps."),
    ],
)
def test_a_device_that_is_not_there_is_refused_in_one_line(monkeypatch, name, gpus, message):
    see(monkeypatch, gpus)
    with pytest.raises(MvlError) as caught:
        choose_device(name)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_of_several_processes_takes_a_gpu_of_its_own(monkeypatch, name):
    see(monkeypatch, 2)
    ranks = [Rank(number, 4, number % 2, 2) for number in range(4)]
    assert [choose_device(name, rank) for rank in ranks] == [torch.device("cuda", n) for n in (0, 1, 0, 1)]


@pytest.mark.parametrize(
    ("name", "gpus", "apple", "message"),
    [
        ("cuda:0", 2, False, "2 processes cannot share cuda:0"),
        ("auto", 1, False, "2 processes were started on a machine where torch sees 1 GPU"),
        ("mps", 0, True, "several processes cannot train on mps"),
    ],
)
def test_what_several_processes_cannot_share_is_refused(monkeypatch, name, gpus, apple, message):
    see(monkeypatch, gpus, apple)
    with pytest.raises(MvlError, match=message):
        choose_device(name, Rank(1, 2, 1, 2))


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps"])
def test_the_command_refuses_a_device_that_is_not_there(monkeypatch, capsys, prepared, name):
    see(monkeypatch, 0)
    assert main(["7", "fold0", "-n", "refused", "--device", name, "--root", str(prepared.root)]) == 2
    assert f"device {name} was asked for" in capsys.readouterr().err.splitlines()[-1]
    assert not (prepared.root / "results" / "Dataset007_Tiny" / "refused").exists()


def test_the_launcher_says_which_process_this_is():
    said = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert rank_here(said | {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}) == Rank(5, 8, 1, 4)
    assert rank_here(said) == Rank(5, 8, 5, 8)
    assert rank_here({"RANK": "5", "WORLD_SIZE": "8"}) == SINGLE  # a scheduler's words, no training's


@pytest.mark.parametrize("wrong", [{"RANK": "8"}, {"RANK": "x"}, {"LOCAL_RANK": "4", "LOCAL_WORLD_SIZE": "4"}])
def test_a_launcher_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(MvlError, match="Start with torchrun"):
        rank_here({"RANK": "0", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "1"} | wrong)
