"""A command that is refused leaves nothing behind: no folder, no lock, no log, no changed file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from corpus import EVALUATE, PLAN, PREDICT, PREPARED, RAW, RESULTS, TRAIN
from here import changed, run_here, snapshot
from prepared_root import base
from spoil import changes, cut, nothing, several, writes

RUN = RESULTS / "3d_fullres"
ABLATE = ("ablate", "-d", "7", "--steps", "1", "--device", "cpu")
FOLD = RUN / "fold0"
BEGUN = "3d_fullres"  # the run of the prepared root
ALL = EVALUATE[:-1]  # without --only-common
PRETRAIN = ("pretrain", "-d", "7", "--device", "cpu", "--steps", "1")
NEW = "new/folder"  # of results: neither part exists


@dataclass(frozen=True)
class Refusal:
    """words: of the command that is refused. told: in its message. spoil: changes the root before."""

    words: tuple[str, ...]
    told: str
    spoil: Callable[[Path], object] = nothing


def to(words: list[str], place: str = NEW) -> tuple[str, ...]:
    """A command of the corpus that writes to another folder."""
    return tuple(place if word == "preds" else word for word in words)


def unplanned(root: Path) -> None:
    shutil.rmtree(root / "preprocessed")


def no_voxels(root: Path) -> None:
    unplanned(root)
    for image in (root / RAW / "imagesTr").iterdir():
        image.write_bytes(b"")


def foreign(root: Path) -> None:
    (root / NEW).mkdir(parents=True)
    (root / NEW / "tiny_000.nii.gz").write_bytes(b"by someone else")


def copy_run(root: Path) -> None:
    shutil.copytree(root / RUN, root / RESULTS / "other")


REFUSALS = {
    "plan: labels missing": Refusal(
        (*PLAN,), "label", several(unplanned, changes(RAW / "dataset.json", ["labels"], {}))
    ),
    "plan: no such dataset": Refusal(("plan_and_preprocess", "-d", "99"), "no dataset '99'"),
    "plan: no such source of a block": Refusal(
        ("plan_and_preprocess", "-d", "7", "--llm", "smollm"), "smollm", unplanned
    ),
    "plan: no such device": Refusal((*PLAN, "--device", "cuda:7"), "cuda:7", unplanned),
    "plan: no such configuration": Refusal((*PLAN, "-c", "4d"), "4d", unplanned),
    "plan: no case can be read": Refusal((*PLAN,), "imagesTr", no_voxels),
    "train: no such fold": Refusal(("train", "7", "fold9"), "fold9"),
    "train: a case is not cached": Refusal(
        (*TRAIN, "-n", "x"), "not preprocessed", lambda root: (root / PREPARED / "3d_fullres/tiny_003.json").unlink()
    ),
    "train: no such start": Refusal((*TRAIN, "-n", "x", "--from", "nowhere"), "nowhere"),
    "train: a trunk that is faster": Refusal((*TRAIN, "-n", "x", "--trunk-rate", "2"), "from 0 to 1"),
    "pretrain: no such dataset": Refusal(("pretrain", "-d", "99"), "no planned dataset '99'"),
    "pretrain: no such fold": Refusal((*PRETRAIN, "--without-fold", "9"), "no fold"),
    "pretrain: all folds": Refusal((*PRETRAIN, "--without-fold", "all"), "keeps no case apart"),
    "pretrain: no images": Refusal((*PRETRAIN, "-i", "nowhere"), "nowhere"),
    "pretrain: no steps": Refusal((*PRETRAIN[:-1], "0"), "0"),
    "pretrain: images that cannot be read": Refusal(
        (*PRETRAIN, "-i", "imgs"),
        "none of the 2 images",
        lambda root: [cut(path, 0.3) for path in (root / "imgs").iterdir()],
    ),
    "pretrain: a case is not cached": Refusal(
        (*PRETRAIN,), "not preprocessed", lambda root: (root / PREPARED / "3d_fullres/tiny_003.json").unlink()
    ),
    "pretrain: the cache is damaged": Refusal(
        (*PRETRAIN, "--workers", "0"),
        "tiny_00",
        lambda root: [cut(path, 0.5) for path in (root / PREPARED / "3d_fullres").glob("*.b2nd")],
    ),
    "train: no such block": Refusal((*TRAIN, "-n", "x", "--llm", "file:nowhere"), "nowhere"),
    "train: no first stage": Refusal((*TRAIN, "-n", "x", "--previous", "y"), "first stage"),
    "train: another run's folder": Refusal((*TRAIN, "-n", BEGUN, "--seed", "5"), "other settings"),
    "train: a damaged checkpoint": Refusal(
        (*TRAIN, "-n", BEGUN), "damaged", lambda root: cut(root / FOLD / "checkpoint.safetensors", 0.5)
    ),
    "train: the cache is damaged": Refusal(
        (*TRAIN, "-n", "x", "--workers", "0"),
        "tiny_00",
        lambda root: [cut(path, 0.5) for path in (root / PREPARED / "3d_fullres").glob("*.b2nd")],
    ),
    "predict: no images": Refusal(("predict", "-i", "nowhere", "-o", NEW), "nowhere"),
    "predict: an empty folder": Refusal(
        ("predict", "-i", "empty", "-o", NEW), "empty", lambda root: (root / "empty").mkdir()
    ),
    "predict: a damaged checkpoint": Refusal(
        to(PREDICT), "damaged", lambda root: cut(root / FOLD / "checkpoint.safetensors", 0.99)
    ),
    "predict: another plan": Refusal(to(PREDICT), "plan", changes(RUN / "plans.json", ["memory_budget"], 5 * 10**8)),
    "predict: a stranger's file is there": Refusal(to(PREDICT), "does not list it", foreign),
    "predict: beside the images": Refusal(to(PREDICT, "imgs"), "folder of the images"),
    "predict: into the run": Refusal(to(PREDICT, str(RUN)), "folder of the network"),
    "predict: into the fold": Refusal(to(PREDICT, str(FOLD)), "folder of the network"),
    "evaluate: a missing partner": Refusal((*ALL, "-o", NEW), "no prediction for 3 of 5"),
    "evaluate: a missing partner, no -o": Refusal(ALL, "no prediction for 3 of 5"),
    "evaluate: no references": Refusal(("evaluate", "-r", "nowhere", "-p", "masks", "-o", NEW), "nowhere"),
    "evaluate: no predictions": Refusal(("evaluate", "-r", "masks", "-p", "nowhere"), "nowhere"),
    "evaluate: no such metric": Refusal(("evaluate", "-r", "masks", "-p", "masks", "--metrics", "x", "-o", NEW), "'x'"),
    "evaluate: no such labels": Refusal(
        ("evaluate", "-r", "masks", "-p", "masks", "--dataset-json", "nowhere.json", "-o", NEW), "nowhere.json"
    ),
    "evaluate: a damaged label": Refusal(
        ("evaluate", "-r", "masks", "-p", "masks", "-o", NEW), "tiny_000", writes(Path("masks/tiny_000.nii.gz"), b"x")
    ),
    "evaluate: one rater": Refusal(("evaluate", "--raters", "imgs", "-p", "masks", "-o", NEW), "raters"),
    "doctor: a copy in the dataset": Refusal(("doctor", "-d", "7", "--fix", str(RAW / "fixed")), "cannot be written"),
    "doctor: a copy that is there": Refusal(("doctor", "-d", "7", "--fix", "imgs"), "is there already"),
    "doctor: a report in the copy": Refusal(("doctor", "-d", "7", "--fix", NEW, "--json", f"{NEW}/x.json"), "copy"),
    "doctor: a report in the dataset": Refusal(("doctor", "-d", "7", "--json", str(RAW / "x.json")), "the dataset"),
    "doctor: no description": Refusal(
        ("doctor", "-d", str(RAW), "--fix", NEW, "--json", "x/y.json"), "JSON", writes(RAW / "dataset.json", b"{")
    ),
    "compare: no scores": Refusal(("compare", "imgs", "masks", "-o", NEW), "imgs"),
    "report: no run": Refusal(("report", "imgs", "-o", f"{NEW}/x.html"), "imgs"),
    "report: two runs and no file": Refusal(("report", "-d", "7", "-n", "3d_fullres", "other"), "-o", copy_run),
    "audit: nothing kept apart": Refusal(("audit", "-d", "7"), "no fold that kept cases apart"),
    "audit: no such dataset": Refusal(("audit", "-d", "99"), "99"),
    "explain: no block": Refusal(("explain", "-i", "imgs", "-o", NEW), "no LLM block"),
    "explain: no images": Refusal(("explain", "-i", "nowhere", "-o", NEW), "nowhere"),
    "explain: beside the images": Refusal(("explain", "-i", "imgs", "-o", "imgs"), "folder of the images"),
    "block: no such source": Refusal(("block", "add", "file:nowhere"), "nowhere"),
    "block: no such layer": Refusal(
        ("block", "add", "random:hidden=32,heads=4,kv_heads=2,ffn=64,seed=0", "--layer", "9"), "layer 9"
    ),
    "block: no such name": Refusal(("block", "show", "nothing"), "nothing"),
    "ablate: no such dataset": Refusal(("ablate", "-d", "99"), "99"),
    "ablate: a name that is a path": Refusal(("ablate", "-d", "../.."), "../.."),
    "ablate: no such arm": Refusal((*ABLATE, "--arms", "nothing"), "nothing"),
    "ablate: a plan without a block": Refusal((*ABLATE, "--arms", "vit"), "planned without an LLM block"),
    "ablate: a factor that is no number": Refusal((*ABLATE, "--mapper-search", "nan"), "'nan'"),
    "ablate: a damaged plan": Refusal((*ABLATE,), "plans.json", writes(PREPARED / "plans.json", b"{")),
    "ablate: steps without end": Refusal((*ABLATE, "--steps", "9" * 30), "at most"),
    "demo: a folder of others": Refusal(("demo", "--root", "imgs"), "not from an earlier demo"),
    "an unknown word": Refusal((*PREDICT, "--nothing"), "--nothing"),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "root"
    base(root)
    return root


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refused_command_leaves_nothing_behind(made, tmp_path, capsys, what):
    refusal = REFUSALS[what]
    root = tmp_path / "root"
    shutil.copytree(made, root)
    refusal.spoil(root)
    before = snapshot(tmp_path)
    name, *words = refusal.words
    code = run_here(name, words, root, root)
    said = capsys.readouterr().err
    assert code == 2, said
    assert refusal.told in said.splitlines()[-1]
    assert changed(before, snapshot(tmp_path)) == []


def test_a_plan_that_is_refused_after_all_images_were_read_keeps_what_was_learned_of_them(made, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(made, root)
    unplanned(root)
    before = snapshot(root)
    code = run_here("plan_and_preprocess", ["-d", "7", "--memory", "1MB", *PLAN[3:6]], root, root)
    assert code == 2
    assert "memory" in capsys.readouterr().err.splitlines()[-1]
    new = [name for name in changed(before, snapshot(root)) if not name.startswith(str(PREPARED / ".examined/tiny_00"))]
    assert {Path(name).name for name in new} == {"preprocessed", PREPARED.name, ".examined", ".lock", "log.txt"}
