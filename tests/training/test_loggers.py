"""Loggers: TensorBoard's own reader finds what progress.csv has; a user's function is called, and cannot end a run."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from mvl_auto.cli.train import main
from mvl_auto.errors import MvlError
from mvl_auto.loggers import TensorBoard, logger_of
from mvl_auto.runs import read_curves
from mvl_auto.training import TrainingOptions, train

DOCS = Path(__file__).parents[2] / "docs"
HOOK = """
import json
def note(folder, step, figures):
    with open(folder / "noted.jsonl", "a") as file:
        file.write(json.dumps([step, figures]) + chr(10))
"""


def trained(prepared, name, steps, logger):
    return train(
        prepared.folder,
        "0",
        TrainingOptions(run=name, steps=steps, workers=0, device="cpu", logger=logger),
        results_folder=prepared.root / "results" / "Dataset007_Tiny",
        blocks_folder=prepared.blocks,
    )


def events(folder):
    """name -> [(step, value)], as TensorBoard shows them: purged steps are gone."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder)).Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_has_the_figures_of_progress_csv_and_of_the_validation(prepared):
    result = trained(prepared, "board", 10, TensorBoard())
    shown = {name: dict(pairs) for name, pairs in events(result.folder / "tensorboard").items()}
    curves = read_curves(result.folder / "progress.csv")
    assert shown["loss"] == pytest.approx(dict(zip(curves["step"], curves["loss"], strict=True)), rel=1e-4)
    assert shown["Dice/mean"][10] == pytest.approx(curves["dice"][-1], abs=1e-4)
    summary = json.loads((result.folder / "summary.json").read_text())
    for label, scores in summary["labels"].items():
        assert shown[f"validation/dice/{label}"][10] == pytest.approx(scores["dice"]["mean"], abs=1e-6)


def test_steps_that_are_taken_again_replace_their_events(tmp_path):
    first = TensorBoard()
    for step in (10, 20, 30):
        first(tmp_path, step, {"loss": 1.0})
    again = TensorBoard()
    for step in (20, 30, 40):
        again(tmp_path, step, {"loss": 0.5})
    assert events(tmp_path / "tensorboard")["loss"] == [(10, 1.0), (20, 0.5), (30, 0.5), (40, 0.5)]


def test_a_function_of_a_file_is_called_by_the_command(prepared, tmp_path):
    hook = tmp_path / "hooks.py"
    hook.write_text(HOOK)
    words = ["7", "0", "-n", "noted", "--steps", "2", "--workers", "0", "--device", "cpu", "--logger", f"{hook}:note"]
    assert main([*words, "--root", str(prepared.root)]) == 0
    folder = prepared.root / "results" / "Dataset007_Tiny" / "noted" / "fold0"
    lines = [json.loads(line) for line in (folder / "noted.jsonl").read_text().splitlines()]
    assert [step for step, _ in lines] == [2, 2]
    assert {"loss", "learning_rate", "share_waited", "steps_per_second"} <= lines[0][1].keys()
    assert any(name.startswith("validation/dice/") for name in lines[1][1])


def test_a_logger_that_fails_is_left_out_with_its_reason_and_the_training_goes_on(prepared, caplog):
    calls = []

    def fails(folder, step, figures):
        calls.append(step)
        raise ConnectionError("no server")

    with caplog.at_level(logging.WARNING, logger="mvl_auto"):
        assert trained(prepared, "fails", 20, logger_of(fails)).steps == 20
    assert calls == [10]
    assert "the logger failed at step 10 and is called no more: ConnectionError: no server" in caplog.text


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("board", "board is no logger"),
        ("no_such_module_of_ours:log", "no_such_module_of_ours cannot be imported: ModuleNotFoundError"),
        ("nowhere/hooks.py:log", "nowhere/hooks.py is no file"),
        ("json:no_such", "json has no function no_such"),
        ("json:not a name", "is no logger"),
    ],
)
def test_a_logger_that_is_not_there_is_refused(word, message):
    with pytest.raises(MvlError, match=re.escape(message)):
        logger_of(word)


def test_a_file_that_cannot_be_imported_is_named_with_its_error(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(MvlError, match=r"broken\.py cannot be imported: ZeroDivisionError"):
        logger_of(f"{tmp_path / 'broken.py'}:log")


@pytest.mark.parametrize(("package", "called"), [("mlflow", "log_metrics"), ("wandb", "log")])
def test_the_functions_of_the_documentation_hand_on_figure_and_step(tmp_path, monkeypatch, package, called):
    """Neither service is needed: a package with the one function that is called stands in for it."""
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "loggers.md").read_text(encoding="utf-8"), re.S)
    (code,) = [text for text in examples if package in text]
    (tmp_path / f"{package}.py").write_text(
        "calls = []\n"
        f"def {called}(figures, step): calls.append((dict(figures), step))\n"
        "def start_run(**named): pass\ninit = start_run\n"
    )
    (tmp_path / "hooks.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    hook = logger_of(f"{tmp_path / 'hooks.py'}:to_{package}")
    hook.logger(tmp_path, 10, {"loss": 0.5})
    assert __import__(package).calls == [({"loss": 0.5}, 10)]
