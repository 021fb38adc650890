"""Where things lie: one root folder, and in it raw data, preprocessed data, results and blocks.

    <root>/raw/Dataset004_Hippocampus   or   <root>/raw/Task04_Hippocampus
    <root>/preprocessed/Dataset004_Hippocampus
    <root>/results/Dataset004_Hippocampus/<run>/fold0
    <root>/blocks

A dataset is chosen by number (4), by name (Hippocampus, Dataset004_Hippocampus, Task04_Hippocampus)
or by path. Inside the root, its folders always carry the `Dataset004_Hippocampus` form.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.files import check_text, entries
from mvl_auto.names import checked_name
from mvl_auto.printable import shown
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
    return absolute_path(chosen)


def absolute_path(path: Path | str) -> Path:
    """`path` with ~ replaced, from the working folder on.

    Raises MvlError when the home folder is unknown (no $HOME and no entry in the list of users), the working folder
    has been deleted, no file can have such a name (NUL), or it is not text, which plans and scores could not name.
    """
    try:
        os.fsencode(path)
        if "\0" in str(path):
            raise ValueError("it contains NUL")
        whole = Path(path).expanduser().absolute()
        check_text(str(whole))
        return whole.resolve() if ".." in whole.parts else whole
    except RuntimeError as error:
        raise MvlError(
            f"the home folder is unknown, so {path} cannot be found", remedy=f"Set --root, ${ROOT_VARIABLE} or $HOME."
        ) from error
    except FileNotFoundError as error:
        raise _gone() from error
    except ValueError as error:  # UnicodeEncodeError, NUL
        raise MvlError(f"{shown(str(path))} is no path", remedy="Give the path of a folder.") from error


def check_working_folder() -> None:
    """Raise MvlError where it has been deleted: Intel's libraries of PyTorch are not found from there."""
    try:
        os.getcwd()
    except OSError as error:
        raise _gone() from error


def _gone() -> MvlError:
    return MvlError("the working folder has been deleted", remedy="Change to a folder that exists.")


def raw_folders(root: Path) -> list[Path]:
    """Where raw datasets are looked for: <root>/raw, then $nnUNet_raw where that is set."""
    folders = [root / "raw"]
    if nnunet := os.environ.get(NNUNET_RAW_VARIABLE):
        folders.append(absolute_path(nnunet))
    return folders


def preprocessed_folder(root: Path, dataset_id: str) -> Path:
    """Raises MvlError where the name of the dataset cannot be that of a folder."""
    return root / "preprocessed" / checked_name(dataset_id, "dataset")


def results_folder(root: Path, dataset_id: str) -> Path:
    """Raises MvlError where the name of the dataset cannot be that of a folder."""
    return root / "results" / checked_name(dataset_id, "dataset")


def blocks_folder(root: Path) -> Path:
    return root / "blocks"


def dataset_id(folder: Path) -> str:
    """`Dataset004_Hippocampus` for .../Task04_Hippocampus; other folder names stay as they are."""
    name = absolute_path(folder).name
    if match := FOLDER_NAME.match(name):
        return f"Dataset{int(match['number']):03d}_{match['name']}"
    return name


def find_raw_dataset(dataset: str | int | Path, root: Path) -> Path:
    """The folder of a raw dataset, by number, name or path.

    Raises MvlError, listing the datasets there are, when none or several match.
    """
    path = absolute_path(_not_empty(dataset))
    if os.path.isfile(path / "dataset.json") or (os.path.isdir(path) and len(Path(str(dataset)).parts) > 1):
        return path
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
    wanted = dataset_id(Path(str(dataset))) if os.sep in _not_empty(dataset) else dataset
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
    wanted = dataset_id(Path(str(dataset))) if os.sep in _not_empty(dataset) else dataset
    remedy = f"Run mvl_train {dataset} fold0 first."
    return [_the_one(wanted, there, where=str(root / "results"), what="no trained dataset", remedy=remedy)]


def _not_empty(dataset: str | int | Path) -> str:
    text = str(dataset)
    if not text.strip():
        raise MvlError("the dataset's name is empty", remedy="Give its number, its name or the path of its folder.")
    return text


def _the_one(dataset: str | int | Path, there: list[Path], where: str, remedy: str, what: str = "no dataset") -> Path:
    matches = [entry for entry in there if _matches(dataset, entry)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise MvlError(
            f"'{dataset}' matches several datasets: {_names(matches)}", remedy="Give the path of one of them."
        )
    found = f"there are: {_names(there)}" if there else "there is none at all"
    raise MvlError(f"{what} '{dataset}' in {where} ({found})", remedy=remedy)


def _matches(dataset: str | int | Path, folder: Path) -> bool:
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
