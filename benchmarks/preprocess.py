"""mvl_plan_and_preprocess against nnUNetv2_plan_and_preprocess -c 3d_fullres, in turn, on the same files.

    python -m venv PEER && PEER/bin/pip install nnunetv2 psutil
    python benchmarks/preprocess.py --peer PEER/bin/nnUNetv2_plan_and_preprocess [--rounds 3] [--keep FILE]

Two datasets: the Hippocampus dataset of the Decathlon, and synthetic CT volumes (256 x 256 x 160, slices of 0.8 to
5 mm). Each run uses new folders and the same number of worker processes. The time is that of the whole command, the
memory the peak of all its processes together (proportional set size). Then some cached images are compared with a
64-bit cubic resize of the normalized image by scikit-image. Goals: 4 times faster on the first dataset, 3
times on the second, no more memory, and a difference below 1e-3 away from the border. Linux only. Needs psutil.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from figures import add_keep, keep

from mvl_auto.plans import Trail

OURS, PEER = "mvl_auto", "nnU-Net v2"
SAMPLING = 0.1  # s between two looks at the memory
CT_SHAPE = (160, 256, 256)
ORGANS = 4
INTERIOR = 8  # voxels from the border that are left out of the comparison
GOALS = {"Hippocampus": 4.0, "CT": 3.0}
CONFIGURATION = "3d_fullres"


@dataclass(frozen=True)
class Run:
    seconds: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="nnUNetv2_plan_and_preprocess; without it only ours is measured")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cases", type=int, default=200, help="Hippocampus cases at most")
    parser.add_argument("--ct-cases", type=int, default=12)
    parser.add_argument("--ct-shape", type=int, nargs=3, default=CT_SHAPE, metavar=("Z", "Y", "X"))
    add_keep(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        datasets = {}
        if args.cases and (args.data / "Task04_Hippocampus").is_dir():
            datasets["Hippocampus"] = link_hippocampus(args.data, Path(folder) / "raw", args.cases)
        if args.ct_cases:
            datasets["CT"] = make_ct(Path(folder) / "raw", args.ct_cases, args.ct_shape)
        figures: dict[str, float] = {}
        for name, dataset in datasets.items():
            figures |= compare(name, dataset, Path(folder), args)
        keep(args.keep, figures)


def compare(name: str, dataset: Path, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Prints seconds and memory of every run; returns the ratios."""
    figures: dict[str, float] = {f"{name}: rounds": args.rounds}
    runs: dict[str, list[Run]] = {OURS: [], PEER: []}
    cached = folder
    for number in range(args.rounds):
        cached = folder / f"{name}-{OURS}-{number}"
        runs[OURS].append(run_ours(dataset, cached, args.workers))
        if args.peer:
            runs[PEER].append(run_peer(args.peer, dataset, folder / f"{name}-peer-{number}", args.workers))
    print(f"\n{name}, {len(list((dataset / 'labelsTr').iterdir()))} cases, {args.workers} workers")
    for who, those in runs.items():
        for run in those:
            print(f"  {who:<12}{run.seconds:>8.1f} s{run.peak_bytes / 1e6:>9.0f} MB")
    if args.peer:
        seconds, peak = (
            [getattr(peer, key) / getattr(ours, key) for ours, peer in zip(*runs.values(), strict=True)]
            for key in ("seconds", "peak_bytes")
        )
        figures |= {
            f"{name}: cases": len(list((dataset / "labelsTr").iterdir())),
            f"{name}: times faster, median": statistics.median(seconds),
            f"{name}: times faster, least": min(seconds),
            f"{name}: times faster, most": max(seconds),
            f"{name}: times the memory that the peer takes": statistics.median(peak),
        }
        print(
            f"  {statistics.median(seconds):.2f} times faster (goal {GOALS[name]:g}; {min(seconds):.2f} to "
            f"{max(seconds):.2f}), {PEER} takes {statistics.median(peak):.2f} times the memory (goal 1)"
        )
    print(f"  largest difference from scikit-image inside: {largest_difference(dataset, cached):.1e} (goal 1e-3)")
    return figures


# ------------------------------------------------------------------------------------------- runs


def run_ours(dataset: Path, root: Path, workers: int) -> Run:
    command = [Path(sys.executable).with_name("mvl_plan_and_preprocess"), "-d", dataset, "--root", root]
    options = ["-c", CONFIGURATION, "--workers", workers, "--llm", "none"]
    return measured([*command, *options], os.environ.copy())


def run_peer(command: Path, dataset: Path, root: Path, workers: int) -> Run:
    folders = {key: str(root / key) for key in ("nnUNet_preprocessed", "nnUNet_results")}
    number = str(int(dataset.name[len("Dataset") : len("Dataset") + 3]))
    options = ["-d", number, "-c", CONFIGURATION, "-npfp", workers, "-np", workers]
    return measured([command, *options], os.environ | folders | {"nnUNet_raw": str(dataset.parent)})


