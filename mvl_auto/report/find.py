"""Which runs a report is about: folders, or words as for the other commands. Unfinished and damaged ones count too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.paths import find_results
from mvl_auto.runs.run import short_name, subfolders
from mvl_auto.text import list_text


def named_folders(words: Sequence[str]) -> dict[str, Path]:
    """Name -> folder of "folder" or "name=folder"; a folder without a name is called as itself.

    Raises MvlError when a folder does not exist or two runs have one name.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, _, rest = word.partition("=")
        whole = Path(word).expanduser()
        folder = whole if whole.exists() or not rest else Path(rest).expanduser()
        name = folder.absolute().name if folder == whole else name
        if not folder.is_dir():
            raise MvlError("is not a folder", file=folder, remedy="Name the folder of a run: results/DATASET/RUN.")
        if name in found:
            raise MvlError(f"two runs are called '{name}'", remedy="Give each a name: baseline=FOLDER llm=FOLDER.")
        found[name] = folder
    return found


def find_run_folders(root: Path, dataset: str | int | Path | None, names: Sequence[str]) -> dict[str, Path]:
    """Name -> folder of the runs under <root>/results: those called so, or the only one there.

    Raises MvlError when there is none, or one is missing, or several are there and none was named.
    """
    there = {
        (folder.name, each.name): each
        for folder in find_results(dataset, root)
        for each in subfolders(folder)
        if any(entry.name.startswith("fold") for entry in subfolders(each))
    }
    words = list_text([f"-d {short_name(of)} -n {name}" for of, name in there], most=8)
    if not there:
        raise MvlError("holds no run", file=root / "results", remedy="Train one with mvl_train.")
    if not names:
        if len(there) > 1:
            raise MvlError(f"holds {len(there)} runs", file=root / "results", remedy=f"Choose with {words}.")
        return {name: folder for (_, name), folder in there.items()}
    found = {}
    for name in names:
        matches = [folder for (_, each), folder in there.items() if each == name]
        if len(matches) != 1:
            what = "no run is" if not matches else "several runs are"
            raise MvlError(f"{what} called '{name}'", file=root / "results", remedy=f"There are: {words}.")
        found[name] = matches[0]
    return found
