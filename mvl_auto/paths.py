"""Where things lie: one root folder, and in it raw data, preprocessed data, results and blocks.

    <root>/raw/Dataset004_Hippocampus   or   <root>/raw/Task04_Hippocampus
    <root>/preprocessed/Dataset004_Hippocampus
    <root>/results/Dataset004_Hippocampus/<run>/fold0
    <root>/blocks

A dataset is called by number (4), by name (Hippocampus, Dataset004_Hippocampus, Task04_Hippocampus)
or by path. Inside the root, its folders always carry the `Dataset004_Hippocampus` form.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.files import entries
from mvl_auto.text import list_text

ROOT_VARIABLE = "MVL_ROOT"
NNUNET_RAW_VARIABLE = "nnUNet_raw"
DEFAULT_ROOT = "~/mvl_auto"

LISTED = 8  # datasets that a message names
INSTALLED_DOCS = Path(__file__).parent / "docs"  # setup.py puts them there; an editable install reads the repository's

FOLDER_NAME = re.compile(r"^(?:Dataset|Task)(?P<number>\d{1,4})_(?P<name>.+)$")


def guide(name: str) -> Path:
    """A page of the documentation as it is installed, for messages: `guide("dataset.md")`."""
    return (INSTALLED_DOCS if INSTALLED_DOCS.is_dir() else INSTALLED_DOCS.parents[1] / "docs") / name


def find_root(root: Path | str | None = None) -> Path:
    """The root folder: the argument, else $MVL_ROOT, else ~/mvl_auto. It need not exist yet."""
    chosen = root or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT
    return Path(chosen).expanduser().absolute()


def raw_folders(root: Path) -> list[Path]:
    """Where raw datasets are looked for: <root>/raw, then $nnUNet_raw where that is set."""
    folders = [root / "raw"]
    if nnunet := os.environ.get(NNUNET_RAW_VARIABLE):
        folders.append(Path(nnunet).expanduser().absolute())
    return folders


def preprocessed_folder(root: Path, dataset_id: str) -> Path:
    return root / "preprocessed" / dataset_id


def results_folder(root: Path, dataset_id: str) -> Path:
    return root / "results" / dataset_id


def blocks_folder(root: Path) -> Path:
    return root / "blocks"


def dataset_id(folder: Path) -> str:
    """`Dataset004_Hippocampus` for .../Task04_Hippocampus; other folder names stay as they are."""
    name = Path(folder).absolute().name
    if match := FOLDER_NAME.match(name):
        return f"Dataset{int(match['number']):03d}_{match['name']}"
    return name


def find_raw_dataset(dataset: str | int | Path, root: Path) -> Path:
    """The folder of a raw dataset, by number, name or path.

    Raises MvlError, listing the datasets there are, when none or several match.
    """
    path = Path(str(dataset)).expanduser()
    if os.path.isfile(path / "dataset.json") or (os.path.isdir(path) and len(path.parts) > 1):
        return path.absolute()
    folders = raw_folders(root)
    there = [entry for folder in folders for entry in _subfolders(folder)]
    return _the_one(
        dataset,
        there,
        where=" or ".join(map(str, folders)),
        remedy=f"Put the dataset there (Task04_Name or Dataset004_Name), or give its path, "
        f"or set --root or ${ROOT_VARIABLE}.",
    )


def find_preprocessed_dataset(dataset: str | int | Path, root: Path) -> Path:
    """The folder of a planned dataset under <root>/preprocessed, by number, name or path.

    Raises MvlError when it was not planned yet.
    """
    wanted = dataset_id(Path(str(dataset))) if os.sep in str(dataset) else dataset
    there = [entry for entry in _subfolders(root / "preprocessed") if (entry / "plans.json").is_file()]
    return _the_one(
        wanted,
        there,
        where=str(root / "preprocessed"),
        what="no planned dataset",
        remedy=f"Run mvl_plan_and_preprocess -d {dataset} first.",
    )


def find_results(dataset: str | int | Path | None, root: Path) -> list[Path]:
    """The folder of a dataset under <root>/results, by number, name or path; of all datasets for None.

    Raises MvlError when nothing was trained on it yet.
    """
    there = [entry for entry in _subfolders(root / "results") if any(entry.glob("*/fold*"))]
    if dataset is None:
        return there
    wanted = dataset_id(Path(str(dataset))) if os.sep in str(dataset) else dataset
    remedy = f"Run mvl_train {dataset} fold0 first."
    return [_the_one(wanted, there, where=str(root / "results"), what="no trained dataset", remedy=remedy)]


def _the_one(dataset: str | int | Path, there: list[Path], where: str, remedy: str, what: str = "no dataset") -> Path:
    matches = [entry for entry in there if _answers_to(dataset, entry)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise MvlError(
            f"several datasets answer to '{dataset}': {_names(matches)}", remedy="Give the path of one of them."
        )
    found = f"there are: {_names(there)}" if there else "there is none at all"
    raise MvlError(f"{what} '{dataset}' in {where} ({found})", remedy=remedy)


def _answers_to(dataset: str | int | Path, folder: Path) -> bool:
    wanted = str(dataset)
    match = FOLDER_NAME.match(folder.name)
    if wanted.isdigit():
        return match is not None and int(match["number"]) == int(wanted)
    same_folder = dataset_id(folder).lower() == dataset_id(Path(wanted)).lower()
    return same_folder or (match is not None and match["name"].lower() == wanted.lower())


def _names(folders: Iterable[Path]) -> str:
    return list_text(sorted(entry.name for entry in folders), LISTED)


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [entry for entry in entries(folder) if entry.is_dir() and not entry.name.startswith(".")]
