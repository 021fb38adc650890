"""Golden values: what the whole pipeline computes on fixed data, recorded once and compared after every change.

python scripts/golden.py record                          writes tests/golden/*.json, which tests/test_golden.py holds
python scripts/golden.py check                           compares with them, with a tolerance: works on any CPU
python scripts/golden.py record --exact FILE             writes everything, hashes of arrays and weights included
python scripts/golden.py check --exact FILE              compares bit for bit: on the machine that recorded FILE only
python scripts/golden.py check --exact FILE --ignore '*/reasons/*'       ... but for values that shall change

--only NAME... restricts it to some of the sections: volumes pictures anisotropic decathlon hippocampus.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/support"))
for variable in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(variable, "1")

import nibabel  # noqa: E402
import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import torch  # noqa: E402
from nibabel.orientations import axcodes2ornt, ornt_transform  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

# isort: split
# All that is used of the project: when a module moves, only these lines follow.
from builders import make_dataset  # noqa: E402
from fingerprints import BANK, DECATHLON, fingerprint_of  # noqa: E402
from real_datasets import link_some  # noqa: E402

from mvl_auto import api  # noqa: E402
from mvl_auto.cache import open_case  # noqa: E402
from mvl_auto.network import device  # noqa: E402
from mvl_auto.planners import Overrides, plan, preset_budget  # noqa: E402
from mvl_auto.training import loop  # noqa: E402

FIXED = (  # module, name in it, its value while golden values are made
    (loop, "REPORT_EVERY", 1),  # so many steps make one line of progress.csv
    (device, "cpu_multiplies_bfloat16", lambda: False),  # all in float32, whatever the CPU can do
)


def overrides(**numbers: Any) -> dict[str, Any]:
    """Numbers of the plan that are given, as arguments of api.plan_and_preprocess."""
    return {"overrides": Overrides(**numbers)}


GOLDEN = REPOSITORY / "tests" / "golden"
REAL_DATA = Path(os.environ.get("MVL_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
TASK = "Task04_Hippocampus"
BLOCK = "random:hidden=32,heads=4,kv_heads=2,ffn=64,seed=0"
MEMORY = 10**9  # bytes
STEPS = 20
TEST_TASKS = ("Hippocampus", "Prostate", "Lung")  # of the Decathlon, in the committed file

# Keys that only the exact recording has: hashes of floating-point numbers (their last bit depends on the CPU), hashes
# of files (their bytes depend on the library that wrote them), and words, which have tests of their own.
EXACT_KEYS = {
    "sha256",
    "geometry_sha256",
    "plan_hash",
    "fingerprint_hash",
    "settings_hash",
    "files_hash",
    "reasons",
    "conventions",
}
# (path, relative, absolute): the first pattern that fits; all other numbers must agree to 1e-6. The last bit of a
# gradient depends on the CPU, and training amplifies it: measured between AVX2 and AVX-512, a loss of the first 3 steps
# agrees to 1e-6, one of 20 steps to 3e-4, one of 60 steps to 1e-2, and what the trained network predicts accordingly.
TOLERANCES = (
    ("*/losses/[0-2]", 1e-5, 2e-6),
    ("/hippocampus/training/losses/*", 0.03, 0.0),
    ("*/losses/*", 2e-3, 0.0),
    ("/hippocampus/training/norms/*", 5e-4, 0.0),
    ("*/norms/*", 1e-4, 0.0),
    ("*/cache/*/statistics/*", 1e-4, 1e-4),
    ("*/cache/*/class_voxels/*", 0.01, 2),
    ("*/cache/*/locations/*", 0.01, 2),
    ("*/predictions of drawn weights/*/voxels/*", 0.01, 5),  # a voxel between two labels may fall to either
    ("*/predictions of drawn weights/*/probabilities/*", 1e-4, 1e-4),
    ("*/voxels/*", 0.05, 20),
    ("*/probabilities/*", 0.0, 0.02),
    ("*/scores of predictions/*hd95_mm*", 0.0, 5.0),  # mm; scores themselves are held by those of the shifted labels
    ("*/scores of [pv]*_voxels", 0.05, 20),
    ("*/scores of [pv]*", 0.0, 0.05),
)

# ------------------------------------------------------------------------------------------ the datasets


def make_volumes(folder: Path) -> Path:
    """Isotropic CT in the MSD layout, with gaps between the labels' values."""
    dataset = make_dataset(
        folder, "msd", 6, (28, 32, 30), channel_names=["CT"], file_ending=".nii", label_values=(0, 2, 5), name="Volumes"
    )
    for image, label in images_and_labels(dataset):
        rewrite(image, np.int16)
        rewrite(label, np.uint8)
    return dataset


