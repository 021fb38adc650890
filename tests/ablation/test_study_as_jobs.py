"""A study whose runs are jobs: the search first, each run once, and the same records as from one process."""

from __future__ import annotations

import time

import pytest

from mvl_auto.ablation.options import AblationOptions
from mvl_auto.ablation.record import RECORDS, Length
from mvl_auto.api.ablation import ablate, do_one, runs_to_do
from mvl_auto.cli.ablate import COMMAND, main, words_of
from mvl_auto.cli.common import parse_arguments
from mvl_auto.errors import MvlError

PATIENCE = 240  # s, of a busy machine


def options(output, **changes) -> AblationOptions:
    return AblationOptions(**({"arms": ("vit", "mlp"), "length": Length(steps=2), "output": output} | changes))


def test_runs_that_are_done_one_by_one_are_those_of_one_command(root, tmp_path):
    alone, together = options(tmp_path / "alone"), options(tmp_path / "together")
    names = runs_to_do(7, alone, root=root)
    assert names == ["vit-100-fold0-seed0", "mlp-100-fold0-seed0"]
    one = do_one(7, alone, names[1], root=root)
    assert runs_to_do(7, alone, root=root) == names[:1]
    assert do_one(7, alone, names[1], root=root) == one, "a finished run is only read"
    do_one(7, alone, names[0], root=root)
    assert runs_to_do(7, alone, root=root) == []
    for first, second in zip(ablate(7, alone, root=root), ablate(7, together, root=root), strict=True):
        for name in ("name", "scores", "initial_hash", "batches_hash", "steps", "rates"):
            assert getattr(first, name) == getattr(second, name), name


def test_the_search_of_rates_comes_first_and_decides_the_rates_of_the_runs(root, tmp_path):
    study = options(tmp_path / "study", arms=("vit",), learning_rates=(1e-3, 3e-3), search_steps=1)
    searches = runs_to_do(7, study, root=root)
    assert searches == ["vit-lr0.001-mappers1", "vit-lr0.003-mappers1"]
    with pytest.raises(MvlError, match="there is no run vit-"):
        do_one(7, study, "vit-100-fold0-seed0", root=root)
    tried = [do_one(7, study, name, root=root) for name in searches]
    (name,) = runs_to_do(7, study, root=root)
    best = max(tried, key=lambda record: record.mean_dice)
    assert do_one(7, study, name, root=root).rates == best.rates


def test_a_job_has_the_arguments_of_the_study(tmp_path):
    typed = [
        *("-d", "4", "--arms", "vit", "mlp", "--folds", "0", "1", "--seeds", "2", "--first-seed", "3", "--steps", "7"),
        *("--fraction", "0.1", "1.0", "--lr", "1e-3", "--lr-search", "1e-3", "2e-3", "--mapper-search", "1", "10"),
        *("--search-steps", "5", "-o", "study", "--keep", "--submit", "slurm"),
    ]
    args = parse_arguments(COMMAND, typed)
    args.root = tmp_path
    again = parse_arguments(COMMAND, words_of(args))
    assert again.output == args.output.absolute()
    assert again.submit is None
    for name, value in vars(args).items():
        if name not in ("output", "submit"):
            assert getattr(again, name) == value, name


def test_the_command_sends_what_is_left_and_compares_when_nothing_is(root, tmp_path, capsys):
    pytest.importorskip("submitit")
    study = tmp_path / "study"
    words = ["-d", "7", "--arms", "vit", "--steps", "1", "-o", str(study), "--device", "cpu", "--root", str(root)]
    assert main([*words, "--submit", "local"]) == 0
    before, _, rest = capsys.readouterr().out.partition(": job ")
    name = before.splitlines()[-1]
    end = time.monotonic() + PATIENCE
    while not (study / "jobs" / f"{rest.partition(',')[0]}_0_result.pkl").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert [file.stem for file in (study / RECORDS).iterdir()] == [name]
    assert main([*words, "--submit", "local"]) == 0
    assert "mean Dice" in capsys.readouterr().out
    assert (study / "evidence.html").exists()


def test_two_ways_to_do_the_runs_are_refused(root, tmp_path, capsys):
    words = ["-d", "7", "-o", str(tmp_path / "study"), "--root", str(root)]
    assert main([*words, "--submit", "local", "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert "--submit and --scheduler are two ways" in capsys.readouterr().err
    assert main([*words, "--submit-option", "time=1h"]) == 2
    assert "--submit-option is for jobs" in capsys.readouterr().err
