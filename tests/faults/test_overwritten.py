"""What is read is never written: the files behind the names are compared, for every command that writes.

Each case brings one of the files that a command reads to where the command would write, by a link or by a name, and
the command must refuse, with every file as it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import SimpleITK as sitk
from corpus import PLAN, PREDICT, PREPARED, RAW, RESULTS, TRAIN
from here import changed, run_here, snapshot
from llm_models import VARIANTS, make_model, save_model
from prepared_root import base
from safetensors import safe_open
from trained import write_trained

from mvl_auto import api
from mvl_auto.plans import Plan, read_document

RUN = RESULTS / "3d_fullres"
FOLD = RUN / "fold0"
REFUSED = 2
REASONS = re.compile(
    r"is read|that are read|folder of the (images|network)|would lie in the dataset|not a report|"
    r"copy of .* cannot be written there|not from an earlier demo"
)


@dataclass(frozen=True)
class Overwriting:
    """words: of a command that would overwrite what it reads. lay: makes links, and renames files."""

    words: tuple[str, ...]
    lay: Callable[[Path], object] = lambda root: None


def predict_into(place: str, *more: str) -> tuple[str, ...]:
    return tuple(place if word == "preds" else word for word in PREDICT) + more


def link_all(root: Path, source: str, folder: str, ending: str = "") -> None:
    """A folder of links to the files of another one."""
    (root / folder).mkdir()
    for file in sorted((root / source).iterdir()):
        name = file.name if not ending else file.name.replace(".nii.gz", ending)
        os.symlink(file, root / folder / name)


def links_to_scans(root: Path) -> None:
    """The images are links into the folder of the results."""
    os.rename(root / "imgs", root / "scans")
    link_all(root, "scans", "imgs")


def hard_linked(root: Path) -> None:
    (root / "preds").mkdir()
    for file in (root / "imgs").iterdir():
        os.link(file, root / "preds" / file.name)


def probabilities_lead_to_scans(root: Path) -> None:
    links_to_scans(root)
    (root / "preds").mkdir()
    os.symlink(root / "scans", root / "preds" / "probabilities")


def voxels_elsewhere(root: Path) -> None:
    """MetaImages whose voxels lie in the folder of the results."""
    image = sitk.ReadImage(str(next((root / "imgs").iterdir())))
    shutil.rmtree(root / "imgs")
    (root / "imgs").mkdir()
    sitk.WriteImage(image, str(root / "imgs" / "a.mhd"))
    (root / "preds").mkdir()
    os.rename(root / "imgs" / "a.raw", root / "preds" / "a.raw")
    header = root / "imgs" / "a.mhd"
    header.write_text(header.read_text().replace("= a.raw", "= ../preds/a.raw"))


def labels_called_scores(root: Path) -> None:
    shutil.copy(root / RAW / "dataset.json", root / "masks" / "scores.json")


def predictions_lead_to_scores(root: Path) -> None:
    (root / "out").mkdir()
    file = root / "masks" / "tiny_000.nii"
    image = sitk.ReadImage(str(root / "masks" / "tiny_000.nii.gz"))
    sitk.WriteImage(image, str(file))
    os.rename(file, root / "out" / "scores_wide.csv")
    (root / "masks" / "tiny_000.nii.gz").unlink()
    os.symlink(root / "out" / "scores_wide.csv", file)


def raters_lead_to_scores(root: Path) -> None:
    for rater in ("one", "two"):
        shutil.copytree(root / "masks", root / "raters" / rater)
    (root / "out").mkdir()
    os.link(root / "raters" / "one" / "tiny_000.nii.gz", root / "out" / "raters.csv")


def scores_called_comparison(root: Path) -> None:
    (root / "out").mkdir()
    api.evaluate(root / "masks", root / "masks")
    shutil.copy(root / "masks" / "scores.json", root / "out" / "comparison.json")


def raw_is_prepared(root: Path) -> None:
    shutil.rmtree(root / PREPARED)
    os.symlink(root / RAW, root / PREPARED)


def raw_lies_in_prepared(root: Path) -> None:
    shutil.rmtree(root / PREPARED)
    (root / PREPARED).mkdir()
    for name in ("imagesTr", "labelsTr"):
        os.rename(root / RAW / name, root / PREPARED / name)
        os.symlink(root / PREPARED / name, root / RAW / name)


def run_is_prepared(root: Path) -> None:
    os.symlink(root / PREPARED, root / RESULTS / "x")


def fold_is_the_cache(root: Path) -> None:
    (root / RESULTS / "x").mkdir()
    os.symlink(root / PREPARED / "3d_fullres", root / RESULTS / "x" / "fold0")


def pretraining_is(place: Path, root: Path) -> None:
    (root / RESULTS / "x").mkdir()
    os.symlink(root / place, root / RESULTS / "x" / "pretraining")


def pretraining_is_the_cache(root: Path) -> None:
    pretraining_is(PREPARED / "3d_fullres", root)


def pretraining_is_the_images(root: Path) -> None:
    pretraining_is(Path("imgs"), root)


def only_the_earlier_checkpoint(root: Path) -> None:
    (root / RESULTS / "x" / "fold0").mkdir(parents=True)
    shutil.copy(root / FOLD / "checkpoint.safetensors", root / RESULTS / "x" / "fold0" / "earlier.safetensors")


def a_run_that_kept_cases_apart(root: Path) -> None:
    shutil.rmtree(root / RUN)
    plan = read_document(root / PREPARED / "plans.json", Plan)
    write_trained(root, plan, plan.recommended, validation={"0": ["tiny_000"]})


def audit_leads_to_labels(root: Path) -> None:
    a_run_that_kept_cases_apart(root)
    os.symlink(root / RAW, root / RUN / "audit")


def maps_lead_to_scans(root: Path) -> None:
    links_to_scans(root)
    (root / "maps").mkdir()
    os.rename(root / "scans" / "tiny_000.nii.gz", root / "maps" / "tiny_001_before.nii.gz")
    (root / "imgs" / "tiny_000.nii.gz").unlink()
    os.link(root / "maps" / "tiny_001_before.nii.gz", root / "imgs" / "tiny_000.nii.gz")


def a_model_under_the_name_of_its_block(root: Path) -> None:
    bank = root / "blocks"
    save_model(bank, make_model(**VARIANTS["llama"]))
    assert run_here("block", ["add", f"file:{bank}"], root, root / "elsewhere") == 0
    (card,) = (root / "elsewhere" / "blocks").glob("*.json")
    os.rename(bank / "model.safetensors", bank / f"{card.stem}.safetensors")
    with safe_open(bank / f"{card.stem}.safetensors", framework="np") as stream:
        index = {"weight_map": dict.fromkeys(stream.keys(), f"{card.stem}.safetensors")}
    (bank / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.rmtree(root / "elsewhere")


CASES = {
    "predict: images are links into the output": Overwriting(predict_into("scans", "--overwrite"), links_to_scans),
    "predict: images are hard links": Overwriting(predict_into("preds", "--overwrite"), hard_linked),
    "predict: probabilities": Overwriting(
        predict_into("preds", "--probabilities", "--overwrite"), probabilities_lead_to_scans
    ),
    "predict: the voxels of a MetaImage": Overwriting(predict_into("preds", "--overwrite"), voxels_elsewhere),
    "predict: the run": Overwriting(predict_into(str(RUN), "--overwrite")),
    "evaluate: the names of the labels": Overwriting(
        ("evaluate", "-r", "masks", "-p", "masks", "--dataset-json", "masks/scores.json"), labels_called_scores
    ),
    "evaluate: a prediction": Overwriting(
        ("evaluate", "-r", "masks", "-p", "masks", "-o", "out"), predictions_lead_to_scores
    ),
    "evaluate: a rater": Overwriting(
        ("evaluate", "--raters", "raters", "-p", "masks", "-o", "out"), raters_lead_to_scores
    ),
    "compare: scores": Overwriting(
        ("compare", "a=out/comparison.json", "b=masks", "-o", "out"), scores_called_comparison
    ),
    "doctor: dataset.json": Overwriting(("doctor", "-d", "7", "--json", str(RAW / "dataset.json"))),
    "doctor: an image": Overwriting(
        ("doctor", "-d", "7", "--json", "x.json"),
        lambda root: os.link(root / RAW / "imagesTr" / "tiny_001_0000.nii.gz", root / "x.json"),
    ),
    "doctor: the dataset through a link": Overwriting(
        ("doctor", "-d", "7", "--fix", "x/new"), lambda root: os.symlink(root / RAW, root / "x")
    ),
    "report: the plan": Overwriting(("report", "-d", "7", "-o", str(RUN / "plans.json"))),
    "report: an image": Overwriting(("report", "-d", "7", "-o", str(RAW / "imagesTr" / "tiny_000_0000.nii.gz"))),
    "report: the default place": Overwriting(
        ("report", "-d", "7"),
        lambda root: os.link(root / RAW / "imagesTr" / "tiny_000_0000.nii.gz", root / RUN / "report.html"),
    ),
    "audit: labels": Overwriting(("audit", "-d", "7"), audit_leads_to_labels),
    "explain: an image": Overwriting(("explain", "-i", "imgs", "-o", "maps"), maps_lead_to_scans),
    "block: the model": Overwriting(("block", "add", "file:blocks"), a_model_under_the_name_of_its_block),
    "plan: the dataset is where the plan goes": Overwriting((*PLAN,), raw_is_prepared),
    "plan: images are where the plan goes": Overwriting((*PLAN,), raw_lies_in_prepared),
    "train: the plan": Overwriting((*TRAIN, "-n", "x"), run_is_prepared),
    "train: the cache": Overwriting((*TRAIN, "-n", "x"), fold_is_the_cache),
    "train: the weights to start from": Overwriting(
        (*TRAIN, "-n", "x", "--from", str(RESULTS / "x" / "fold0" / "earlier.safetensors")), only_the_earlier_checkpoint
    ),
    "pretrain: the cache": Overwriting(
        ("pretrain", "-d", "7", "-n", "x", "--steps", "1", "--device", "cpu"), pretraining_is_the_cache
    ),
    "pretrain: the images": Overwriting(
        ("pretrain", "-d", "7", "-n", "x", "--steps", "1", "--device", "cpu", "-i", "imgs"), pretraining_is_the_images
    ),
    "demo: a folder of others": Overwriting(("demo", "--root", str(RAW))),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "root"
    base(root)
    return root


@pytest.fixture
def root(made, tmp_path):
    shutil.copytree(made, tmp_path / "root")
    return tmp_path / "root"


@pytest.mark.parametrize("what", CASES)
def test_what_is_read_is_not_written(root, tmp_path, capsys, what):
    case = CASES[what]
    case.lay(root)
    before = snapshot(tmp_path)
    name, *words = case.words
    code = run_here(name, words, root, root)
    said = capsys.readouterr().err
    assert changed(before, snapshot(tmp_path)) == []
    assert code == REFUSED, said
    assert REASONS.search(said.splitlines()[-1]), said


LOGS = {
    "plan": ((*PLAN,), PREPARED),
    "predict": ((*PREDICT,), Path("preds")),
    "train": ((*TRAIN, "-n", "x", "--workers", "0"), RESULTS / "x" / "fold0"),
}


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["log.txt", ".lock"])
@pytest.mark.parametrize("command", LOGS)
def test_logs_and_locks_are_not_written_through_links(root, tmp_path, capsys, command, name, link):
    words, folder = LOGS[command]
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / name).unlink(missing_ok=True)
    link(precious, root / folder / name)
    before = snapshot(tmp_path)
    assert run_here(words[0], list(words[1:]), root, root) == REFUSED
    assert "is a link" in capsys.readouterr().err.splitlines()[-1]
    assert precious.read_text() == "precious"
    assert changed(before, snapshot(tmp_path)) == []


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_progress_is_not_written_through_links(root, tmp_path, capsys, link):
    precious = tmp_path / "precious"
    fold = root / RESULTS / "x" / "fold0"
    fold.mkdir(parents=True)
    if link is os.link:
        precious.write_text("precious")
    link(precious, fold / "progress.csv")  # the symbolic one leads to a file that does not exist yet
    run_here("train", [*TRAIN[1:], "-n", "x", "--workers", "0"], root, root)
    assert "Traceback" not in capsys.readouterr().err
    assert (precious.read_text() if precious.exists() else "") == ("precious" if link is os.link else "")


def test_a_report_replaces_an_earlier_one_and_nothing_else(root, capsys):
    assert run_here("report", ["-d", "7", "--no-volumes"], root, root) == 0
    assert run_here("report", ["-d", "7", "--no-volumes"], root, root) == 0
    assert "warning" not in capsys.readouterr().err


def test_results_elsewhere_are_written_beside_links(root, tmp_path):
    """The counterpart: what is no danger is done, though images and results are linked here and there."""
    links_to_scans(root)
    os.symlink(tmp_path, root / "through")
    before = snapshot(root / "scans")
    assert run_here("predict", [*predict_into("through/preds")[1:]], root, root) == 0
    assert changed(before, snapshot(root / "scans")) == []
    assert len(list((tmp_path / "preds").glob("*.nii.gz"))) == 2
