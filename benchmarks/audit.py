"""Does the label audit find labels that are known to be wrong? Ten of the Hippocampus labels are damaged on purpose.

    python benchmarks/audit.py --root FOLDER [--steps 300] [--data FOLDER] [--keep FILE]

Two labels are damaged in each of five ways: a component dropped, shifted by 3 voxels, flipped, the two labels swapped,
slices forgotten (drawn by --seed). Five short folds are trained on the damaged data, as a user would; then the cases
are ranked by the audit's score, and by the soft minimum of the probability of the given label (arXiv 2307.05080) as
the score to beat. Printed: how many of the ten are among the first 10, 15 and 20 of each ranking. Resumes where it
stopped: the same command again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
from figures import add_keep, keep

DATA = Path(__file__).parents[2] / "shared/data/Task04_Hippocampus"
WAYS = ("component dropped", "shifted by 3 voxels", "flipped", "labels swapped", "slices forgotten")
PER_WAY = 2
FIRST = (10, 15, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="where to work; kept, so that it can be resumed")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--steps", type=int, default=300, help="training steps of each of the five folds")
    parser.add_argument("--llm", default="none")
    parser.add_argument("--seed", type=int, default=0)
    add_keep(parser)
    args = parser.parse_args()
    dataset = args.root / "raw" / "Task004_DamagedHippocampus"
    if not (dataset / "damaged.json").is_file():
        damage_dataset(args.data, dataset, args.seed)
    damaged = json.loads((dataset / "damaged.json").read_text())
    run("plan_and_preprocess", "-d", dataset, "--llm", args.llm, root=args.root)
    run("train", dataset, *"01234", "--steps", args.steps, root=args.root)
    run("audit", "-d", dataset, root=args.root)
    rows = json.loads(next(args.root.glob("results/*/*/audit/audit.json")).read_text())["cases"]
    keep(args.keep, print_ranking(rows, damaged) | {"labels": len(rows), "damaged": len(damaged)})


def run(command: str, *words: object, root: Path) -> None:
    program = Path(sys.executable).with_name(f"mvl_{command}")
    subprocess.run([program, *map(str, words)], check=True, env=os.environ | {"MVL_ROOT": str(root)})


def damage_dataset(source: Path, target: Path, seed: int) -> None:
    """A copy of the dataset with damaged labels, and damaged.json: case -> way."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("imagesTs", "labelsTs", "._*"))
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    random = np.random.default_rng(seed)
    names = sorted(path.name for path in (target / "labelsTr").glob("*.nii.gz"))
    chosen = random.choice(names, PER_WAY * len(WAYS), replace=False)
    damaged = {}
    for number, name in enumerate(chosen):
        way = WAYS[number % len(WAYS)]
        path = target / "labelsTr" / str(name)
        image = nibabel.load(path)
        values = damaged_values(np.asarray(image.dataobj).astype(np.uint8), way, random)
        nibabel.save(nibabel.Nifti1Image(values, image.affine, image.header), path)
        damaged[str(name).removesuffix(".nii.gz")] = way
    (target / "damaged.json").write_text(json.dumps(damaged, indent=1))


def damaged_values(values: np.ndarray, way: str, random: np.random.Generator) -> np.ndarray:
    axis = int(random.integers(3))
    if way == "component dropped":
        return np.where(values == random.integers(1, 3), 0, values).astype(np.uint8)
    if way == "shifted by 3 voxels":
        shifted = np.roll(values, 3, axis)
        shifted[(slice(None),) * axis + (slice(0, 3),)] = 0
        return shifted
    if way == "flipped":
        return np.flip(values, axis).copy()
    if way == "labels swapped":
        return np.array([0, 2, 1], np.uint8)[values]
    inside = np.flatnonzero(values.any(axis=tuple(a for a in range(3) if a != axis)))
    count = max(2, len(inside) // 5)
    start = int(random.integers(1, len(inside) - count))
    forgotten = values.copy()
    forgotten[(slice(None),) * axis + (inside[start : start + count],)] = 0
    return forgotten


def print_ranking(rows: list[dict], damaged: dict[str, str]) -> dict[str, float]:
    figures = {}
    by_audit = [row["case"] for row in sorted(rows, key=lambda row: -row["score"])]
    by_minimum = [row["case"] for row in sorted(rows, key=lambda row: min(row["soft_minimum"].values(), default=1.0))]
    print(f"{len(damaged)} of {len(rows)} labels were damaged; found among the first")
    print(f"{'':<24}" + "".join(f"{n:>6}" for n in FIRST) + "   precision at 10, recall at 20")
    for name, ranking in (("audit", by_audit), ("soft minimum", by_minimum)):
        hits = [len(set(ranking[:n]) & damaged.keys()) for n in FIRST]
        figures |= {f"{name}: found among the first {n}": hit for n, hit in zip(FIRST, hits, strict=True)}
        print(f"{name:<24}" + "".join(f"{n:>6}" for n in hits) + f"   {hits[0] / 10:.2f}, {hits[2] / len(damaged):.2f}")
    reasons = {row["case"]: row["reason"] for row in rows}
    for case, way in damaged.items():
        print(f"  {case}: {way:<22} rank {by_audit.index(case) + 1:>4} ({by_minimum.index(case) + 1:>4} by the soft "
              f"minimum), said: {reasons[case]}")  # fmt: skip
    return figures


if __name__ == "__main__":
    main()
