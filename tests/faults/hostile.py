"""Hostile and damaged inputs as generators, each with what must come of it.

    python -m tests.faults.hostile            all of them, and a table of what did not come as it should

An input changes a small root that has been planned, prepared and "trained" (`base`), and names the command that meets
it. The command must end in time and in memory, with one of the exit codes, without a traceback, with its reason in one
printable line, and with every file outside of the root as it was.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from builders import make_dataset
from commands import succeed
from trained import write_trained

from mvl_auto.plans import Plan, read_document
from mvl_auto.printable import printable

LONGEST = 10.0  # s beyond what a good input takes
MOST_MEMORY = 1000.0  # MB beyond what a good input takes
GENEROUS = 6.0  # on a machine that does other things too
REFUSED, PARTLY, DONE = (2,), (1, 2), (0, 1, 2)
ID = "Dataset007_Tiny"

RAW, PREPARED, RESULTS = Path("raw") / ID, Path("preprocessed") / ID, Path("results") / ID
PLAN = ["plan_and_preprocess", "-d", "7", "--plan-only", "--llm", "none", "--memory", "1GB", "--workers", "1"]
PREPARE = [word for word in PLAN if word != "--plan-only"]
TRAIN = ["train", "7", "0", "--steps", "1", "--device", "cpu"]
PREDICT = ["predict", "-i", "imgs", "-o", "preds", "-d", "7", "--device", "cpu", "--no-mirroring"]
EVALUATE = ["evaluate", "-r", str(RAW / "labelsTr"), "-p", "masks"]
DOCTOR = ["doctor", "-d", "7", "--workers", "1"]

BAD_NAMES = (
    "", ".", "..", "../x", "../../x", "/tmp/x", "a/b", "a\\b", "a\0b", "a\nb", "\x1b[2J", "\ud800", "CON", "nul.txt",
    "a" * 151, "é" * 80, "a\u202eb", " ",
)  # fmt: skip
NO_JSON = {
    "empty": b"", "brackets": b"[" * 300_000, "objects": b'{"a":' * 300_000, "no utf-8": b'{"a": "\xff"}',
    "number": b'{"a": ' + b"9" * 6000 + b"}", "twice": b'{"a": 1, "a": 2}', "list": b"[1, 2]", "text": b'"x"',
    "null": b"null", "cut": b'{"labels": {"background": 0', "zeros": bytes(1000), "nan": b'{"a": NaN, "schema_version": 1}',
}  # fmt: skip
ABSURD = (0, -1, 10**9, 10**18, "x", None, [], {})


@dataclass(frozen=True)
class Hostile:
    """name: what it is. command: words that meet it. spoil: changes the root. codes: exit codes that are right."""

    name: str
    command: Sequence[str]
    spoil: Callable[[Path], object]
    codes: tuple[int, ...] = REFUSED


@dataclass(frozen=True)
class Outcome:
    hostile: Hostile
    code: int
    seconds: float
    megabytes: float
    said: str
    strays: list[str]

    @property
    def problem(self) -> str:
        """What is wrong; empty where nothing is."""
        if self.code == -9:
            return f"did not end within {LONGEST * GENEROUS:.0f} s"
        if self.code == 70 or "Traceback" in self.said:
            return "a traceback: " + (self.said.strip().splitlines() or [""])[-1]
        if self.code not in self.hostile.codes:
            return f"exit code {self.code}: {self.said[-300:]}"
        if self.megabytes > MOST_MEMORY:
            return f"{self.megabytes:.0f} MB"
        if self.strays:
            return f"changed outside of the root: {', '.join(self.strays)}"
        if printable(self.said, keep="\n\t") != self.said:
            return f"not printable: {self.said!r:.300}"
        return ""


# ------------------------------------------------------------------------------------- running


@contextmanager
def runner(folder: Path) -> Iterator[Callable[[Hostile], Outcome]]:
    """A function that runs one input after the other, each on a fresh copy of one base."""
    made = folder / "base"
    base(made)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, str(Path(__file__).with_name("zygote.py"))]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as zygote:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        assert zygote.stdout.readline() == "ready\n"

        def run(hostile: Hostile) -> Outcome:
            place = folder / "place"
            shutil.rmtree(place, ignore_errors=True)
            root = place / "around" / "root"
            shutil.copytree(made, root)
            hostile.spoil(root)
            before = listing(place, root)
            request = {"words": list(hostile.command), "folder": str(root), "root": str(root)}
            print(json.dumps(request | {"seconds": LONGEST * GENEROUS}), file=zygote.stdin, flush=True)
            answer = json.loads(zygote.stdout.readline())
            after = listing(place, root)
            strays = sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))
            return Outcome(hostile, strays=strays, **answer)

        yield run
        zygote.stdin.close()


def listing(place: Path, root: Path) -> dict[Path, float]:
    """What lies around the root, and when it was changed."""
    return {
        path: path.lstat().st_mtime
        for path in place.rglob("*")
        if not path.is_relative_to(root) and path not in root.parents
    }


def base(root: Path) -> None:
    """A root with a raw dataset, its plan and cache, and a run that has "trained" on it."""
    dataset = make_dataset(root / "raw", "nnunet", cases=5, shape=(8, 10, 9))
    words = ("plan_and_preprocess", "-d", 7, "--llm", "none", "--memory", "1GB", "--device", "cpu", "--workers", 1)
    succeed(*words, root=root)
    plan = read_document(root / PREPARED / "plans.json", Plan)
    write_trained(root, plan, plan.recommended)
    for part, name in (("imagesTr", "imgs"), ("labelsTr", "masks")):
        (root / name).mkdir()
        for file in sorted((dataset / part).iterdir())[:2]:
            shutil.copy(file, root / name / file.name.replace("_0000.", "."))


# ------------------------------------------------------------------------------------- the corpus


def corpus() -> Iterator[Hostile]:
    yield from descriptions()
    yield from contract_files()
    yield from plan_numbers()
    yield from names()
    yield from checkpoints()
    yield from images()
    yield from options()
    yield from special_files()


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
        "none": {}, "null": None, "a list": ["MRI"], "from one": {"1": "MRI"}, "words": {"first": "MRI"},
        "5000": {str(n): "MRI" for n in range(5000)}, "two for one file": {"0": "MRI", "1": "CT"},
    }  # fmt: skip
    for what, value in channels.items():
        yield Hostile(f"channels: {what}", PLAN, changes(RAW / "dataset.json", ["channel_names"], value))
    entry = {"images": ["imagesTr/tiny_000_0000.nii.gz"], "label": "labelsTr/tiny_000.nii.gz"}
    for name in BAD_NAMES:
        spoil = changes(RAW / "dataset.json", ["dataset"], {name: entry})
        yield Hostile(f"case name {name!a:.40}", PREPARE, spoil)
    cases: dict[str, Any] = {
        "no entry": {"a": None}, "a number": {"a": 1}, "no images": {"a": {"label": "x"}}, "images null": {"a": entry | {"images": None}},
        "missing file": {"a": entry | {"label": "nowhere.nii.gz"}}, "NUL": {"a": entry | {"label": "a\0b"}},
        "a folder": {"a": entry | {"label": "labelsTr"}}, "itself": {"a": entry | {"label": "dataset.json"}},
        "surrogate": {"a": entry | {"label": "\ud800.nii.gz"}}, "long": {"a": entry | {"label": "a" * 5000}},
    }  # fmt: skip
    for what, value in cases.items():
        yield Hostile(f"cases: {what}", PLAN, changes(RAW / "dataset.json", ["dataset"], value))
    order = {"labels": {"background": 0, "a": [1, 2], "b": [2]}}
    for value in ([], [1], [1, 9], [0, 0], ["x", "y"], None, [10**30, 1]):
        spoil = several(changes(RAW / "dataset.json", ["labels"], order["labels"]), changes(RAW / "dataset.json", ["regions_class_order"], value))  # fmt: skip
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
        "a header of 2^60": struct.pack("<Q", 2**60) + b"{}", "a header of 50 MB": struct.pack("<Q", 50 << 20) + b" " * 100,
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
    for key, value in {
        "schema_version": 2, "fold": "../x", "configuration": "../x", "step": -1, "dataset": "..", "plan_hash": "other",
        "configuration ": "2d", "elapsed": -1.0, "training_cases": ["../x"], "previous": {"run": "..", "configuration": "a", "checkpoints": {}},
    }.items():  # fmt: skip
        spoil = lambda root, key=key.strip(), value=value: change_state(root / fold, key, value)  # noqa: E731
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
        "an offset of -5": nifti(offset=-5.0), "an offset of 1e30": nifti(offset=1e30), "an offset of NaN": nifti(offset=float("nan")),
        "voxels of no size": nifti(pixdim=(1, 0, 0, 0)), "voxels of NaN": nifti(pixdim=(1, float("nan"), 1, 1)),
        "voxels of 1e-30 mm": nifti(pixdim=(1, 1e-30, 1e-30, 1e-30)), "voxels of 1e30 mm": nifti(pixdim=(1, 1e30, 1e30, 1e30)),
    }.items():  # fmt: skip
        yield Hostile(f"training image: {what}", PLAN, writes(raw, content), DONE)
        yield Hostile(f"new image: {what}", PREDICT, writes(new, content), DONE)
    for ending in (".nrrd", ".mha", ".png", ".tif", ".bmp", ".mhd"):
        for what, content in {"empty": b"", "noise": os.urandom(3000), "text": b"NRRD0004\ntype: float\n" * 50}.items():
            spoil = writes(Path("imgs") / f"new{ending}", content)
            yield Hostile(f"new image {ending}: {what}", PREDICT, spoil, DONE)


def options() -> Iterator[Hostile]:
    for dataset in ("", "..", "../..", "/", "nowhere", "../../x", "99999", "-1", "\x1b[2J", "a" * 5000):
        yield Hostile(f"train {dataset!a:.30}", ["train", dataset, *TRAIN[2:]] if dataset[:1] != "-" else ["train", "--", dataset, "0"], nothing)  # fmt: skip
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
        RAW / "dataset.json": PLAN, PREPARED / "plans.json": TRAIN, PREPARED / "splits.json": TRAIN, run / "plans.json": PREDICT,
        PREPARED / "3d_fullres" / "tiny_000.json": TRAIN, PREPARED / "3d_fullres" / "tiny_000.b2nd": TRAIN,
        run / "fold0" / "checkpoint.safetensors": PREDICT, RAW / "groups.csv": PLAN,
    }.items():  # fmt: skip
        for what, make in {"a pipe": os.mkfifo, "/dev/zero": lambda path: os.symlink("/dev/zero", path), "a folder": os.mkdir}.items():  # fmt: skip
            yield Hostile(
                f"{file} is {what}", command, lambda root, file=file, make=make: instead(root / file, make), PARTLY
            )
    for file in (RAW / "imagesTr" / "tiny_000_0000.nii.gz", RAW / "labelsTr" / "tiny_000.nii.gz"):
        for what, make in {"a pipe": os.mkfifo, "/dev/zero": lambda path: os.symlink("/dev/zero", path), "a loop": lambda path: os.symlink(path, path)}.items():  # fmt: skip
            yield Hostile(
                f"{file} is {what}", PLAN, lambda root, file=file, make=make: instead(root / file, make), PARTLY
            )
    yield Hostile("log.txt is a link", PLAN, lambda root: instead(root / PREPARED / "log.txt", link_outside))
    yield Hostile(
        "the output's log.txt is a link", PREDICT, lambda root: instead(root / "preds" / "log.txt", link_outside)
    )
    yield Hostile(".lock is a link", PLAN, lambda root: instead(root / PREPARED / ".lock", link_outside), DONE)


# ------------------------------------------------------------------------------------- how they are made


def nothing(root: Path) -> None:
    return None


def writes(file: Path, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / file).write_bytes(content)


def several(*spoilers: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: [spoil(root) for spoil in spoilers]


def changes(file: Path, place: Sequence[Any], value: Any) -> Callable[[Path], object]:
    """Put a value into a JSON file, at a place that its keys and indices name."""

    def spoil(root: Path) -> None:
        content = json.loads((root / file).read_text(encoding="utf-8"))
        (root / file).write_text(json.dumps(replaced(content, place, value)), encoding="utf-8")

    return spoil


def replaced(content: Any, place: Sequence[Any], value: Any) -> Any:
    if not place:
        return value
    changed = copy.copy(content)
    inner = content[place[0]] if isinstance(content, list) else content.get(place[0])
    changed[place[0]] = replaced(inner, place[1:], value)
    return changed


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)


def link_outside(path: Path) -> None:
    precious = next(folder for folder in path.parents if folder.name == "around") / "precious.txt"
    precious.write_text("precious")
    os.symlink(precious, path)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def change_tensors(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, framework="np") as stream:
        metadata = stream.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def reshape_one(tensors: dict[str, Any]) -> None:
    name = max(tensors, key=lambda name: tensors[name].size)
    tensors[name] = np.ascontiguousarray(tensors[name].reshape(-1))


def retype_one(tensors: dict[str, Any], dtype: Any) -> None:
    name = next(iter(tensors))
    tensors[name] = tensors[name].astype(dtype)


def change_state(path: Path, key: str, value: Any) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(path, framework="np") as stream:
        state = json.loads(stream.metadata()["state"])
    save_file(load_file(path), path, metadata={"state": json.dumps(state | {key: value})})


def nifti(
    dim: tuple[int, ...] = (3, 8, 9, 10),
    datatype: int = 16,
    offset: float = 352.0,
    pixdim: tuple[float, ...] = (1, 1, 1, 1),
) -> bytes:
    """A gzipped NIfTI-1 file of float32, whose header says what it likes."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, *dim, *[1] * (8 - len(dim)))
    struct.pack_into("<hh", header, 70, datatype, 32)
    struct.pack_into("<8f", header, 76, *pixdim, *[1.0] * (8 - len(pixdim)))
    struct.pack_into("<f", header, 108, offset)
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + bytes(4 * 8 * 9 * 10))


def bomb() -> bytes:
    """A small image, and two gigabytes of zeros behind its voxels: two megabytes in the file."""
    zeros = gzip.compress(bytes(64 << 20), 9)
    return nifti() + zeros * 32


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mvl-hostile-") as folder, runner(Path(folder)) as run:
        outcomes = []
        for hostile in corpus():
            outcomes.append(run(hostile))
            if outcomes[-1].problem:
                print(f"{hostile.name}: {outcomes[-1].problem}", flush=True)
    bad = [outcome for outcome in outcomes if outcome.problem]
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    largest = max(outcomes, key=lambda outcome: outcome.megabytes)
    print(f"{len(outcomes)} inputs, {len(bad)} problems")
    print(f"slowest: {slowest.seconds:.1f} s, {slowest.hostile.name}")
    print(f"largest: {largest.megabytes:.0f} MB, {largest.hostile.name}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
