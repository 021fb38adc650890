"""Prediction with windows of the training patch, against one window that covers the image: Dice and seconds.

    python benchmarks/windows.py --root ROOT [-d DATASET] [-n RUN] [-f FOLD ...] [--cases 20]

Needs a trained run whose patch is smaller than the images, and its preprocessed cases. Every validation case of each
fold is predicted both ways by the same network, with the same mirroring, in network space. "covering" rounds the image
up to whole tokens; an axis that is shorter than the patch keeps the patch. "in its middle" compares both ways where
neither overlap nor borders differ: one patch from the middle of the image, against the covering window, both scored in
the middle of that patch, half as long along each axis.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray

from mvl_auto.cache import open_case
from mvl_auto.inference.sliding_window import cheapest_axis, stream_logits
from mvl_auto.inference.windows import PredictionSettings, WindowSettings, choose_windows
from mvl_auto.paths import blocks_folder, preprocessed_folder
from mvl_auto.runs import Trained, find_trained, load_trained

WAYS = ("patch", "covering")


@dataclass
class Measured:
    dice: list[float] = field(default_factory=list)
    middle_dice: list[float] = field(default_factory=list)
    seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("-d", "--dataset")
    parser.add_argument("-n", "--run")
    parser.add_argument("-f", "--folds", nargs="+")
    parser.add_argument("--cases", type=int, default=20, help="of each fold, at most")
    args = parser.parse_args()
    run = find_trained(args.root, args.dataset, None, args.run, args.folds)
    for folder, state in run.folds:
        trained = load_trained(folder, blocks_folder(args.root))
        cache = preprocessed_folder(args.root, run.plan.dataset) / run.configuration.name
        print(f"fold {state.fold}, {state.step} steps, patch {trained.configuration.patch_size}")
        for way, found in compare(trained, cache, state.validation_cases[: args.cases]).items():
            middle = f", in its middle {mean(found.middle_dice):.4f}" if found.middle_dice else ""
            print(f"  {way:<9} Dice {mean(found.dice):.4f}{middle}, {found.seconds:.1f} s", flush=True)


def compare(trained: Trained, cache: Path, names: tuple[str, ...]) -> dict[str, Measured]:
    windows = choose_windows(trained.configuration, PredictionSettings("cpu"))
    measured = {way: Measured() for way in WAYS}
    for name in names:
        reader = open_case(cache, name)
        image, label = torch.from_numpy(reader.image()), reader.label()
        for way, found in measured.items():
            start = time.perf_counter()
            classes = predict_classes(trained, image, windows if way == "patch" else cover(image, trained, windows))
            found.seconds += time.perf_counter() - start
            found.dice.append(score(classes, label, trained))
        if all(size > length for size, length in zip(image.shape[1:], windows.shape, strict=True)):
            inner, outer = middle(windows.shape, halve(windows.shape)), middle(image.shape[1:], windows.shape)
            single = predict_classes(trained, image[(slice(None), *outer)].contiguous(), windows)
            measured["patch"].middle_dice.append(score(single[inner], label[outer][inner], trained))
            measured["covering"].middle_dice.append(score(classes[outer][inner], label[outer][inner], trained))
    return measured


def predict_classes(trained: Trained, image: torch.Tensor, windows: WindowSettings) -> NDArray[np.int64]:
    axis = cheapest_axis(image.shape[1:], windows.shape)
    slabs = stream_logits(trained.network, image, trained.labels.num_outputs, windows, axis)
    return torch.cat([slab for _, slab in slabs], dim=axis + 1).argmax(dim=0).numpy()


def cover(image: torch.Tensor, trained: Trained, windows: WindowSettings) -> WindowSettings:
    axes = zip(image.shape[1:], windows.shape, trained.configuration.network.token_size, strict=True)
    return WindowSettings(tuple(max(-(-size // token) * token, length) for size, length, token in axes),
                          windows.mirror_axes)  # fmt: skip


def score(classes: NDArray[np.integer], label: NDArray[np.integer], trained: Trained) -> float:
    """Mean Dice of the foreground classes that occur in either."""
    scores = []
    for k in range(1, trained.labels.num_outputs):
        found, expected = classes == k, label == k
        if found.any() or expected.any():
            scores.append(2 * (found & expected).sum() / (found.sum() + expected.sum()))
    return float(np.mean(scores)) if scores else 1.0


def middle(shape: tuple[int, ...], part: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(shape, part, strict=True))


def halve(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n // 2 for n in shape)


if __name__ == "__main__":
    main()
