"""Folds as jobs of submitit: its local executor runs them; what a job does when its time is over."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("submitit")

from mvl_auto.cli.common import parse_arguments
from mvl_auto.cli.submitting import command_words
from mvl_auto.cli.train import COMMAND, main, words_of
from mvl_auto.errors import MvlError
from mvl_auto.jobs.submit import CommandJob, slurm_parameters, submit
from mvl_auto.runs.checkpoint import read_state

PATIENCE = 240  # s, of a busy machine

SAVES = """
import signal, sys, time
from pathlib import Path
def save(number, frame):
    Path(sys.argv[1]).write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
Path(sys.argv[2]).touch()
time.sleep(60)
"""


def wait_for(path):
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_local_jobs_run_the_commands(tmp_path):
    done = {name: tmp_path / name for name in ("fold0", "fold1")}
    commands = {name: [sys.executable, "-c", f"open({str(path)!r}, 'w')"] for name, path in done.items()}
    jobs = submit(commands, "local", {}, tmp_path / "jobs")
    assert jobs.keys() == done.keys()
    for name, path in done.items():
        wait_for(path)
        assert jobs[name].log.parent == tmp_path / "jobs"


def test_a_job_whose_time_is_over_lets_its_command_save_and_is_queued_again_as_it_was(tmp_path):
    saved, ready = tmp_path / "saved", tmp_path / "ready"
    job = CommandJob([sys.executable, "-c", SAVES, str(saved), str(ready)])
    ends = []

    def run():
        with pytest.raises(subprocess.CalledProcessError) as caught:
            job()
        ends.append(caught.value.returncode)

    running = threading.Thread(target=run)
    running.start()
    wait_for(ready)
    os.kill(job.process, signal.SIGUSR2)  # Slurm sends its warning to every process of the job
    again = job.checkpoint()
    running.join(PATIENCE)
    assert saved.read_text() == "saved"
    assert ends == [143]
    assert pickle.loads(pickle.dumps(again)).function.words == job.words  # noqa: S301  our own


def test_a_command_that_fails_is_a_job_that_fails():
    with pytest.raises(subprocess.CalledProcessError, match="exit status 2"):
        CommandJob([sys.executable, "-c", "raise SystemExit(2)"])()


def test_options_in_the_words_of_sbatch():
    given = {"partition": "gpu", "time": "12h", "memory": "32GiB", "gpus": "2", "cpus": "8", "account": "us"}
    assert slurm_parameters(given) == {
        "partition": "gpu",
        "time": 720,
        "mem": "32768M",
        "gpus_per_node": 2,
        "cpus_per_task": 8,
        "additional_parameters": {"account": "us"},
    }
    with pytest.raises(MvlError, match="--submit-option time=long cannot be understood"):
        slurm_parameters({"time": "long"})


def test_a_job_has_the_arguments_of_the_command_for_its_fold(tmp_path):
    typed = [
        "4",
        "0",
        "1",
        "-n",
        "r",
        "--steps",
        "7",
        "--lr",
        "1e-3",
        "--seed",
        "3",
        "--from",
        "x",
        "--logger",
        "hooks.py:note",
        "--submit",
        "slurm",
    ]
    args = parse_arguments(COMMAND, typed)
    args.root = tmp_path
    again = parse_arguments(COMMAND, words_of(args, args.configuration, "1"))
    assert again.folds == ["1"]
    assert again.root == tmp_path
    assert again.submit is None
    for name in ("dataset", "name", "steps", "time", "lr", "seed", "device", "workers", "batch_size", "network"):
        assert getattr(again, name) == getattr(args, name), name
    assert again.start_from == args.start_from.absolute()
    assert again.logger == f"{Path('hooks.py').absolute()}:note"


def test_several_gpus_train_one_fold_together():
    assert command_words("m", ["x"], "1") == [sys.executable, "-m", "m", "x"]
    assert "--nproc-per-node=2" in command_words("m", ["x"], "2")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--submit", "slurm"], "there is no Slurm here"),
        (["--submit-option", "time=1h"], "--submit-option is for jobs"),
        (["--submit", "local", "-n", "a/b"], "a/b"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_one_line(prepared, capsys, monkeypatch, words, message):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["7", "0", "--root", str(prepared.root), *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_command_sends_a_fold_that_then_is_trained(prepared, capsys):
    words = ["7", "all", "-n", "sent", "--steps", "1", "--workers", "0", "--device", "cpu", "--submit", "local"]
    assert main([*words, "--root", str(prepared.root)]) == 0
    job = capsys.readouterr().out.partition("all: job ")[2].partition(",")[0]
    wait_for(prepared.root / "jobs" / "Dataset007_Tiny" / f"{job}_0_result.pkl")
    assert read_state(prepared.root / "results" / "Dataset007_Tiny" / "sent" / "fold_all").finished