def make_pictures(folder: Path) -> Path:
    """RGB pictures in nnU-Net's layout."""
    return make_dataset(
        folder,
        "nnunet",
        6,
        (56, 64),
        (1.0, 1.0),
        channels=3,
        channel_names=["R", "G", "B"],
        file_ending=".png",
        number=8,
        name="Pictures",
    )


def make_anisotropic(folder: Path) -> Path:
    """Two channels and overlapping regions; voxel size and orientation differ by case, zeros around each image."""
    dataset = make_dataset(
        folder,
        "nnunet",
        6,
        (10, 36, 32),
        (5.0, 1.0, 1.2),
        channels=2,
        channel_names=["T1", "CT"],
        file_ending=".nii",
        number=9,
        name="Anisotropic",
    )
    turns = (("R", "A", "S"), ("L", "P", "S"), ("A", "S", "R"))
    scales = (1.0, 1.1, 1.4)  # mean and median differ
    for label in sorted((dataset / "labelsTr").iterdir()):
        case = int(label.stem[-1])
        for path in (label, *sorted((dataset / "imagesTr").glob(f"{label.stem}_*"))):
            kind = np.uint8 if path == label else np.int16
            rewrite(path, kind, margin=(6, 6, 2), scale=scales[case % 3], turn=turns[case % 3])
    description = json.loads((dataset / "dataset.json").read_text())
    description |= {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    (dataset / "dataset.json").write_text(json.dumps(description))
    return dataset


def link_hippocampus(folder: Path) -> Path:
    return link_some(REAL_DATA / TASK, folder, 10)


def images_and_labels(dataset: Path) -> Iterator[tuple[Path, Path]]:
    for label in sorted((dataset / "labelsTr").iterdir()):
        yield dataset / "imagesTr" / label.name, label


def rewrite(
    path: Path,
    kind: type,
    margin: Sequence[int] = (0, 0, 0),
    scale: float = 1.0,
    turn: Sequence[str] = ("R", "A", "S"),
) -> None:
    """Whole numbers, so that the files are the same bytes on every CPU. margin: zeros around, X Y Z."""
    image = nibabel.load(path)
    voxels = np.pad(np.round(np.asarray(image.dataobj)), [(n, n) for n in margin]).astype(kind)
    affine = np.diag([*np.round(np.diag(image.affine)[:3] * scale, 6), 1.0])
    header = nibabel.Nifti1Header()
    header.set_xyzt_units("mm")
    header.set_data_dtype(kind)
    turned = nibabel.Nifti1Image(voxels, affine, header)
    turned = turned.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(turn)))
    path.unlink()
    nibabel.save(turned, path)


# --------------------------------------------------------------------------------------------- recording


