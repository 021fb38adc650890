"""Examinations that are kept: what is missing is examined and nothing else, and the fingerprint is the same."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import make_case, make_dataset, write_array

from mvl_auto.datasets import load_case, read_dataset
from mvl_auto.errors import MvlError
from mvl_auto.files import clear_unfinished
from mvl_auto.planners import fingerprint_dataset
from mvl_auto.planners.fingerprint import case as examine
from mvl_auto.planners.fingerprint import store as examined
from mvl_auto.plans import write_document

SPACING = (3.0, 0.7421875, 0.1 + 0.2)
NAMES = [f"tiny_{n:03d}" for n in range(6)]
PATIENCE = 120  # s


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two channels of noise, patients, and one case that is odd."""
    folder = make_dataset(tmp_path / "raw", "nnunet", cases=6, shape=(10, 12, 11), channels=2, spacing=SPACING)
    (folder / "groups.csv").write_text("case,group\ntiny_001,anna\ntiny_002,anna\n")
    image = folder / "imagesTr" / "tiny_004_0001.nii.gz"
    first, _ = load_case(read_dataset(folder).cases[4], read_dataset(folder).labels)
    write_array(image, np.full(first.array.shape[1:], 7, np.float32), SPACING)
    return folder


@pytest.fixture
def keep(tmp_path: Path) -> Path:
    return tmp_path / "prepared" / ".examined"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases whose voxels are read in this process, as they come."""
    names: list[str] = []

    def load_and_note(case, *rest):
        names.append(case.name)
        return load_case(case, *rest)

    monkeypatch.setattr(examine, "load_case", load_and_note)
    return names


def take(folder: Path, keep: Path | None = None, **options) -> bytes:
    """The fingerprint as it is on disk."""
    options = {"workers": 1} | options
    path = folder.parent / "fingerprint.json"
    write_document(path, fingerprint_dataset(read_dataset(folder), cache=keep, **options))
    return path.read_bytes()


def stamps(keep: Path) -> dict[str, int]:
    return {file.stem: file.stat().st_mtime_ns for file in keep.iterdir()}


def renew(folder: Path, name: str, seed: int) -> None:
    """Other voxels in both channels and the label of a case."""
    image, classes = make_case(channels=2, seed=seed)
    for channel, array in enumerate(image):
        write_array(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz", array, SPACING)
    write_array(folder / "labelsTr" / f"{name}.nii.gz", classes, SPACING)


# ------------------------------------------------------------------------------- the same, and not again


@pytest.mark.parametrize("workers", [1, 2])
def test_with_or_without_it_is_the_same_to_the_byte(dataset, keep, loaded, workers):
    expected = take(dataset)
    assert len(json.loads(expected)["anomalies"]) == 1
    loaded.clear()
    assert take(dataset, keep, workers=workers) == expected
    assert sorted(stamps(keep)) == NAMES
    before = stamps(keep)
    loaded.clear()
    assert take(dataset, keep, workers=workers) == expected
    assert take(dataset, keep) == expected
    assert loaded == []
    assert stamps(keep) == before


def test_whatever_is_missing_and_in_whatever_order(dataset, keep, loaded):
    expected = take(dataset, keep)
    raw = read_dataset(dataset)
    for missing in ([0], [5], [1, 3, 4], range(6)):
        for n in missing:
            (keep / f"{NAMES[n]}.npz").unlink()
        loaded.clear()
        turned = fingerprint_dataset(replace(raw, cases=raw.cases[::-1]), cache=keep, workers=1)
        assert loaded == [NAMES[n] for n in missing]
        write_document(dataset.parent / "turned.json", turned)
        assert (dataset.parent / "turned.json").read_bytes() == expected


def test_progress_moves_once_a_case_whether_it_was_known_or_not(dataset, keep):
    told = []

    class Bar:
        def __init__(self, what, total, unit="case", done=0):
            told.append(total)

        def __enter__(self):
            return lambda amount=1, note="": told.append((amount, note))

        def __exit__(self, *error):
            told.append("closed")

    take(dataset, keep)
    (keep / f"{NAMES[2]}.npz").unlink()
    take(dataset, keep, progress=Bar)
    assert told == [6, *((1, name) for name in NAMES), "closed"]


def test_nothing_is_written_where_nothing_is_to_be_kept(dataset, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    fingerprint_dataset(read_dataset(dataset), workers=1)
    assert sorted(tmp_path.rglob("*")) == before


# ------------------------------------------------------------------------------------- what has changed


def test_a_changed_case_is_examined_anew_and_no_other(dataset, keep, loaded):
    before = take(dataset, keep)
    renew(dataset, NAMES[3], seed=77)
    loaded.clear()
    after = take(dataset, keep)
    assert loaded == [NAMES[3]]
    assert before != after == take(dataset)


def test_a_changed_label_file_alone_is_noticed(dataset, keep, loaded):
    take(dataset, keep)
    label = dataset / "labelsTr" / f"{NAMES[1]}.nii.gz"
    _, classes = load_case(read_dataset(dataset).cases[1], read_dataset(dataset).labels)
    write_array(label, np.roll(classes, 1, axis=1).astype(np.uint8), SPACING)
    loaded.clear()
    after = take(dataset, keep)
    assert loaded == [NAMES[1]]
    assert after == take(dataset)


OTHER_LABELS = {
    "another name": {"background": 0, "nucleus": 1, "shell": 2},
    "names exchanged": {"background": 0, "core": 2, "shell": 1},
    "one more label": {"background": 0, "core": 1, "shell": 2, "third": 3},
    "one of them ignored": {"background": 0, "core": 1, "ignore": 2},
}


@pytest.mark.parametrize("what", OTHER_LABELS)
def test_other_labels_in_dataset_json_examine_all_anew(dataset, keep, loaded, what):
    before = take(dataset, keep)
    description = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    (dataset / "dataset.json").write_text(json.dumps(description | {"labels": OTHER_LABELS[what]}))
    loaded.clear()
    after = take(dataset, keep)
    assert loaded == NAMES
    assert before != after == take(dataset)


def test_another_way_to_examine_examines_all(dataset, keep, loaded, monkeypatch):
    take(dataset, keep)
    loaded.clear()
    monkeypatch.setattr(examined, "FINGERPRINT_VERSION", examine.FINGERPRINT_VERSION + 1)
    take(dataset, keep)
    assert loaded == NAMES


def test_another_number_of_channels_in_dataset_json_is_not_overlooked(dataset, keep):
    raw = read_dataset(dataset)
    fingerprint_dataset(raw, cache=keep, workers=1)
    with pytest.raises(MvlError, match="has 2 channels, expected 1"):
        fingerprint_dataset(replace(raw, channels=raw.channels[:1]), cache=keep, workers=1)


def test_another_patient_needs_no_examination(dataset, keep, loaded):
    take(dataset, keep)
    (dataset / "groups.csv").write_text("case,group\ntiny_000,bert\ntiny_001,bert\n")
    loaded.clear()
    after = take(dataset, keep)
    assert loaded == []
    assert after == take(dataset)
    groups = [case["group"] for case in json.loads(after)["cases"]]
    assert groups == ["bert", "bert", *NAMES[2:]]


def test_files_of_another_name_are_told_by_that_name(dataset, keep):
    """The bytes of the odd case, and its name, stay what they are."""
    assert b"imagesTr/tiny_004_0000.nii.gz" in take(dataset, keep)
    raw = read_dataset(dataset)
    images = [file.rename(file.with_name(file.name.replace("tiny", "renamed"))) for file in raw.cases[4].images]
    renamed = replace(raw, cases=(*raw.cases[:4], replace(raw.cases[4], images=tuple(images)), raw.cases[5]))
    (odd,) = fingerprint_dataset(renamed, cache=keep, workers=1).anomalies
    assert odd.file == "imagesTr/renamed_004_0000.nii.gz"


def test_what_is_known_of_cases_that_have_left_is_removed(dataset, keep, loaded):
    take(dataset, keep)
    for file in [*dataset.glob("imagesTr/tiny_003*"), *dataset.glob("labelsTr/tiny_003*")]:
        file.unlink()
    loaded.clear()
    after = take(dataset, keep)
    assert sorted(stamps(keep)) == [name for name in NAMES if name != "tiny_003"]
    assert loaded == []
    assert after == take(dataset)


def test_a_broken_case_refuses_the_dataset_and_once_repaired_is_the_only_one_examined(dataset, keep, loaded):
    expected = take(dataset)
    file = dataset / "imagesTr" / "tiny_002_0000.nii.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:200])
    for _ in range(2):
        with pytest.raises(MvlError, match=r"tiny_002_0000\.nii\.gz"):
            take(dataset, keep)
        assert sorted(stamps(keep)) == [name for name in NAMES if name != "tiny_002"]
    file.write_bytes(whole)
    loaded.clear()
    assert take(dataset, keep) == expected
    assert loaded == ["tiny_002"]


# ------------------------------------------------------------------------------------------ damage


def test_a_damaged_one_is_made_anew(dataset, keep, loaded):
    expected = take(dataset, keep)
    damages = [b"", b"damaged", (keep / f"{NAMES[0]}.npz").read_bytes()[:-30], (keep / f"{NAMES[1]}.npz").read_bytes()]
    for name, damage in zip(NAMES, damages, strict=False):  # the last is another case's
        (keep / f"{name}.npz").write_bytes(damage)
    loaded.clear()
    assert take(dataset, keep) == expected
    assert loaded == [NAMES[0], NAMES[1], NAMES[2], NAMES[3]]
    loaded.clear()
    assert take(dataset, keep) == expected
    assert loaded == []


def test_no_byte_can_change_unnoticed(tmp_path, keep):
    """Wherever a bit flips, or the file ends: the examination is none, or as it was."""
    folder = make_dataset(tmp_path / "raw", "nnunet", cases=1, shape=(4, 5, 6))
    raw = read_dataset(folder)
    arguments = (raw.cases[0], raw.labels, 1, raw.folder, keep)
    expected, _ = examined.fingerprint_once(*arguments)
    conditions = examined._conditions_hash(*arguments[:-1])
    path = keep / "tiny_000.npz"
    whole = path.read_bytes()
    none = 0
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        for damaged in (bytes(flipped), whole[:place]):
            path.write_bytes(damaged)
            found = examined._read(path, conditions)
            none += found is None
            assert found is None or same(found, expected), place
    assert none > len(whole)


def same(found: examine.FingerprintedCase, expected: examine.FingerprintedCase) -> bool:
    def plain(examination: examine.FingerprintedCase):
        numbers = [
            (sketch.mean, sketch.variance, sketch.least, sketch.greatest, [*sketch.buckets], [*sketch.shares])
            for sketch in examination.sketches
        ]
        return examination.fingerprint, examination.anomalies, numbers

    return plain(found) == plain(expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_that_cannot_be_written_is_told_at_once(dataset, keep, loaded, workers):
    keep.parent.mkdir()
    keep.write_text("in the way")
    with pytest.raises(MvlError, match="cannot be written") as raised:
        take(dataset, keep, workers=workers)
    assert str(keep) in str(raised.value)
    assert "cannot be used either" not in str(raised.value)
    assert len(loaded) <= 1
    assert keep.read_text() == "in the way"


BEHIND_THE_CHECKSUM = {
    "no bucket": {"buckets_0": np.zeros(0, np.int64), "shares_0": np.zeros(0, np.int64)},
    "a bucket that there is not": {"buckets_0": np.array([1 << 40]), "shares_0": np.array([1])},
    "a negative bucket": {"buckets_0": np.array([-1]), "shares_0": np.array([1])},
    "buckets that fall": {"buckets_0": np.array([5, 3]), "shares_0": np.array([1, 1])},
    "fewer shares than buckets": {"shares_0": np.array([1])},
    "buckets in a table": {"buckets_0": np.array([[5]]), "shares_0": np.array([[1]])},
    "half a bucket": {"buckets_0": np.array([0.5]), "shares_0": np.array([1])},
    "a negative share": {"buckets_0": np.array([3, 5]), "shares_0": np.array([-1, 2])},
    "no share": {"buckets_0": np.array([3]), "shares_0": np.array([0])},
    "shares of many cases": {"buckets_0": np.array([3]), "shares_0": np.array([2**62])},
    "a negative variance": {"moments_0": np.array([1.0, -1.0, 0.0, 2.0])},
    "a mean that is no number": {"moments_0": np.array([np.nan, 1.0, 0.0, 2.0])},
    "a greatest value without end": {"moments_0": np.array([1.0, 1.0, 0.0, np.inf])},
    "a mean beyond float32": {"moments_0": np.array([1e200, 1.0, 0.0, 2.0])},
    "a variance beyond float32": {"moments_0": np.array([1.0, 1e300, 0.0, 2.0])},
    "three moments": {"moments_0": np.array([1.0, 1.0, 0.0])},
}


@pytest.mark.parametrize("what", BEHIND_THE_CHECKSUM)
def test_impossible_numbers_in_an_entry_are_examined_anew(dataset, keep, loaded, what):
    """They are packed with a sound checksum, as by somebody who edits the file."""
    expected = take(dataset, keep)
    entry = keep / "tiny_002.npz"
    with np.load(entry) as stored:
        arrays = dict(stored)
    np.savez_compressed(entry, **(arrays | BEHIND_THE_CHECKSUM[what]))
    loaded.clear()
    assert take(dataset, keep) == expected
    assert loaded == ["tiny_002"]


NO_ARRAY = b"not an array"  # numpy gives the bytes of such a member
NO_HEADER = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<i8', 'fortran_order': (".ljust(117) + b"\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [*((name, NO_ARRAY) for name in ("card", "moments_0", "buckets_1", "shares_0")), ("buckets_0", NO_HEADER)],
)
def test_a_member_of_an_entry_that_is_no_array_is_examined_anew(dataset, keep, loaded, name, content):
    """With a sound checksum."""
    expected = take(dataset, keep)
    entry = keep / "tiny_002.npz"
    with zipfile.ZipFile(entry) as old:
        members = {member: old.read(member) for member in old.namelist()}
    with zipfile.ZipFile(entry, "w") as new:
        for member, packed in (members | {f"{name}.npy": content}).items():
            new.writestr(member, packed)
    loaded.clear()
    assert take(dataset, keep) == expected
    assert loaded == ["tiny_002"]


# ------------------------------------------------------------------------------------------ killed

SCRIPT = """
    import os, signal, sys
    from contextlib import contextmanager
    from pathlib import Path
    from mvl_auto.datasets.dataset import read_dataset
    from mvl_auto.planners import fingerprint_dataset

    @contextmanager
    def progress(what, total, unit="case", done=0):
        finished = 0
        def advance(amount=1, note=""):
            nonlocal finished
            finished += 1
            if finished == 3:
                {third}
        yield advance

    if __name__ == "__main__":
        {before}
        raw = read_dataset(Path(sys.argv[1]))
        fingerprint_dataset(raw, cache=Path(sys.argv[2]), workers=int(sys.argv[3]), progress=progress)
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def run_and_die(dataset: Path, keep: Path, workers: int, third: str = "pass", before: str = "pass") -> None:
    script = dataset.parent / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(third=third, before=before))
    command = [sys.executable, script, dataset, keep, str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    _, complaints = process.communicate(timeout=PATIENCE)  # the pipe closes when the last worker has ended
    assert process.returncode == -signal.SIGKILL, complaints


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_half_way_and_started_again(dataset, keep, loaded, workers):
    expected = take(dataset)
    run_and_die(dataset, keep, workers, third=KILL)
    finished = {file.stem: file.stat().st_mtime_ns for file in keep.glob("*.npz")}
    assert 3 <= len(finished) < 6
    loaded.clear()
    clear_unfinished(keep.parent)
    assert take(dataset, keep) == expected
    assert loaded == [name for name in NAMES if name not in finished]
    after = stamps(keep)
    assert sorted(after) == NAMES
    assert {name: after[name] for name in finished} == finished


def test_killed_while_one_is_written(dataset, keep, loaded):
    """What the killed process was writing is cleared with all else of the preprocessed dataset."""
    before = (
        f"import mvl_auto.files as f; to = f.os.replace; n = []; "
        f"f.os.replace = lambda *a: n.append(1) or (to(*a) if len(n) < 3 else {KILL})"
    )
    run_and_die(dataset, keep, 1, before=before)
    assert sorted(file.stem for file in keep.glob("*.npz")) == NAMES[:2]
    assert list(keep.glob(".writing-*"))
    clear_unfinished(keep.parent)
    assert sorted(stamps(keep)) == NAMES[:2]
    loaded.clear()
    take(dataset, keep)
    assert loaded == NAMES[2:]


def test_what_was_kept_in_a_copied_folder_holds_there_too(dataset, keep, loaded, tmp_path):
    """Of files in the dataset, their place in it counts: the dataset itself may move."""
    expected = take(dataset, keep)
    moved = tmp_path / "elsewhere" / dataset.name
    shutil.copytree(dataset, moved)
    loaded.clear()
    assert take(moved, keep) == expected
    assert loaded == []
