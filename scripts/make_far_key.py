"""A 2D dataset where only far context tells the class: made from the slices of a dataset of MR volumes.

python scripts/make_far_key.py Task04_Hippocampus raw/Dataset204_FarKey [--cases 60]

Each image has two slices with nothing between them: at the right end the slice to segment, that of a case's largest
label area, at the left end a key: the same slice again, either as it is or with its pixels shuffled. The organ is
"near_key" where the key is a picture and "near_noise" where it is shuffled, so no neighbourhood of the organ tells
which. Shuffling keeps mean and standard deviation of the image; mirrors, small turns and noise leave pictures pictures.
The task is made and means nothing in medicine: it asks a network to look far.

A normalization over the whole image may tell the key too, without a trunk: docs/evidence.md has what was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEIGHT, PANEL, GAP = 48, 48, 96  # pixels; between the two slices lies GAP
CLASSES = {"background": 0, "near_key": 1, "near_noise": 2}
BRIGHTEST = 99.5  # percentile of a slice that becomes white


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", type=Path, help="folder with imagesTr and labelsTr, .nii.gz")
    parser.add_argument("output", type=Path, help="the new dataset's folder, which must not exist")
    parser.add_argument("--cases", type=int, default=60)
    args = parser.parse_args()
    files = sorted((args.volumes / "imagesTr").glob("*.nii.gz"))[: args.cases]
    write_dataset(files, args.output)
    return 0


def write_dataset(files: list[Path], folder: Path) -> None:
    """One image for each volume, classes in turn; labels lie in labelsTr beside imagesTr."""
    import nibabel
    from PIL import Image

    images, labels = folder / "imagesTr", folder / "labelsTr"
    images.mkdir(parents=True)
    labels.mkdir()
    for number, file in enumerate(files):
        image, label = (
            np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
            for path in (file, file.parents[1] / "labelsTr" / file.name)
        )
        picture, classes = compose(*largest_slice(image, label), shuffled=number % 2 == 1, seed=number)
        name = f"case_{number:03d}"
        Image.fromarray(picture).save(images / f"{name}_0000.png")
        Image.fromarray(classes).save(labels / f"{name}.png")
    content = {
        "channel_names": {"0": "MR"},
        "labels": CLASSES,
        "numTraining": len(files),
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=2))


def largest_slice(
    image: NDArray[np.generic], label: NDArray[np.generic]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The slice across the first axis with the largest label area, as grey values 0 to 255, and its mask."""
    place = int((label > 0).sum(axis=(1, 2)).argmax())
    cut = image[place].astype(float)
    grey = np.clip(cut / max(float(np.percentile(cut, BRIGHTEST)), 1e-6), 0, 1)
    return (255 * grey).astype(np.uint8), label[place] > 0


def compose(
    grey: NDArray[np.uint8], mask: NDArray[np.bool_], shuffled: bool, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and classes, (HEIGHT, 2 * PANEL + GAP): the key at the left end, the slice to segment at the right end."""
    key = np.random.default_rng(seed).permutation(grey.ravel()).reshape(grey.shape) if shuffled else grey
    picture = np.zeros((HEIGHT, 2 * PANEL + GAP), np.uint8)
    classes = np.zeros_like(picture)
    height, width = (min(side, most) for side, most in zip(grey.shape, (HEIGHT, PANEL), strict=True))
    picture[:height, :width] = key[:height, :width]
    picture[:height, -width:] = grey[:height, :width]
    label = CLASSES["near_noise" if shuffled else "near_key"]
    classes[:height, -width:] = label * mask[:height, :width]
    return picture, classes


if __name__ == "__main__":
    sys.exit(main())