def record_dataset(
    make: Callable[[Path], Path], given: dict[str, Any], steps: int = STEPS, mirror: bool = True
) -> dict[str, Any]:
    """From the raw dataset to scores, through the public functions; the fold 0 is trained, other cases predicted."""
    with tempfile.TemporaryDirectory(prefix="golden-") as place, one_thread(), fixed():
        root = Path(place) / "root"
        raw = make(root / "raw")
        common: dict[str, Any] = {"root": root, "workers": 1}
        found: dict[str, Any] = {}
        planned = api.plan_and_preprocess(raw, preset="L", plan_only=True, **common)
        folder = root / "preprocessed" / planned.dataset
        found["plan for preset L"] = plan_values(folder / "plans.json")
        api.plan_and_preprocess(raw, memory=MEMORY, device="cpu", llm=BLOCK, **overrides(**given), **common)
        found |= {
            "plan": plan_values(folder / "plans.json"),
            "fingerprint": document(folder / "fingerprint.json"),
            "splits": document(folder / "splits.json"),
            "cache": {
                case.name: cached_values(case.parent, case.stem)
                for case in sorted((folder / planned.recommended).glob("*.json"))
            },
        }
        [trained] = api.train(raw, ["0"], root=root, steps=steps, device="cpu", workers=0)
        found["training"] = training_values(trained.folder, steps)
        found["validation"] = predicted_values(trained.folder / "validation")
        found["scores of validation"] = document(trained.folder / "summary.json")

        labels = sorted((raw / "labelsTr").iterdir())
        names = [case["name"] for case in found["fingerprint"]["cases"]][-2:]
        for image in sorted((raw / "imagesTr").iterdir()):
            if any(image.name.startswith(name) for name in names):
                (root / "images").mkdir(exist_ok=True)
                shutil.copy(image, root / "images")
        predict: dict[str, Any] = {"root": root, "dataset": raw, "device": "cpu", "mirror": mirror}
        api.predict(root / "images", root / "predictions", probabilities=True, **predict)
        found["predictions"] = predicted_values(root / "predictions")
        found["scores of predictions"] = scores(raw / "labelsTr", root / "predictions", raw)
        draw_weights(trained.folder / "checkpoint.safetensors")
        api.predict(root / "images", root / "drawn", probabilities=True, **predict)
        found["predictions of drawn weights"] = predicted_values(root / "drawn")
        for label in labels[:2]:
            shift(label, root / "shifted" / label.name)
        found["scores of shifted labels"] = scores(raw / "labelsTr", root / "shifted", raw)
        return json.loads(json.dumps(found))


def record_decathlon(tasks: Sequence[str]) -> dict[str, Any]:
    """Plans of the Decathlon's datasets, from fingerprints made by hand, for a GPU of 16 GiB."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="golden-") as place, fixed():
        for task in DECATHLON:
            if task.task not in tasks:
                continue
            fingerprint = fingerprint_of(task.raw_size, task.raw_spacing, 20, task.channels)
            path = Path(place) / "plans.json"
            path.write_text(plan(fingerprint, preset_budget("M", None), blocks=BANK).model_dump_json())
            found[task.task] = plan_values(path)
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fixed() -> Iterator[None]:
    before = [(module, name, getattr(module, name)) for module, name, _ in FIXED]
    for module, name, value in FIXED:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def document(path: Path) -> dict[str, Any]:
    """A JSON file without what depends on version, place and time."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in ("mvl_auto_version", "references", "predictions", "elapsed"):
        content.pop(key, None)
    return content


def plan_values(path: Path) -> dict[str, Any]:
    """What was decided, apart from the words that explain it; and the bytes, with a fixed version."""
    content = document(path)
    reasons = {name: each.pop("reasons") for name, each in content["configurations"].items()}
    text = path.read_text(encoding="utf-8")
    version = json.loads(text)["mvl_auto_version"]
    return {"decided": content, "reasons": reasons, "sha256": digest(text.replace(f'"{version}"', '"0"').encode())}


def cached_values(folder: Path, name: str) -> dict[str, Any]:
    case = open_case(folder, name)
    image, label = case.image(), case.label()
    classes, voxels = np.unique(label, return_counts=True)
    locations = {str(k): case.locations(int(k)) for k in classes}
    return {
        "card": document(folder / f"{name}.json"),
        "class_voxels": dict(zip(map(str, classes.tolist()), voxels.tolist(), strict=True)),
        "locations": {k: len(rows) for k, rows in locations.items()},
        "statistics": [statistics(channel) for channel in image],
        "image": array_hash(image),
        "label": array_hash(label),
        "rows": {k: array_hash(rows) for k, rows in locations.items()},
    }


