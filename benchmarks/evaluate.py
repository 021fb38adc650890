"""mvl_evaluate's scoring against nnU-Net's evaluation, MONAI's metrics and the package surface-distance, in turn.

    pip install -e ".[bench]"
    python benchmarks/evaluate.py [--data ../shared/data] [--rounds 3] [--cases 200] [--ct-cases 4] [--keep FILE]

Two sets of pairs: Hippocampus labels (real; the prediction is the label, moved and roughened here) and CT-sized volumes
made here with 20 labels of the size of organs. Each tool runs in a process of its own, one thread, one case at a time,
alternating, and computes only what it shares with ours:

    nnU-Net           Dice, IoU
    surface-distance  NSD, HD95, HD, ASSD, weighted by area
    MONAI             Dice, IoU, NSD by area (use_subvoxels), HD95 and ASSD by voxels

Time is CPU time of reading and scoring, after a first small pair (a busy machine changes it little); memory the most
that another process held, which scores the same pairs and nothing before, imports included. Printed: the largest
difference of any value, relative to values above 1, and peer / ours for both. Goals: 1e-6 (MONAI takes
percentiles in 32 bits: 1e-4), 3 times as fast where surfaces are measured, a quarter of the memory. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cpu import cpu
from figures import add_keep, keep

TOLERANCE_MM = 1.0
SHARED = {
    "nnU-Net": "dice,jaccard",
    "surface-distance": "nsd,hd95_mm,hd_mm,assd_mm",
    "MONAI": "dice,jaccard,nsd,hd95_voxel_mm,assd_voxel_mm",
}
CT_SHAPE, CT_SPACING, ORGANS = (160, 512, 512), (2.5, 0.8, 0.8), 20
Scores = dict[str, dict[str, dict[str, float]]]  # case -> label -> metric -> value


@dataclass(frozen=True)
class Result:
    seconds: float
    peak_bytes: int
    scores: Scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", type=int, default=200, help="Hippocampus cases at most")
    parser.add_argument("--ct-cases", type=int, default=4)
    parser.add_argument("--ct-shape", type=int, nargs=3, default=CT_SHAPE, metavar=("Z", "Y", "X"))
    parser.add_argument("--peers", nargs="+", choices=list(SHARED), default=list(SHARED))
    add_keep(parser)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)  # tool, metrics, folder, "time" or "memory"
    args = parser.parse_args()
    if args.worker:
        work(*args.worker)
        return
    print(f"{cpu()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        sets, figures = {}, dict[str, float]()
        labels = args.data / "Task04_Hippocampus" / "labelsTr"
        if args.cases and labels.is_dir():
            sets["Hippocampus"] = make_hippocampus(labels, Path(folder) / "hippocampus", args.cases)
        if args.ct_cases:
            sets["CT"] = make_ct(Path(folder) / "ct", args.ct_cases, args.ct_shape)
        for name, pairs in sets.items():
            count = len(list((pairs / "references").iterdir()))
            print(f"\n{name}, {count} pairs, {args.rounds} rounds")
            figures |= {f"{name}: pairs": count, f"{name}: rounds": args.rounds}
            for peer in args.peers:
                found = compare(peer, pairs, args.rounds)
                figures |= {f"{name}, {peer}: {what}": value for what, value in found.items()}
                keep(args.keep, figures)


def compare(peer: str, pairs: Path, rounds: int) -> dict[str, float]:
    """Prints what the median round shows; returns it, ratios as theirs to ours."""
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(run("ours", SHARED[peer], pairs))
        theirs.append(run(peer, SHARED[peer], pairs))
    seconds = [their.seconds / our.seconds for our, their in zip(ours, theirs, strict=True)]
    memory = [their.peak_bytes / our.peak_bytes for our, their in zip(ours, theirs, strict=True)]
    off, where, count = largest_difference(ours[0].scores, theirs[0].scores)
    print(
        f"  {peer:<17}time x {statistics.median(seconds):5.1f} ({min(seconds):.1f} to {max(seconds):.1f})  "
        f"memory x {statistics.median(memory):4.1f} (ours {ours[0].peak_bytes / 1e6:.0f} MB)  "
        f"{count} values, largest difference {off:.1e} {where}",
        flush=True,
    )
    return {
        "times as fast": statistics.median(seconds),
        "at least": min(seconds),
        "at most": max(seconds),
        "times our memory": statistics.median(memory),
        "our MB": ours[0].peak_bytes / 1e6,
        "values": count,
        "largest difference": off,
    }


def largest_difference(ours: Scores, theirs: Scores) -> tuple[float, str, int]:
    """Over all values that both define; NaN or infinity on one side alone is a difference of infinity."""
    worst, where, count = 0.0, "", 0
    for case, labels in theirs.items():
        for label, metrics in labels.items():
            for metric, value in metrics.items():
                own = ours[case].get(label, {}).get(metric, math.nan)  # a label that neither map has is not in ours
                count += 1
                both = math.isfinite(own), math.isfinite(value)
                off = abs(own - value) / max(abs(value), 1.0) if all(both) else math.inf if any(both) else 0.0
                if off > worst:
                    worst, where = off, f"({case} {label} {metric})"
    return worst, where, count


def run(tool: str, metrics: str, pairs: Path) -> Result:
    """Run a tool in processes of its own and measure it: one for the time, one for the memory."""
    timed, held = (_run_once(tool, metrics, pairs, what) for what in ("time", "memory"))
    return Result(timed["seconds"], held["peak_bytes"], timed["scores"])


def _run_once(tool: str, metrics: str, pairs: Path, what: str) -> dict[str, Any]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", tool, metrics, str(pairs), what]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, env=environment)
        status = process.wait()
        output.seek(0)
        said = output.read().splitlines()
    if status:
        raise SystemExit(f"{tool} failed with status {status}")
    content: dict[str, Any] = json.loads(said[-1])
    return content


# ------------------------------------------------------------------------------------- in the worker


def work(tool: str, metrics: str, folder: str, what: str) -> None:
    warnings.simplefilter("ignore")
    prepare = {"ours": ours, "nnU-Net": nnunet, "surface-distance": surface_distance, "MONAI": monai}[tool]
    score = prepare(metrics.split(","))
    if what == "time":
        with tempfile.TemporaryDirectory() as warm:
            score(*make_small(Path(warm)))
    start = time.process_time()
    scores = score(Path(folder) / "references", Path(folder) / "predictions")
    print(json.dumps({"seconds": time.process_time() - start, "peak_bytes": peak_bytes(), "scores": scores}))


def peak_bytes() -> int:
    """The most memory of this process since it started (getrusage would count its parent's, too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


def ours(metrics: list[str]) -> Callable[[Path, Path], Scores]:
    from mvl_auto.evaluation import evaluate_folders
    from mvl_auto.evaluation.case import make_scoring

    def score(references: Path, predictions: Path) -> Scores:
        summary = evaluate_folders(references, predictions, scoring=make_scoring(metrics, TOLERANCE_MM), workers=1)
        found: Scores = {}
        for row in summary.table.to_dict("records"):
            found.setdefault(row["case"], {})[row["label"]] = {metric: row[metric] for metric in metrics}
        return found

    return score


def nnunet(metrics: list[str]) -> Callable[[Path, Path], Scores]:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    def score(references: Path, predictions: Path) -> Scores:
        labels = json.loads((references.parent / "labels.json").read_text())
        found: Scores = {}
        for path in sorted(references.iterdir()):
            values = compute_metrics(str(path), str(predictions / path.name), SimpleITKIO(), labels)["metrics"]
            found[name_of(path)] = {
                str(label): {"dice": float(of_label["Dice"]), "jaccard": float(of_label["IoU"])}
                for label, of_label in values.items()
            }
        return found

    return score


def surface_distance(metrics: list[str]) -> Callable[[Path, Path], Scores]:
    import SimpleITK  # noqa: F401
    import surface_distance as package

    def score(references: Path, predictions: Path) -> Scores:
        found: Scores = {}
        for case, label, reference, prediction, spacing in masks(references, predictions):
            distances = package.compute_surface_distances(reference, prediction, spacing)
            areas = [distances["surfel_areas_gt"].sum(), distances["surfel_areas_pred"].sum()]
            found.setdefault(case, {})[label] = {
                "nsd": float(package.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM)),
                "hd95_mm": float(package.compute_robust_hausdorff(distances, 95)),
                "hd_mm": float(package.compute_robust_hausdorff(distances, 100)),
                "assd_mm": float(np.average(package.compute_average_surface_distance(distances), weights=areas)),
            }
        return found

    return score


