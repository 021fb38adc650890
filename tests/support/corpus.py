"""Hostile and damaged inputs as generators: what spoils a root, the command that meets it, and how that must end."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from spoil import (
    bomb,
    change_state,
    change_tensors,
    changes,
    cut,
    instead,
    link_outside,
    link_to_itself,
    link_to_zeros,
    nifti,
    nothing,
    reshape_one,
    retype_one,
    several,
    writes,
)  # fmt: skip

REFUSED, PARTLY, DONE = (2,), (1, 2), (0, 1, 2)
ID = "Dataset007_Tiny"
RAW, PREPARED, RESULTS = Path("raw") / ID, Path("preprocessed") / ID, Path("results") / ID
PLAN = ["plan_and_preprocess", "-d", "7", "--plan-only", "--llm", "none", "--memory", "1GB", "--workers", "1"]
PREPARE = [word for word in PLAN if word != "--plan-only"]
TRAIN = ["train", "7", "0", "-n", "new", "--steps", "1", "--device", "cpu"]
PREDICT = ["predict", "-i", "imgs", "-o", "preds", "-d", "7", "--device", "cpu", "--no-mirroring"]
EVALUATE = ["evaluate", "-r", str(RAW / "labelsTr"), "-p", "masks", "--only-common"]
DOCTOR = ["doctor", "-d", "7", "--workers", "1"]

BAD_NAMES = (
    "", ".", "..", "../x", "../../x", "/tmp/x", "a/b", "a\\b", "a\0b", "a\nb", "\x1b[2J", "\ud800", "CON", "nul.txt",
    "a" * 151, "é" * 80, "a\u202eb", " ",
)  # fmt: skip
NO_JSON = {
    "empty": b"", "brackets": b"[" * 300_000, "objects": b'{"a":' * 300_000, "no utf-8": b'{"a": "\xff"}',
    "number": b'{"a": ' + b"9" * 6000 + b"}", "twice": b'{"a": 1, "a": 2}', "list": b"[1, 2]", "text": b'"x"',
    "null": b"null", "cut": b'{"labels": {"background": 0', "zeros": bytes(1000),
    "nan": b'{"a": NaN, "schema_version": 1}',
}  # fmt: skip
ABSURD = (0, -1, 10**9, 10**18, "x", None, [], {})


@dataclass(frozen=True)
class Hostile:
    """name: what it is. command: words that meet it. spoil: changes the root. codes: exit codes that are right."""

    name: str
    command: Sequence[str]
    spoil: Callable[[Path], object]
    codes: tuple[int, ...] = REFUSED


def descriptions() -> Iterator[Hostile]:
    """dataset.json of a dataset from a stranger."""
    for what, content in NO_JSON.items():
        yield Hostile(f"dataset.json: {what}", PLAN, writes(RAW / "dataset.json", content))
    yield Hostile("dataset.json: 100 MB", PLAN, writes(RAW / "dataset.json", b'{"a": "' + b" " * 100_000_000 + b'"}'))
    labels: dict[str, Any] = {
        "40,000 labels": {f"label {n}": n for n in range(40_000)},
        "a region of a million values": {"background": 0, "a": list(range(1, 1_000_001))},
        "a value beyond 64 bits": {"background": 0, "a": 2**70},
        "half a value": {"background": 0, "a": 1.5},
        "true": {"background": 0, "a": True},
        "nested": {"background": 0, "a": {"b": 1}},
        "nested lists": {"background": 0, "a": [[1]]},
        "no background": {"a": 1},
        "none": {},
        "a list": [0, 1],
        "null": None,
        "twice": {"background": 0, "a": 1, "b": 1},
        "infinite": {"background": 0, "a": float("inf")},
        "a lone surrogate": {"background": 0, "\ud800": 1, "b": 2},
        "a long name": {"background": 0, "a" * 20_000: 1, "b": 2},
    }
    for what, value in labels.items():
        yield Hostile(f"labels: {what}", PLAN, changes(RAW / "dataset.json", ["labels"], value))
    for letters in ("\x1b]0;owned\x07", "\x1b[2J", "a\rb", "\u202eab", "a\0b", "a\nb"):
        spoil = changes(RAW / "dataset.json", ["labels"], {"background": 0, letters: 1, "b": 2})
        yield Hostile(f"label name {letters!a}", PLAN, spoil, DONE)
        spoil = changes(RAW / "dataset.json", ["channel_names"], {"0": letters})
        yield Hostile(f"channel name {letters!a}", PLAN, spoil, DONE)
    channels: dict[str, Any] = {
        "none": {}, "null": None, "from one": {"1": "MRI"}, "words": {"first": "MRI"},
        "5000": {str(n): "MRI" for n in range(5000)}, "two for one file": {"0": "MRI", "1": "CT"},
    }  # fmt: skip
    for what, value in channels.items():
        yield Hostile(f"channels: {what}", PLAN, changes(RAW / "dataset.json", ["channel_names"], value))
    entry = {"images": ["imagesTr/tiny_000_0000.nii.gz"], "label": "labelsTr/tiny_000.nii.gz"}
    for name in BAD_NAMES:
        spoil = changes(RAW / "dataset.json", ["dataset"], {name: entry})
        yield Hostile(f"case name {name!a:.40}", PREPARE, spoil)
    cases: dict[str, Any] = {
        "no entry": {"a": None}, "a number": {"a": 1}, "no images": {"a": {"label": "x"}},
        "images null": {"a": entry | {"images": None}},
        "missing file": {"a": entry | {"label": "nowhere.nii.gz"}},
        "NUL": {"a": entry | {"label": "a\0b"}},
        "a folder": {"a": entry | {"label": "labelsTr"}}, "itself": {"a": entry | {"label": "dataset.json"}},
        "surrogate": {"a": entry | {"label": "\ud800.nii.gz"}}, "long": {"a": entry | {"label": "a" * 5000}},
    }  # fmt: skip
    for what, value in cases.items():
        yield Hostile(f"cases: {what}", PLAN, changes(RAW / "dataset.json", ["dataset"], value))
    order = {"labels": {"background": 0, "a": [1, 2], "b": [2]}}
    for value in ([], [1], [1, 9], [0, 0], ["x", "y"], None, [10**30, 1]):
        ordered = changes(RAW / "dataset.json", ["regions_class_order"], value)
        spoil = several(changes(RAW / "dataset.json", ["labels"], order["labels"]), ordered)
        yield Hostile(f"regions_class_order {value}", PLAN, spoil)
    for what, content in {
        "no header": b"x,y\n",
        "no utf-8": b"case,group\n\xff,\xfe\n",
        "unknown": b"case,group\nx,y\n",
    }.items():
        yield Hostile(f"groups.csv: {what}", PLAN, writes(RAW / "groups.csv", content))


def contract_files() -> Iterator[Hostile]:
    """Files that a stage has written, damaged."""
    run = RESULTS / "3d_fullres"
    for file, command in {
        PREPARED / "plans.json": TRAIN,
        PREPARED / "splits.json": TRAIN,
        run / "plans.json": PREDICT,
        PREPARED / "fingerprint.json": PLAN,
    }.items():
        for what, content in NO_JSON.items():
            yield Hostile(f"{file.parent.parent.name}/{file.name}: {what}", command, writes(file, content))
        for version in (2, 10**30, "1", None, 0):
            yield Hostile(f"{file}: schema {version}", command, changes(file, ["schema_version"], version))
        yield Hostile(f"{file}: another key", command, changes(file, ["else"], 1))
    for what, content in NO_JSON.items():
        yield Hostile(f"card: {what}", TRAIN, writes(PREPARED / "3d_fullres" / "tiny_000.json", content))


def plan_numbers() -> Iterator[Hostile]:
    """plans.json with zeros, negative and huge numbers, wrong ranks, empty lists."""
    full = ["configurations", "3d_fullres"]
    places = [
        [*full, "batch_size"], [*full, "patch_size"], [*full, "patch_size", 0], [*full, "spacing"],
        [*full, "network", "depth"], [*full, "network", "width"], [*full, "network", "heads"],
        [*full, "network", "stem_channels"], [*full, "network", "stem_channels", 0], [*full, "network", "stem_strides"],
        [*full, "network", "token_stride"], [*full, "mirror_axes", 0], [*full, "normalization_schemes"],
        ["transpose_forward"], ["channels"], ["labels", "class_values"], ["labels", "class_names"],
        ["configurations"], ["recommended"],
    ]  # fmt: skip
    fine = {("depth", 0), ("mirror_axes", 0), ("spacing", 10**9)}
    for place in places:
        for value in ABSURD:
            key = next(key for key in reversed(place) if isinstance(key, str))
            if (key, value if isinstance(value, int) else "") not in fine:
                where = ".".join(map(str, place))
                yield Hostile(f"plans.json {where} = {value}", TRAIN, changes(PREPARED / "plans.json", place, value))
    card = PREPARED / "3d_fullres" / "tiny_000.json"
    for voxels in ([], [700], [700, 10], [700, 10, 10, 10]):  # the dataset has three classes
        yield Hostile(f"card with voxels of {len(voxels)} classes", TRAIN, changes(card, ["class_voxels"], voxels))


def names() -> Iterator[Hostile]:
    """Names that become paths, in files and on the command line."""
    plan, splits = PREPARED / "plans.json", PREPARED / "splits.json"
    card = PREPARED / "3d_fullres" / "tiny_000.json"
    for name in BAD_NAMES:
        yield Hostile(f"plan's dataset {name!a:.30}", TRAIN, changes(plan, ["dataset"], name))
        yield Hostile(f"case of the splits {name!a:.30}", TRAIN, changes(splits, ["folds", 0, 0], name))
        if name and "\0" not in name and "\ud800" not in name:
            yield Hostile(f"-n {name!a:.30}", [*TRAIN, "-n", name], nothing)
    for name in ("../x", "..", "tiny_001", ""):
        yield Hostile(f"card of {name!a}", TRAIN, changes(card, ["name"], name))
    for ending in ("", "/../../x.nii.gz", "nii", ".nii.gz\0", "." * 300):
        yield Hostile(f"file ending {ending!a:.30}", TRAIN, changes(plan, ["file_ending"], ending))


def checkpoints() -> Iterator[Hostile]:
    fold = RESULTS / "3d_fullres" / "fold0" / "checkpoint.safetensors"
    for what, content in {
        "empty": b"", "short": b"12345", "zeros": bytes(5000), "no header": b"\xff" * 100,
        "a header of 2^60": struct.pack("<Q", 2**60) + b"{}",
        "a header of 50 MB": struct.pack("<Q", 50 << 20) + b" " * 100,
        "no state": struct.pack("<Q", 2) + b"{}",
    }.items():  # fmt: skip
        yield Hostile(f"checkpoint: {what}", PREDICT, writes(fold, content))
    for share in (0.1, 0.5, 0.99):
        yield Hostile(f"checkpoint: cut at {share}", PREDICT, lambda root, share=share: cut(root / fold, share))
    for what, change in {
        "a tensor is missing": lambda tensors: tensors.pop(next(iter(tensors))),
        "a tensor more": lambda tensors: tensors.update({"ema.more": np.zeros(3, np.float32)}),
        "a tensor reshaped": lambda tensors: reshape_one(tensors),
        "a tensor of integers": lambda tensors: retype_one(tensors, np.int64),
        "a tensor of doubles": lambda tensors: retype_one(tensors, np.float64),
        "no tensors": lambda tensors: tensors.clear(),
    }.items():
        yield Hostile(f"checkpoint: {what}", PREDICT, lambda root, change=change: change_tensors(root / fold, change))
    previous = {"run": "..", "configuration": "a", "checkpoints": {}}
    for key, value in [
        ("schema_version", 2), ("fold", "../x"), ("configuration", "../x"), ("step", -1), ("dataset", ".."),
        ("plan_hash", "other"), ("configuration", "none"), ("elapsed", -1.0), ("training_cases", ["../x"]),
        ("previous", previous),
    ]:  # fmt: skip
        spoil = lambda root, key=key, value=value: change_state(root / fold, key, value)  # noqa: E731
        yield Hostile(f"state: {key} = {value}", PREDICT, spoil)


def images() -> Iterator[Hostile]:
    """Images of a dataset and of a folder to predict."""
    raw = RAW / "imagesTr" / "tiny_000_0000.nii.gz"
    new = Path("imgs") / "tiny_000.nii.gz"
    for what, content in {
        "empty": b"", "text": b"hello", "zeros": bytes(2000), "gzip of nothing": gzip.compress(b""),
        "gzip of text": gzip.compress(b"hello" * 1000), "cut gzip": gzip.compress(os.urandom(5000))[:2000],
        "a bomb of 2 GB": bomb(), "dimensions of 32767": nifti(dim=(3, 32767, 32767, 32767)),
        "negative dimensions": nifti(dim=(3, -5, 5, 5)), "no dimensions": nifti(dim=(0, 1, 1, 1)),
        "nine dimensions": nifti(dim=(9, 5, 5, 5)), "an unknown type": nifti(datatype=77),
        "an offset of -5": nifti(offset=-5.0), "an offset of 1e30": nifti(offset=1e30),
        "an offset of NaN": nifti(offset=float("nan")),
        "voxels of no size": nifti(pixdim=(1, 0, 0, 0)), "voxels of NaN": nifti(pixdim=(1, float("nan"), 1, 1)),
        "voxels of 1e-30 mm": nifti(pixdim=(1, 1e-30, 1e-30, 1e-30)),
        "voxels of 1e30 mm": nifti(pixdim=(1, 1e30, 1e30, 1e30)),
    }.items():  # fmt: skip
        yield Hostile(f"training image: {what}", PLAN, writes(raw, content), DONE)
        yield Hostile(f"new image: {what}", PREDICT, writes(new, content), DONE)
    for ending in (".nrrd", ".mha", ".png", ".tif", ".bmp", ".mhd"):
        for what, content in {"empty": b"", "noise": os.urandom(3000), "text": b"NRRD0004\ntype: float\n" * 50}.items():
            spoil = writes(Path("imgs") / f"new{ending}", content)
            yield Hostile(f"new image {ending}: {what}", PREDICT, spoil, DONE)


def options() -> Iterator[Hostile]:
    for dataset in ("", "..", "../..", "/", "nowhere", "../../x", "99999", "-1", "\x1b[2J", "a" * 5000):
        words = ["train", "--", dataset, "0"] if dataset[:1] == "-" else ["train", dataset, *TRAIN[2:]]
        yield Hostile(f"train {dataset!a:.30}", words, nothing)
        if dataset[:1] != "-":
            yield Hostile(f"plan -d {dataset!a:.30}", ["plan_and_preprocess", "-d", dataset, *PLAN[3:]], nothing)
            yield Hostile(f"predict -d {dataset!a:.30}", [*PREDICT[:6], dataset, *PREDICT[7:]], nothing)
    for fold in ("fold9", "-1", "x", "../0", "", "9" * 4000):
        yield Hostile(f"fold {fold:.10}", ["train", "7", "--steps", "1", "--", fold], nothing)
    yield Hostile("output in the input", [*PREDICT[:4], "imgs", *PREDICT[5:]], nothing)
    yield Hostile("output is a file", [*PREDICT[:4], str(RAW / "dataset.json"), *PREDICT[5:]], nothing)
    yield Hostile("no input", ["predict", "-i", "nowhere", *PREDICT[3:]], nothing)


def special_files() -> Iterator[Hostile]:
    """Pipes, devices and links in the place of files."""
    run = RESULTS / "3d_fullres"
    for file, command in {
        RAW / "dataset.json": PLAN, PREPARED / "plans.json": TRAIN, PREPARED / "splits.json": TRAIN,
        run / "plans.json": PREDICT,
        PREPARED / "3d_fullres" / "tiny_000.json": TRAIN, PREPARED / "3d_fullres" / "tiny_000.b2nd": TRAIN,
        run / "fold0" / "checkpoint.safetensors": PREDICT, RAW / "groups.csv": PLAN,
    }.items():  # fmt: skip
        for what, make in {"a pipe": os.mkfifo, "/dev/zero": link_to_zeros, "a folder": os.mkdir}.items():
            spoil = lambda root, file=file, make=make: instead(root / file, make)  # noqa: E731
            yield Hostile(f"{file} is {what}", command, spoil, PARTLY)
    for file in (RAW / "imagesTr" / "tiny_000_0000.nii.gz", RAW / "labelsTr" / "tiny_000.nii.gz"):
        for what, make in {"a pipe": os.mkfifo, "/dev/zero": link_to_zeros, "a loop": link_to_itself}.items():
            spoil = lambda root, file=file, make=make: instead(root / file, make)  # noqa: E731
            yield Hostile(f"{file} is {what}", PLAN, spoil, PARTLY)
    yield Hostile("log.txt is a link", PLAN, lambda root: instead(root / PREPARED / "log.txt", link_outside))
    yield Hostile(
        "the output's log.txt is a link", PREDICT, lambda root: instead(root / "preds" / "log.txt", link_outside)
    )
    yield Hostile(".lock is a link", PLAN, lambda root: instead(root / PREPARED / ".lock", link_outside), DONE)


GROUPS: dict[str, Callable[[], Iterator[Hostile]]] = {
    "descriptions": descriptions,
    "contract": contract_files,
    "numbers": plan_numbers,
    "names": names,
    "checkpoints": checkpoints,
    "images": images,
    "options": options,
    "special": special_files,
}