def training_values(folder: Path, steps: int) -> dict[str, Any]:
    with open(folder / "progress.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == steps, "one loss per step: see FIXED"
    weights = load_file(folder / "checkpoint.safetensors")
    parts: dict[str, float] = {}
    for name, weight in weights.items():
        part = ".".join(name.split(".")[:2])
        parts[part] = parts.get(part, 0.0) + float((weight.astype(np.float64) ** 2).sum())
    return {
        "losses": [float(row["loss"]) for row in rows],
        "learning_rates": [float(row["learning_rate"]) for row in rows],
        "norms": {part: math.sqrt(square) for part, square in sorted(parts.items())},
        "weights": {name: array_hash(weight) for name, weight in sorted(weights.items())},
        "state": document(folder / "state.json"),
    }


def predicted_values(folder: Path) -> dict[str, Any]:
    """Of each label file its voxels and geometry, of each file of probabilities its statistics, by the files' names."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if not path.name.endswith((".nii", ".nii.gz", ".png")):
            continue
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
        values: dict[str, Any] = {
            "geometry": [*image.GetSize(), *image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()],
            "kind": f"{array.dtype} {array.shape}",
            **array_hash(array),
        }
        if array.dtype.kind == "f":
            values["probabilities"] = statistics(array)
        else:
            labels, voxels = np.unique(array, return_counts=True)
            values["voxels"] = dict(zip(map(str, labels.tolist()), voxels.tolist(), strict=True))
        found[str(path.relative_to(folder))] = values
    return found


def draw_weights(checkpoint: Path) -> None:
    """Random numbers in place of the weights: the same on every CPU, as trained ones are not."""
    with safe_open(checkpoint, framework="np") as stream:
        about = stream.metadata()
    random = np.random.default_rng(0)
    drawn = {
        name: np.float32(0.3) * random.standard_normal(weight.shape, np.float32)
        for name, weight in sorted(load_file(checkpoint).items())
    }
    save_file(drawn, checkpoint, metadata=about)


def shift(label: Path, target: Path) -> None:
    """A prediction that is wrong by a known way: the label, one voxel further along each axis."""
    target.parent.mkdir(exist_ok=True)
    image = sitk.ReadImage(str(label))
    array = sitk.GetArrayFromImage(image)
    shifted = sitk.GetImageFromArray(np.roll(array, 1, axis=tuple(range(array.ndim))))
    shifted.CopyInformation(image)
    sitk.WriteImage(shifted, str(target))


def scores(references: Path, predictions: Path, raw: Path) -> dict[str, Any]:
    api.evaluate(
        references,
        predictions,
        dataset_json=raw / "dataset.json",
        metrics=["overlap", "hd95_mm", "nsd"],
        only_common=True,
        workers=1,
    )
    return document(predictions / "scores.json")


def statistics(array: np.ndarray) -> list[float]:
    exact = array.astype(np.float64)
    return [float(value) for value in (exact.mean(), exact.std(), exact.min(), exact.max())]


def array_hash(array: np.ndarray) -> dict[str, str]:
    about = f"{array.dtype.str} {array.shape} ".encode()
    return {"sha256": digest(about + np.ascontiguousarray(array).tobytes())}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Numbers that make each network small: 20 steps of each take seconds.
SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "volumes": lambda: record_dataset(
        make_volumes, {"patch_size": (16, 16, 16), "batch_size": 2, "width": 48, "depth": 1}
    ),
    "pictures": lambda: record_dataset(
        make_pictures, {"patch_size": (32, 32), "batch_size": 4, "width": 48, "depth": 1}
    ),
    "anisotropic": lambda: record_dataset(make_anisotropic, {"batch_size": 2, "width": 48, "depth": 1}, mirror=False),
    "decathlon": lambda: record_decathlon(TEST_TASKS),
    "hippocampus": lambda: record_dataset(
        link_hippocampus, {"patch_size": (24, 32, 24), "batch_size": 4, "width": 48, "depth": 1}, steps=60
    ),
}
REAL = {"hippocampus"}


# -------------------------------------------------------------------------------------------- comparing


def portable(value: Any) -> Any:
    """Without what holds on one machine only, and without what is empty then."""
    if isinstance(value, dict):
        kept = {key: portable(each) for key, each in value.items() if key not in EXACT_KEYS}
        return {key: each for key, each in kept.items() if each != {} or value[key] == {}}
    if isinstance(value, list):
        return [portable(each) for each in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def differences(golden: Any, found: Any, exact: bool = False, path: str = "") -> list[str]:
    """One line for each value that is not as it was, with its path."""
    if isinstance(golden, dict) and isinstance(found, dict):
        lines = [f"{path}/{key}: is gone" for key in golden.keys() - found.keys()]
        lines += [f"{path}/{key}: is new" for key in found.keys() - golden.keys()]
        for key in golden.keys() & found.keys():
            lines += differences(golden[key], found[key], exact, f"{path}/{key}")
        return sorted(lines)
    if isinstance(golden, list) and isinstance(found, list):
        if len(golden) != len(found):
            return [f"{path}: {len(golden)} values were there, now {len(found)}"]
        return [
            line
            for number, (one, other) in enumerate(zip(golden, found, strict=True))
            for line in differences(one, other, exact, f"{path}/{number}")
        ]
    same = golden == found if exact else about_equal(golden, found, path)
    return [] if same else [f"{path}: was {golden!r}, is {found!r}"]


def about_equal(golden: Any, found: Any, path: str) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (golden, found))
    if not numbers:
        return bool(golden == found)
    for pattern, relative, absolute in TOLERANCES:
        if fnmatch(path, pattern):
            return math.isclose(golden, found, rel_tol=relative, abs_tol=absolute)
    if isinstance(golden, int) and isinstance(found, int):
        return golden == found
    return math.isclose(golden, found, rel_tol=1e-6, abs_tol=1e-9)


def golden_file(section: str) -> Path:
    return GOLDEN / f"{section}.json"


def read_golden(section: str) -> dict[str, Any]:
    return json.loads(golden_file(section).read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------- command


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["record", "check"])
    parser.add_argument("--exact", type=Path, metavar="FILE", help="bit for bit, in a file of one's own")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="NAME")
    parser.add_argument("--ignore", nargs="+", default=[], metavar="PATTERN", help="paths of values that may differ")
    args = parser.parse_args(arguments)

    sections = [name for name in SECTIONS if name in args.only]
    if not (REAL_DATA / TASK).is_dir() and REAL & set(sections):
        tell(f"{REAL_DATA / TASK} is not there: its section is left out (set MVL_TEST_DATA)")
        sections = [name for name in sections if name not in REAL]
    before = json.loads(args.exact.read_text(encoding="utf-8")) if args.exact and args.exact.is_file() else {}
    if args.action == "check" and args.exact and not before:
        parser.error(f"{args.exact} is not there: record it first")
    lines: list[str] = []
    for name in sections:
        tell(f"{name} ...")
        found = record_decathlon([task.task for task in DECATHLON]) if name == "decathlon" and args.exact else None
        found = found or SECTIONS[name]()
        if args.action == "check":
            golden, found = (before[name], found) if args.exact else (read_golden(name), portable(found))
            differ = differences(golden, found, bool(args.exact), f"/{name}")
            lines += [line for line in differ if not any(fnmatch(line.split(": ")[0], each) for each in args.ignore)]
        elif args.exact:
            before[name] = found
        else:
            GOLDEN.mkdir(exist_ok=True)
            golden_file(name).write_text(
                json.dumps(portable(found), sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8"
            )
    if args.action == "record":
        if args.exact:
            args.exact.write_text(json.dumps(before, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        tell("recorded")
        return 0
    for line in lines:
        tell(line)
    tell(f"{len(lines)} values differ" if lines else "all values are as they were")
    return 1 if lines else 0


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