def monai(metrics: list[str]) -> Callable[[Path, Path], Scores]:
    import SimpleITK  # noqa: F401
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
        compute_iou,
        compute_surface_dice,
    )

    torch.set_num_threads(1)

    def score(references: Path, predictions: Path) -> Scores:
        found: Scores = {}
        for case, label, reference, prediction, spacing in masks(references, predictions):
            y, y_pred = (torch.from_numpy(mask)[None, None] for mask in (reference, prediction))
            of_surfaces: dict[str, Any] = {"spacing": spacing, "include_background": True}
            found.setdefault(case, {})[label] = {
                "dice": float(compute_dice(y_pred, y)),
                "jaccard": float(compute_iou(y_pred, y)),
                "nsd": float(compute_surface_dice(y_pred, y, [TOLERANCE_MM], use_subvoxels=True, **of_surfaces)),
                "hd95_voxel_mm": float(compute_hausdorff_distance(y_pred, y, percentile=95, **of_surfaces)),
                "assd_voxel_mm": float(compute_average_surface_distance(y_pred, y, symmetric=True, **of_surfaces)),
            }
        return found

    return score


def masks(references: Path, predictions: Path) -> Iterator[tuple[str, str, Any, Any, tuple[float, ...]]]:
    """Case, label, both masks and the voxel size (mm, Z Y X), as anyone would read them for a package of metrics."""
    import SimpleITK as sitk

    labels = json.loads((references.parent / "labels.json").read_text())
    for path in sorted(references.iterdir()):
        images = [sitk.ReadImage(str(folder / path.name)) for folder in (references, predictions)]
        reference, prediction = (sitk.GetArrayFromImage(image) for image in images)
        spacing = images[0].GetSpacing()[::-1]
        del images
        for label in labels:
            yield name_of(path), str(label), reference == label, prediction == label, spacing


