"""Segment images with a trained network, and look at what its LLM block does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.arguments import Folds, list_of_folds
from mvl_auto.errors import MvlError
from mvl_auto.files import is_there
from mvl_auto.paths import (
    blocks_folder,
    find_root,
)
from mvl_auto.progress import Progress, silent

if TYPE_CHECKING:
    from mvl_auto.inference import PredictionReport


def predict(
    input: Path | str,
    output: Path | str,
    *,
    root: Path | str | None = None,
    dataset: str | int | Path | None = None,
    configuration: str | None = None,
    run: str | None = None,
    folds: Folds | None = None,
    device: str = "auto",
    mirror: bool = True,
    step_size: float = 0.5,
    overwrite: bool = False,
    probabilities: bool = False,
    color_table: bool = False,
    volumes: bool = False,
    progress: Progress = silent,
) -> PredictionReport:
    """Segment an image, or every image of a folder, by the trained networks of a run, on the images' own grids.

    dataset, configuration, run: which run, where the root has several; folds: which of its networks (default: all
    that are finished). mirror: average over mirrored versions. step_size: distance from one window to the next, as a
    share of the window. overwrite: predict again where a prediction exists. probabilities: write them too.
    color_table: write the labels' names and colours for ITK-SNAP and 3D Slicer. volumes: write volumes.csv, the volume
    (ml) and mean intensities of every label in every case.
    Raises MvlError for what the user can mend; a single image that fails is in the report.
    """
    from mvl_auto.runs import find_trained

    root = find_root(root)
    if not is_there(Path(input)):
        raise MvlError("does not exist", file=input, remedy="Give a folder of images, or one image.")
    trained = find_trained(root, dataset, configuration, run, None if folds is None else list_of_folds(folds))
    from mvl_auto import inference  # torch, after all that can be refused without it
    from mvl_auto.inference.label_files import write_color_tables
    from mvl_auto.inference.volumes import find_pairs, write_volumes

    input, output = Path(input), Path(output)
    report = inference.predict_folder(
        input,
        output,
        trained,
        blocks_folder(root),
        inference.PredictionSettings(device, mirror, step_size, probabilities),
        overwrite=overwrite,
        progress=progress,
    )
    if color_table:
        write_color_tables(output, trained.plan.labels)
    if volumes:
        there = find_pairs(input, output, [*report.done, *report.skipped], trained.plan)
        write_volumes(there, output, trained.plan, progress)
    return report


def explain(
    input: Path | str,
    output: Path | str,
    *,
    root: Path | str | None = None,
    dataset: str | int | Path | None = None,
    configuration: str | None = None,
    run: str | None = None,
    fold: str | int | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> list[Path]:
    """Maps of what the LLM block does to an image, or to every image of a folder; returns the files written.

    dataset, configuration, run, fold: which trained network (default: the only one, its first fold).
    Raises MvlError for what the user can mend.
    """
    from mvl_auto.runs import find_trained

    root = find_root(root)
    if not is_there(Path(input)):
        raise MvlError("does not exist", file=input, remedy="Give a folder of images, or one image.")
    trained = find_trained(root, dataset, configuration, run, None if fold is None else [fold])
    from mvl_auto.inference.explain import explain_folder  # torch, after all that can be refused without it

    return explain_folder(Path(input), Path(output), trained, blocks_folder(root), device=device, progress=progress)


def free_looks(
    input: Path | str,
    references: Path | str,
    *,
    root: Path | str | None = None,
    dataset: str | int | Path | None = None,
    configuration: str | None = None,
    run: str | None = None,
    fold: str | int | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> dict[str, float | None]:
    """Mean Dice of a trained network as it is, without its LLM block, without its trunk: changed at prediction only.

    input: a folder of images; references: of label files with the names of the images. dataset, configuration, run,
    fold: as in `explain`. Nothing is written. None: no image has a label.
    Raises MvlError for what the user can mend.
    """
    from mvl_auto.runs import find_trained

    root = find_root(root)
    if not is_there(Path(input)):
        raise MvlError("does not exist", file=input, remedy="Give a folder of images, or one image.")
    found = find_trained(root, dataset, configuration, run, None if fold is None else [fold])
    from mvl_auto.ablation.free_looks import free_dice, with_references
    from mvl_auto.network.device import choose_device
    from mvl_auto.runs import load_trained

    if found.previous is not None:
        raise MvlError(f"{found.configuration.name} has a first stage", remedy="Choose another run with -c or -n.")
    cases = with_references(Path(input), Path(references), len(found.plan.channels))
    trained = load_trained(found.folds[0][0], blocks_folder(root))
    return free_dice(trained, cases, str(choose_device(device)), progress)
