"""The folds of a run: their names as commands take them, and what lies in a fold's folder.

results/<dataset>/<run>/fold0, fold1, ..., fold_all
    checkpoint.safetensors, state.json, log.txt, progress.csv
    validation/     its predictions of the cases that it was not trained on
    summary.json    their scores
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from mvl_auto.errors import MvlError
from mvl_auto.printable import shown

ALL = "all"  # the fold that trains on every case
VALIDATION, SUMMARY = "validation", "summary.json"


def choose_folds(
    wanted: Sequence[str | int],
    there: Collection[str],
    *,
    what: str = "fold",
    file: Path | None = None,
    remedy: str = "Name one of them, as in fold0.",
) -> list[str]:
    """Folds in the order wanted, each once: "0" for 0, "0", "fold0" or "fold_0", "all" for "all" or "fold_all".

    there: the folds to choose from. what, file, remedy: for the message.
    Raises MvlError, listing the folds that are there, for any other.
    """
    chosen = [str(fold).lower().removeprefix("fold").lstrip("_") for fold in wanted]
    for given, fold in zip(wanted, chosen, strict=True):
        if fold not in there:
            raise MvlError(
                f"there is no {what} {shown(str(given))} (there are: {', '.join(there)})", file=file, remedy=remedy
            )
    return list(dict.fromkeys(chosen))


def fold_folder(run: Path, fold: str) -> Path:
    """The folder of a fold, "0" or "all", in the folder of its run."""
    return run / (f"fold_{ALL}" if fold == ALL else f"fold{fold}")


def run_name(wanted: str | None, configuration: str, network: str | None = None) -> str:
    """The name of a run, its folder's: the wanted one, else that of its configuration and of another network."""
    return wanted or "_".join([configuration] + ([network] if network not in (None, "mvl") else []))