def name_of(path: Path) -> str:
    return path.name.removesuffix(".nii.gz")


# ------------------------------------------------------------------------------------- the pairs


def make_hippocampus(labels: Path, folder: Path, cases: int) -> Path:
    import nibabel

    rng = np.random.default_rng(0)
    for path in sorted(labels.glob("[!.]*.nii.gz"))[:cases]:
        image = nibabel.load(path)
        reference = np.asarray(image.dataobj).astype(np.uint8)
        write_pair(folder, path.name, reference, roughened(reference, rng), np.asarray(image.affine))
    (folder / "labels.json").write_text("[1, 2]")
    return folder


def make_small(folder: Path) -> tuple[Path, Path]:
    """One pair for a first call, which imports and fills caches."""
    reference = np.zeros((16, 16, 16), np.uint8)
    reference[3:9, 4:10, 5:11] = 1
    prediction = np.roll(reference, 1, 0)
    prediction[15, 15, 15] = 1  # far from the rest
    write_pair(folder, "small.nii.gz", reference, prediction, np.eye(4))
    (folder / "labels.json").write_text("[1]")
    return folder / "references", folder / "predictions"


def make_ct(folder: Path, cases: int, shape: tuple[int, int, int]) -> Path:
    """Volumes with ORGANS ellipsoids of 20 to 120 mm."""
    rng = np.random.default_rng(1)
    for number in range(cases):
        reference = np.zeros(shape, np.uint8)
        for organ in range(1, ORGANS + 1):
            radii = np.minimum(rng.uniform(10, 60, 3) / CT_SPACING, np.array(shape) / 3)
            centre = rng.uniform(radii + 2, np.array(shape) - radii - 2)
            box = tuple(slice(int(c - r), int(c + r) + 2) for c, r in zip(centre, radii, strict=True))
            grid = np.ogrid[box]
            inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii, strict=True)) <= 1
            reference[box][inside & (reference[box] == 0)] = organ
        affine = np.diag([*CT_SPACING[::-1], 1.0])
        write_pair(folder, f"ct_{number}.nii.gz", reference.T, roughened(reference, rng).T, affine)
    (folder / "labels.json").write_text(json.dumps(list(range(1, ORGANS + 1))))
    return folder


def roughened(reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A plausible prediction: moved by a voxel along one axis, its surface worn by a median filter."""
    from scipy import ndimage

    moved = np.roll(reference, int(rng.choice([-1, 1])), int(rng.integers(3)))
    noise = rng.random(reference.shape, dtype=np.float32) < 0.15
    mixed = np.where(noise, np.roll(moved, 1, 2), moved)
    filtered: np.ndarray = ndimage.median_filter(mixed, 3)
    return filtered


def write_pair(folder: Path, name: str, reference: Any, prediction: Any, affine: Any) -> None:
    import nibabel

    for kind, array in (("references", reference), ("predictions", prediction)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / kind / name)


if __name__ == "__main__":
    main()