def measured(command: list[object], environment: dict[str, str]) -> Run:
    """Run a command to its end. Raises CalledProcessError, with what it said on the screen, when it fails."""
    words = list(map(str, command))
    peak = 0
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(words, env=environment, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, memory_of_tree(process.pid))
            time.sleep(SAMPLING)
        seconds = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            print(said.read())
            raise subprocess.CalledProcessError(process.returncode, words)
    return Run(seconds, peak)


def memory_of_tree(pid: int) -> int:
    """Bytes that a process and all below it hold together; pages that they share count once."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            total += process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # one ended while it was looked at
        return total
    return total


# ------------------------------------------------------------------------------------------- data


def link_hippocampus(data: Path, raw: Path, cases: int) -> Path:
    """The MSD dataset in nnU-Net's layout, by links."""
    source, dataset = data / "Task04_Hippocampus", raw / "Dataset004_Hippocampus"
    labels = sorted(file for file in (source / "labelsTr").glob("*.nii.gz") if not file.name.startswith("."))[:cases]
    for label in labels:
        name = label.name.removesuffix(".nii.gz")
        link(source / "imagesTr" / label.name, dataset / "imagesTr" / f"{name}_0000.nii.gz")
        link(label, dataset / "labelsTr" / label.name)
    return described(dataset, "MRI", {"background": 0, "anterior": 1, "posterior": 2}, len(labels))


def make_ct(raw: Path, cases: int, shape: tuple[int, int, int]) -> Path:
    """Smooth noise in Hounsfield units with organs of other values, slices from thin to thick."""
    import nibabel
    from scipy.ndimage import gaussian_filter

    dataset = raw / "Dataset901_MadeCT"
    for n in range(cases):
        rng = np.random.default_rng(n)
        texture = gaussian_filter(rng.normal(size=shape).astype(np.float32), 1)
        organs = gaussian_filter(rng.normal(size=shape).astype(np.float32), min(shape) / 16)
        limits = np.quantile(organs, np.linspace(0.7, 0.98, ORGANS))
        label = np.digitize(organs, limits).astype(np.uint8)
        image = (texture / texture.std() * 40 + label * 60 - 50).astype(np.int16)
        thickness = np.geomspace(0.8, 5.0, cases)[n]
        affine = np.diag([0.7 + 0.3 * rng.random()] * 2 + [thickness, 1])
        for folder, suffix, array in (("imagesTr", "_0000", image), ("labelsTr", "", label)):
            path = dataset / folder / f"ct_{n:02d}{suffix}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array.T, affine), path)
    names = {"background": 0} | {f"organ{k}": k for k in range(1, ORGANS + 1)}
    return described(dataset, "CT", names, cases)


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())


def described(dataset: Path, channel: str, labels: dict[str, int], cases: int) -> Path:
    content = {"channel_names": {"0": channel}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    (dataset / "dataset.json").write_text(json.dumps(content))
    return dataset


# -------------------------------------------------------------------------------------- reference


def largest_difference(dataset: Path, root: Path, cases: int = 3) -> float:
    """Between cached images and scikit-image's resize of the normalized image in 64 bits, away from the border."""
    from mvl_auto.cache import open_case
    from mvl_auto.datasets import load_case, read_dataset
    from mvl_auto.plans import Plan, read_document

    raw = read_dataset(dataset)
    folder = root / "preprocessed" / raw.id
    plan = read_document(folder / "plans.json", Plan)
    ct = plan.foreground_intensity_properties_per_channel[0]
    worst = 0.0
    for case in raw.cases[:: max(1, len(raw.cases) // cases)][:cases]:
        volume, _ = load_case(case, raw.labels)
        reader = open_case(folder / CONFIGURATION, case.name)
        image = volume.array[0].transpose(plan.transpose_forward).astype(np.float64)
        image = image[tuple(slice(*sides) for sides in reader.cached.trail.crop)]
        if plan.configuration(CONFIGURATION).normalization_schemes[0] == "ct":
            image = (image.clip(ct.percentile_00_5, ct.percentile_99_5) - ct.mean) / ct.std
        else:
            image = (image - image.mean()) / image.std()
        expected = reference(image, reader.cached.trail)
        inside = tuple(slice(INTERIOR, -INTERIOR) if n > 2 * INTERIOR else slice(None) for n in expected.shape)
        worst = max(worst, float(np.abs(reader.image()[0] - expected)[inside].max()))
    return worst


def reference(image: np.ndarray, trail: Trail) -> np.ndarray:
    from skimage.transform import resize

    how = {"order": 3, "mode": "edge", "anti_aliasing": False}
    shape = trail.resampled_shape
    axis = trail.separate_axis
    if axis is None:
        return resize(image, shape, **how)
    plane = [size for n, size in enumerate(shape) if n != axis]
    slices = np.stack([resize(piece, plane, **how) for piece in np.moveaxis(image, axis, 0)], axis)
    place = (np.arange(shape[axis]) + 0.5) * image.shape[axis] / shape[axis]
    return slices.take(place.astype(int), axis)


if __name__ == "__main__":
    main()
