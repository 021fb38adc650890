"""A 2D dataset where only far context tells the class: made from the slices of a dataset of MR volumes.

python scripts/make_far_key.py Task04_Hippocampus raw/Dataset204_FarKey [--volumes 100]

Each image has four panels in its corners and nothing between them. Below lie two objects to segment: the slice of a
volume with the largest label area, and its mirror image. Above lie two keys, both cut from the same slice: one as it is
(a picture), one with its pixels shuffled (noise). An object is "near_picture" where the key above it, the nearer one,
is the picture, else "near_noise". The keys have labels of their own, so that a network learns to tell them apart from
what lies nearby, and only which of them is near an object has to be learned from afar. Every volume gives two images,
which differ in nothing but that the keys have changed places, and so the classes of both objects. groups.csv keeps the
two in one fold.

So the pixels within GAP of an object do not tell its class, nor do the pixels and textures that an image has. GAP is
more than the field of view of the planned network's convolutions without its trunk (68 pixels to each side). Such a
network learns the task all the same (docs/experiments.md): its group norms take their statistics over the whole patch,
and the position code lets them carry which key is on the left. So the dataset asks a network to look far, but does not
show that its trunk does. The task is made and means nothing in medicine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PANEL, GAP = 32, 80  # pixels: side of a panel, between panels
SIDE = 2 * PANEL + GAP
CLASSES = {"background": 0, "near_picture": 1, "near_noise": 2, "picture": 3, "noise": 4}
BRIGHTEST = 99.5  # percentile of a slice that becomes white
NEAR, FAR = slice(PANEL), slice(PANEL + GAP, SIDE)  # top or left, bottom or right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder with imagesTr and labelsTr, .nii.gz")
    parser.add_argument("output", type=Path, help="the new dataset's folder, which must not exist")
    parser.add_argument("--volumes", type=int, default=100, help="how many (default: 100)")
    args = parser.parse_args()
    files = sorted((args.dataset / "imagesTr").glob("*.nii.gz"))[: args.volumes]
    write_dataset(files, args.output)
    return 0


def write_dataset(files: list[Path], folder: Path) -> None:
    """Two images for each volume; labels lie in labelsTr beside imagesTr."""
    import nibabel
    from PIL import Image

    images, labels = folder / "imagesTr", folder / "labelsTr"
    images.mkdir(parents=True)
    labels.mkdir()
    groups = ["case,group"]
    for number, file in enumerate(files):
        image, label = (
            np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
            for path in (file, file.parents[1] / "labelsTr" / file.name)
        )
        grey, mask = cut_panel(*largest_slice(image, label))
        for picture_left in (True, False):
            picture, classes = compose(grey, mask, picture_left, seed=number)
            name = f"case_{number:03d}_{'left' if picture_left else 'right'}"
            groups.append(f"{name},volume_{number:03d}")
            Image.fromarray(picture).save(images / f"{name}_0000.png")
            Image.fromarray(classes).save(labels / f"{name}.png")
    content = {
        "channel_names": {"0": "MR"},
        "labels": CLASSES,
        "numTraining": 2 * len(files),
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=2))
    (folder / "groups.csv").write_text("\n".join(groups) + "\n")


def largest_slice(
    image: NDArray[np.generic], label: NDArray[np.generic]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The slice across the first axis with the largest label area, as grey values 0 to 255, and its mask."""
    place = int((label > 0).sum(axis=(1, 2)).argmax())
    cut = image[place].astype(float)
    grey = np.clip(cut / max(float(np.percentile(cut, BRIGHTEST)), 1e-6), 0, 1)
    return (255 * grey).astype(np.uint8), label[place] > 0


def cut_panel(grey: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """PANEL x PANEL pixels around the middle of the mask, with zeros outside the slice."""
    middle = [round(float(places.mean())) for places in np.nonzero(mask)]
    wide = [(PANEL, PANEL)] * 2
    window = tuple(slice(PANEL + place - PANEL // 2, PANEL + place + PANEL // 2) for place in middle)
    return np.pad(grey, wide)[window], np.pad(mask, wide)[window]


def compose(
    grey: NDArray[np.uint8], mask: NDArray[np.bool_], picture_left: bool, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and classes, (SIDE, SIDE), of a panel and its mask. picture_left: which key lies above the left object."""
    noise = np.random.default_rng(seed).permutation(grey.ravel()).reshape(grey.shape)
    keys = {"picture": grey, "noise": noise}
    image = np.zeros((SIDE, SIDE), np.uint8)
    classes = np.zeros_like(image)
    for name, columns, turn in zip(keys if picture_left else reversed(keys), (NEAR, FAR), (1, -1), strict=True):
        image[NEAR, columns] = keys[name]
        image[FAR, columns] = grey[:, ::turn]
        classes[NEAR, columns] = CLASSES[name]
        classes[FAR, columns] = CLASSES[f"near_{name}"] * mask[:, ::turn]
    return image, classes


if __name__ == "__main__":
    sys.exit(main())
