"""Runs with files as training leaves them, for the tests of reports."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from builders import make_dataset
from trained import make_plan, write_trained

from mvl_auto.datasets import inspect_dataset
from mvl_auto.evaluation import Scoring, evaluate_folders
from mvl_auto.evaluation.summary import as_json
from mvl_auto.files import write_json
from mvl_auto.plans import DatasetRecord, LabelScheme, write_document

PLAIN = ("core", "shell")
HOSTILE = (
    "</script><script>window.hacked=1</script>",
    '<img src=x onerror="window.hacked=2"> \'a\' & "b"\nsecond line',
)
LOG = """\
2026-11-26 01:54:44,402 INFO mvl_auto 0.1.0, Python 3.11.7: /venv/bin/mvl_train 7 0 1 --steps 10
2026-11-26 01:54:50,000 WARNING the disk <b>is</b> nearly full
2026-11-26 01:54:51,000 INFO 10 steps
"""


def write_run(
    root: Path, name: str = "3d_fullres", names: tuple[str, str] = PLAIN, shift: int = 0, cases: int = 6
) -> Path:
    """A finished run of two folds on a dataset of so many cases; returns its folder.

    The predictions are the labels, shifted by a voxel more for each case; that of the last case is empty.
    """
    folder = root / "raw" / "Task007_Tiny"
    if not folder.is_dir():
        make_dataset(root / "raw", cases=cases)
    every = [case.name for case in inspect_dataset(folder)[0].cases]
    labels = LabelScheme(class_values=(0, 1, 2), class_names=("background", *names))
    parts = {"0": every[: len(every) // 2], "1": every[len(every) // 2 :]}
    run = write_trained(root, make_plan(labels=labels), run=name, folds=["0", "1"], validation=parts)
    write_document(
        root / "preprocessed" / "Dataset007_Tiny" / "dataset.json",
        DatasetRecord(dataset="Dataset007_Tiny", folder=str(folder)),
    )
    for fold, part in parts.items():
        _finish_fold(run / f"fold{fold}", folder, part, every, labels, shift)
    return run


def _finish_fold(fold: Path, raw: Path, part: list[str], cases: list[str], labels: LabelScheme, shift: int) -> None:
    truth, predicted = fold / "truth", fold / "validation"
    for place in (truth, predicted):
        place.mkdir()
    for case in part:
        image = sitk.ReadImage(str(raw / "labelsTr" / f"{case}.nii.gz"))
        shutil.copy(raw / "labelsTr" / f"{case}.nii.gz", truth)
        array = sitk.GetArrayFromImage(image)
        number = cases.index(case)
        moved = np.zeros_like(array) if number == len(cases) - 1 else np.roll(array, number + shift, axis=1)
        made = sitk.GetImageFromArray(moved)
        made.CopyInformation(image)
        sitk.WriteImage(made, str(predicted / f"{case}.nii.gz"))
    summary = evaluate_folders(truth, predicted, scoring=Scoring(("dice", "jaccard")), labels=labels, workers=1)
    write_json(fold / "summary.json", as_json(summary))
    shutil.rmtree(truth)
    rows = [f"{step},{step * 2.5},{1 / step},1e-3" for step in range(1, 11)]
    (fold / "progress.csv").write_text("\n".join(["step,seconds,loss,learning_rate", *rows, ""]))
    (fold / "log.txt").write_text(LOG)
