"""The cache against numpy's own slicing, and what is left of it after damage."""

from __future__ import annotations

import errno
import math
import os
import pickle
import shutil

import numpy as np
import pytest
from fingerprints import case_of, fingerprint_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mvl_auto.cache import bricks, find_stale, is_cached, open_case, shared_lock, write_case
from mvl_auto.errors import MvlError
from mvl_auto.files import CannotWrite
from mvl_auto.locks import locked
from mvl_auto.plans import IGNORE, CachedCase, Trail

SHAPE = (2, 70, 50, 90)  # several chunks
FILES, SETTINGS = "f" * 64, "5" * 64
CLASSES = 3
ARRAYS = ["case.b2nd", "case.seg", "case.locations"]


def card(shape, name="case"):
    trail = Trail(
        shape=shape[1:],
        transpose_forward=(0, 1, 2),
        crop=tuple((0, size) for size in shape[1:]),
        spacing=(1.0, 1.0, 1.0),
        resampled_shape=shape[1:],
        resampled_spacing=(1.0, 1.0, 1.0),
        separate_axis=None,
    )
    return CachedCase(
        name=name, shape=shape, trail=trail, files_hash=FILES, settings_hash=SETTINGS, class_voxels=(1, 2, 3)
    )


def make(folder, shape=SHAPE, seed=0, patch_size=(32, 32, 32), name="case"):
    """Write a case; returns its image, label and locations."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=shape).astype(np.float32)
    label = rng.integers(IGNORE, 4, shape[1:]).astype(np.int16)
    locations = {k: np.argwhere(label == k)[:100].astype(np.int32) for k in (1, 3)}
    write_case(folder, image, label, card(shape, name), locations, patch_size)
    return image, label, locations


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return folder, *make(folder)


@pytest.fixture
def copied(written, tmp_path):
    return shutil.copytree(written[0], tmp_path / "cache")


def intervals(size):
    return st.tuples(st.integers(0, size), st.integers(0, size)).map(lambda pair: tuple(sorted(pair)))


@settings(max_examples=40, deadline=None)
@given(box=st.tuples(*(intervals(size) for size in SHAPE[1:])))
def test_any_box_is_what_numpy_cuts_out(written, box):
    folder, image, label, _ = written
    reader = open_case(folder, "case")
    cut = tuple(slice(*sides) for sides in box)
    assert np.array_equal(reader.image(box), image[(slice(None), *cut)])
    assert np.array_equal(reader.label(box), label[cut])


def test_the_whole_case(written):
    folder, image, label, locations = written
    reader = open_case(folder, "case")
    assert np.array_equal(reader.image(), image)
    assert np.array_equal(reader.label(), label)
    assert (reader.image().dtype, reader.label().dtype) == (np.float32, np.int16)
    assert reader.cached == card(SHAPE)
    for k, voxels in locations.items():
        assert np.array_equal(reader.locations(k), voxels)
    assert reader.locations(2).shape == (0, 3)


@pytest.mark.parametrize(
    ("shape", "patch_size"),
    [((1, 36, 50, 35), (32, 40, 32)), ((3, 1, 603, 1272), (256, 512)), ((1, 1, 1, 1), (8, 8, 8)), ((2, 5, 6, 7), None)],
)
def test_other_shapes(tmp_path, shape, patch_size):
    image, label, _ = make(tmp_path, shape, patch_size=patch_size)
    reader = open_case(tmp_path, "case")
    assert np.array_equal(reader.image(), image)
    assert np.array_equal(reader.label(), label)


def test_a_case_without_any_labelled_voxel(tmp_path):
    write_case(tmp_path, np.zeros((1, 4, 5, 6), np.float32), np.zeros((4, 5, 6), np.int16), card((1, 4, 5, 6)), {})
    assert open_case(tmp_path, "case").locations(1).shape == (0, 3)
    assert is_cached(tmp_path, "case", FILES, SETTINGS, CLASSES)


def test_the_image_may_be_a_view(tmp_path):
    image = np.random.default_rng(0).normal(size=(9, 8, 7, 1)).astype(np.float32).transpose(3, 2, 0, 1)
    write_case(tmp_path, image, np.zeros((7, 9, 8), np.int16)[:, ::-1], card(image.shape), {})
    assert np.array_equal(open_case(tmp_path, "case").image(), image)


def test_a_reader_can_be_sent_to_another_process(written):
    reader = pickle.loads(pickle.dumps(open_case(written[0], "case")))  # noqa: S301
    assert np.array_equal(reader.image(((1, 2), (3, 9), (0, 4))), written[1][:, 1:2, 3:9, 0:4])


def test_a_reader_holds_no_file_open(written):
    import psutil

    before = psutil.Process().num_fds()
    readers = [open_case(written[0], "case") for _ in range(20)]
    for reader in readers:
        reader.image(((0, 4), (0, 4), (0, 4)))
        reader.locations(1)
    assert psutil.Process().num_fds() == before


def test_cases_of_confusing_names_do_not_meet(tmp_path):
    names = ["a.seg", "a.locations", "a.seg.b2nd", "a.b2nd", "a.json", "a", "a_seg", "a.1", "a.seg.seg"]
    both = {name: make(tmp_path, (1, 4, 5, 6), seed, name=name) for seed, name in enumerate(names)}
    for name, (image, label, _) in both.items():
        assert np.array_equal(open_case(tmp_path, name).image(), image)
        assert np.array_equal(open_case(tmp_path, name).label(), label)


def test_cached_means_these_files_and_these_settings(copied):
    assert is_cached(copied, "case", FILES, SETTINGS, CLASSES)
    assert not is_cached(copied, "case", "0" * 64, SETTINGS, CLASSES)
    assert not is_cached(copied, "case", FILES, "0" * 64, CLASSES)
    assert not is_cached(copied, "other", FILES, SETTINGS, CLASSES)
    assert not is_cached(copied, "case", FILES, SETTINGS, CLASSES + 1), "a card that was edited"


@pytest.mark.parametrize("name", [*ARRAYS, "case.json"])
@pytest.mark.parametrize("left", [None, 0, 10, 0.5, -1])
def test_a_missing_or_truncated_file_is_named_and_not_trusted(copied, name, left):
    file = copied / name
    content = file.read_bytes()
    if left is None:
        file.unlink()
    else:
        file.write_bytes(content[: int(left * len(content)) if isinstance(left, float) else left])
    if name == "case.json" and left == -1:
        return  # the newline at the end
    assert not is_cached(copied, "case", FILES, SETTINGS, CLASSES)
    with pytest.raises(MvlError, match=rf"{name}: is .*\. .*un mvl_plan_and_preprocess"):
        read_all(copied)


@pytest.mark.parametrize("name", ARRAYS)
def test_bytes_that_make_no_sense_are_named(copied, name):
    (copied / name).write_bytes(np.random.default_rng(0).bytes(5000))
    assert not is_cached(copied, "case", FILES, SETTINGS, CLASSES)
    with pytest.raises(MvlError, match=rf"{name}: is damaged"):
        read_all(copied)


def test_an_array_of_another_case_is_not_taken_for_this_one(copied, tmp_path):
    make(tmp_path, (2, 70, 50, 89))
    shutil.copy(tmp_path / "case.b2nd", copied / "case.b2nd")
    assert not is_cached(copied, "case", FILES, SETTINGS, CLASSES)
    with pytest.raises(MvlError, match=r"case\.b2nd: holds 2 x 70 x 50 x 89 .*2 x 70 x 50 x 90"):
        read_all(copied)


@pytest.mark.parametrize("which", [1, 2, 3, 4])
def test_a_full_disk_leaves_no_case_not_even_the_old_one(copied, monkeypatch, which):
    calls = []

    def replace(source, target, really=os.replace):
        calls.append(target)
        if len(calls) == which:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(CannotWrite, match="cannot be written"):
        make(copied, seed=1)
    assert not is_cached(copied, "case", FILES, SETTINGS, CLASSES)
    assert not list(copied.glob(".writing-*"))
    monkeypatch.undo()
    image, *_ = make(copied, seed=1)
    assert np.array_equal(open_case(copied, "case").image(), image)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_bytes_that_have_changed_are_named_not_handed_out(copied, name, where):
    """Five hundred zeros where the voxels are: decompression would not notice most of them."""
    file = copied / name
    content = bytearray(file.read_bytes())
    at = int(where * (len(content) - 2000)) + 500
    content[at : at + 500] = bytes(500)
    file.write_bytes(content)
    with pytest.raises(MvlError, match=rf"{name}: is damaged .*\. Delete it\. Run mvl_plan_and_preprocess again\.$"):
        read_all(copied)
    file.unlink()
    assert not is_cached(copied, "case", FILES, SETTINGS, CLASSES), "after what the message says, it is prepared anew"


def test_a_patch_at_one_end_of_a_case_does_not_read_the_other(tmp_path):
    image, *_ = make(tmp_path, (1, 140, 130, 120), patch_size=(64, 64, 64))
    file = tmp_path / "case.b2nd"
    content = bytearray(file.read_bytes())
    content[1000:1500] = bytes(500)
    file.write_bytes(content)
    assert np.array_equal(
        open_case(tmp_path, "case").image(((136, 140),) + ((100, 120),) * 2), image[:, 136:, 100:120, 100:]
    )
    with pytest.raises(MvlError, match="is damaged"):
        open_case(tmp_path, "case").image(((0, 4),) * 3)


@given(
    shape=st.tuples(*[st.integers(1, 600)] * 3),
    patch=st.tuples(*[st.integers(1, 256)] * 3),
    most=st.integers(1, 1 << 20),
)
def test_bricks_are_as_large_as_they_may_be(shape, patch, most):
    brick = bricks(shape, patch, most)
    assert math.prod(brick) <= most
    assert all(1 <= part <= whole for part, whole in zip(brick, shape, strict=True))
    grown = [math.prod(brick) // brick[n] * min(2 * brick[n], shape[n]) for n in range(3) if brick[n] < shape[n]]
    assert not grown or min(grown) > most, "no axis can grow any more"


def test_a_small_case_is_one_block_and_a_slice_patch_stays_in_its_slice():
    assert bricks((1, 36, 50, 35), (1, 32, 40, 32), 65536) == (1, 36, 50, 35)
    assert bricks((1, 300, 512, 512), (1, 1e-3, 256, 256), 65536) == (1, 1, 256, 256)
    assert bricks((1, 300, 512, 512), (1, 64, 64, 64), 65536) == (1, 64, 32, 32)


def read_all(folder):
    reader = open_case(folder, "case")
    reader.image()
    reader.label()
    reader.locations(1)


# ---------------------------------------------------------------------- stale or swapped, and shared


def test_a_card_or_an_array_of_another_case_is_refused_even_with_equal_shapes(tmp_path):
    for seed, name in enumerate(["case", "other"]):
        make(tmp_path, (1, 6, 7, 8), seed=seed, name=name)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for suffix in (".json", ".b2nd", ".seg", ".locations"):
        shutil.copy(tmp_path / f"other{suffix}", tmp_path / f"case{suffix}")
        with pytest.raises(MvlError, match=rf"case{suffix}: is damaged \(it belongs to the case 'other'\)"):
            read_all(tmp_path)
        assert not is_cached(tmp_path, "case", FILES, SETTINGS, CLASSES)
        for path, content in kept.items():
            path.write_bytes(content)
    assert is_cached(tmp_path, "case", FILES, SETTINGS, CLASSES)


def test_a_case_made_from_other_files_than_the_fingerprint_describes_is_stale(tmp_path):
    for name in ("a", "b", "c"):
        make(tmp_path, (1, 6, 7, 8), name=name)
    cases = [case_of("a", (6, 7, 8), (1, 1, 1), files_hash=FILES), case_of("b", (6, 7, 8), (1, 1, 1), files_hash="new")]
    fingerprint = fingerprint_of(labels=("background", "x", "y")).model_copy(update={"cases": tuple(cases)})
    names = ["a", "b", "c", "missing"]
    assert find_stale(tmp_path, fingerprint, SETTINGS, names) == (["missing"], ["b", "c"])
    assert find_stale(tmp_path, fingerprint, "other settings", ["a"]) == ([], ["a"])
    (tmp_path / "a.seg").unlink()
    assert find_stale(tmp_path, fingerprint, SETTINGS, ["a"]) == ([], ["a"])


def test_a_name_that_leaves_the_cache_is_not_opened(tmp_path):
    make(tmp_path / "elsewhere", (1, 6, 7, 8))
    with pytest.raises(MvlError, match=r"the case '\.\./elsewhere/case' cannot be a file name"):
        open_case(tmp_path / "cache", "../elsewhere/case")


def test_training_shares_the_cache_and_preprocessing_waits_for_it(tmp_path):
    message = "another process is preprocessing or training here"
    with shared_lock(tmp_path), shared_lock(tmp_path), pytest.raises(MvlError, match=message):
        locked(tmp_path, "preprocessing or training").__enter__()
    with locked(tmp_path, "preprocessing"), pytest.raises(MvlError, match="another process is preprocessing here"):
        shared_lock(tmp_path).__enter__()


def test_a_location_that_has_changed_is_named_not_handed_out(copied):
    """Changed as an array, so that nothing but its checksum tells."""
    import blosc2

    array = blosc2.open(str(copied / "case.locations"), mode="a")
    array[0] = array[0] + 1
    del array
    with pytest.raises(MvlError, match=r"case\.locations: is damaged \(its bytes are not those that were written\)"):
        open_case(copied, "case").locations(1)
