"""A whole dataset prepared: in parallel, interrupted, changed, broken, and never twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import psutil
import pytest
from builders import make_case, make_dataset, write_array
from jobs import workers_of
from trained import make_configuration, make_plan

from mvl_auto.cache import is_cached, open_case
from mvl_auto.datasets import hash_files, load_case, read_dataset
from mvl_auto.errors import MvlError
from mvl_auto.plans import IGNORE, write_document
from mvl_auto.preprocessing import preprocess_case, preprocess_dataset
from mvl_auto.preprocessing.dataset import LOCATIONS_PER_CLASS, sample_locations

PATIENCE = 120  # s
SUPPORT = Path(__file__).parents[1] / "support"
NAMES = [f"tiny_{n:03d}" for n in range(6)]
FULLRES, SLICES, CASCADE = "3d_fullres", "2d", "3d_cascade_fullres"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return read_dataset(make_dataset(tmp_path_factory.mktemp("raw"), spacing=(2.0, 1.0, 0.8), vary=3))


def plan_for(raw, **changes):
    full = make_configuration(normalization="z_score", **({"spacing": (1.5, 1.0, 1.0)} | changes))
    flat = make_configuration((16, 16), (2.0, 1.0, 1.0), normalization="z_score")
    return make_plan(full, flat, labels=raw.labels)


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """All cases in both configurations; copied by the tests that change them."""
    folder = tmp_path_factory.mktemp("prepared")
    report = preprocess_dataset(raw, plan_for(raw), [FULLRES, SLICES], folder, workers=2)
    assert (report.done, report.reused, report.failed) == (tuple(NAMES), (), {})
    return folder


def stamps(folder):
    return {file.relative_to(folder): file.stat().st_mtime_ns for file in folder.rglob("*.b2nd")}


def test_each_case_is_what_the_one_case_function_makes_of_it(raw, prepared):
    plan = plan_for(raw)
    for case in raw.cases:
        volume, classes = load_case(case, raw.labels)
        for name in (FULLRES, SLICES):
            expected = preprocess_case(volume.array, volume.spacing, classes, plan, plan.configuration(name))
            reader = open_case(prepared / name, case.name)
            np.testing.assert_allclose(reader.image(), expected.image, atol=1e-6)
            assert np.array_equal(reader.label(), expected.label)
            assert reader.cached.trail == expected.trail
            assert reader.cached.class_voxels == tuple((expected.label == k).sum() for k in range(3))
            assert reader.cached.settings_hash == plan.preprocessing_hash(name)
            assert is_cached(prepared / name, case.name, hash_files(case), plan.preprocessing_hash(name), 3)


@pytest.mark.parametrize("before", [[FULLRES], []])
def test_configurations_that_prepare_a_case_alike_share_its_files(before, raw, tmp_path):
    full = plan_for(raw).configuration(FULLRES)
    cascade = full.model_copy(update={"name": CASCADE, "previous_stage": "3d_lowres", "patch_size": (16, 24, 16)})
    plan = make_plan(full, cascade, labels=raw.labels)
    preprocess_dataset(raw, plan, before, tmp_path, workers=1)
    report = preprocess_dataset(raw, plan, [FULLRES, CASCADE], tmp_path, workers=1)
    assert (report.done, report.failed) == (tuple(NAMES), {})
    files = {file.name for file in (tmp_path / FULLRES).iterdir() if file.name != ".lock"}
    assert files == {file.name for file in (tmp_path / CASCADE).iterdir() if file.name != ".lock"}
    assert len(files) == 4 * len(NAMES)
    assert all((tmp_path / FULLRES / name).samefile(tmp_path / CASCADE / name) for name in files)
    shutil.rmtree(tmp_path / FULLRES)
    assert preprocess_dataset(raw, plan, [CASCADE], tmp_path, workers=1).reused == tuple(NAMES)
    changed = plan_for(raw, spacing=(1.0, 1.0, 1.0)).configuration(FULLRES)
    assert preprocess_dataset(raw, make_plan(changed, cascade, labels=raw.labels), [FULLRES], tmp_path, workers=1).done
    assert not (tmp_path / FULLRES / f"{NAMES[0]}.b2nd").samefile(tmp_path / CASCADE / f"{NAMES[0]}.b2nd")


def test_locations_are_voxels_of_their_class(prepared):
    reader = open_case(prepared / FULLRES, NAMES[0])
    label = reader.label()
    for k in (1, 2):
        locations = reader.locations(k)
        assert np.array_equal(locations, np.argwhere(label == k))


def test_many_voxels_are_sampled_evenly_and_always_the_same():
    label = np.zeros((40, 50, 60), np.int16)
    label[5:35, 5:45, 5:55] = 2
    label[:2] = IGNORE
    found = sample_locations(label, 4)
    assert list(found) == [2]
    assert found[2].shape == (LOCATIONS_PER_CLASS, 3)
    assert (label[tuple(found[2].T)] == 2).all()
    assert len(np.unique(found[2], axis=0)) == LOCATIONS_PER_CLASS
    np.testing.assert_allclose(found[2].mean(axis=0), [19.5, 24.5, 29.5], atol=1)
    assert np.array_equal(sample_locations(label, 4)[2], found[2])


def test_the_same_again_does_nothing(raw, prepared):
    before = stamps(prepared)
    report = preprocess_dataset(raw, plan_for(raw), [FULLRES, SLICES], prepared)
    assert (report.done, report.reused) == ((), tuple(NAMES))
    assert stamps(prepared) == before


def test_only_what_changed_is_done_again(prepared, raw, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "prepared")
    dataset = read_dataset(shutil.copytree(raw.folder, tmp_path / raw.folder.name))
    image, label = make_case(seed=99)
    write_array(dataset.cases[1].images[0], image[0], (2.0, 1.0, 0.8))
    write_array(dataset.cases[1].label, label, (2.0, 1.0, 0.8))
    (folder / FULLRES / f"{NAMES[3]}.b2nd").write_bytes(b"damaged")
    (folder / SLICES / f"{NAMES[4]}.json").unlink()
    before = stamps(folder)
    report = preprocess_dataset(dataset, plan_for(dataset), [FULLRES, SLICES], folder, workers=1)
    assert report.done == (NAMES[1], NAMES[3], NAMES[4])
    after = stamps(folder)
    new = {(file.parts[0], file.name.split(".")[0]) for file in after if after[file] != before[file]}
    assert new == {(FULLRES, NAMES[1]), (SLICES, NAMES[1]), (FULLRES, NAMES[3]), (SLICES, NAMES[4])}


def test_other_settings_of_one_configuration_leave_the_other_alone(prepared, raw, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "prepared")
    before = stamps(folder / SLICES)
    report = preprocess_dataset(raw, plan_for(raw, spacing=(2.5, 2.0, 2.0)), [FULLRES, SLICES], folder, workers=1)
    assert report.done == tuple(NAMES)
    assert stamps(folder / SLICES) == before
    assert open_case(folder / FULLRES, NAMES[0]).cached.trail.resampled_spacing == (2.5, 2.0, 2.0)


def test_what_does_not_touch_the_arrays_does_not_make_them_anew(raw, prepared):
    plan = plan_for(raw, patch_size=(8, 24, 24), batch_size=7, iterations=99)
    assert preprocess_dataset(raw, plan, [FULLRES], prepared).reused == tuple(NAMES)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_case_that_breaks_is_named_and_the_others_are_done(raw, tmp_path, workers):
    dataset = read_dataset(shutil.copytree(raw.folder, tmp_path / raw.folder.name))
    truncated, mismatched = dataset.cases[1], dataset.cases[4]
    truncated.images[0].write_bytes(truncated.images[0].read_bytes()[:200])
    write_array(mismatched.label, np.zeros((3, 4, 5), np.uint8), (2.0, 1.0, 0.8))
    report = preprocess_dataset(dataset, plan_for(dataset), [FULLRES], tmp_path / "prepared", workers=workers)
    assert report.done == (NAMES[0], NAMES[2], NAMES[3], NAMES[5])
    assert sorted(report.failed) == [NAMES[1], NAMES[4]]
    assert str(truncated.images[0]) in report.failed[NAMES[1]]
    assert "3 x 4 x 5" in report.failed[NAMES[4]] or "5 x 4 x 3" in report.failed[NAMES[4]]
    shutil.copy(raw.cases[1].images[0], truncated.images[0])
    shutil.copy(raw.cases[4].label, mismatched.label)
    again = preprocess_dataset(dataset, plan_for(dataset), [FULLRES], tmp_path / "prepared", workers=1)
    assert again.done == (NAMES[1], NAMES[4])


def test_another_number_of_channels_is_a_broken_case(raw, tmp_path):
    dataset = read_dataset(shutil.copytree(raw.folder, tmp_path / raw.folder.name))
    image, _ = make_case(channels=2)
    write_array(dataset.cases[0].images[0], np.moveaxis(image, 0, -1), (2.0, 1.0, 0.8), is_vector=True)
    report = preprocess_dataset(dataset, plan_for(dataset), [FULLRES], tmp_path / "prepared", workers=1)
    assert len(report.done) == 5
    assert "2 channels" in report.failed[NAMES[0]]


def test_progress_moves_once_a_case_and_says_which(raw, prepared):
    told = []

    class Bar:
        def __init__(self, what, total, unit="case", done=0):
            told.append(total)

        def __enter__(self):
            return lambda amount=1, note="": told.append((amount, note))

        def __exit__(self, *error):
            told.append("closed")

    preprocess_dataset(raw, plan_for(raw), [FULLRES], prepared, progress=Bar)
    assert told == [6, *((1, name) for name in NAMES), "closed"]


def test_a_folder_that_cannot_be_written_is_named(raw, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MvlError, match="file"):
        preprocess_dataset(raw, plan_for(raw), [FULLRES], tmp_path / "file", workers=1)


# ------------------------------------------------------------------------- in a process of its own

SCRIPT = """
    import os, signal, sys
    from contextlib import contextmanager
    from pathlib import Path
    from mvl_auto.datasets.dataset import read_dataset
    from mvl_auto.plans import Plan, read_document
    from mvl_auto.preprocessing import preprocess_dataset

    raw, plan, folder, workers = map(Path, sys.argv[1:])

    @contextmanager
    def progress(what, total, unit="case", done=0):
        finished = 0
        def advance(amount=1, note=""):
            nonlocal finished
            finished += 1
            {each}
        yield advance

    if __name__ == "__main__":
        {before}
        plan = read_document(plan, Plan)
        report = preprocess_dataset(
            read_dataset(raw), plan, ["3d_fullres"], folder, workers=int(str(workers)), progress=progress
        )
        print(len(report.done), "torch" in sys.modules, flush=True)
"""


def start(raw, tmp_path, workers, each="pass", before="pass"):
    write_document(tmp_path / "plan.json", plan_for(raw))
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(each=each, before=before))
    command = [sys.executable, script, raw.folder, tmp_path / "plan.json", tmp_path / "prepared", str(workers)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, command)), **pipes, text=True, start_new_session=True)


def finish(raw, folder):
    """Go on where another process stopped; nothing half-written is left, nothing finished is done again."""
    finished = {file.stem for file in (folder / FULLRES).glob("*.json")}
    report = preprocess_dataset(raw, plan_for(raw), [FULLRES], folder, workers=1)
    assert report.reused == tuple(sorted(finished))
    assert not report.failed
    assert not list(folder.rglob(".writing-*"))
    for case in raw.cases:
        volume, classes = load_case(case, raw.labels)
        plan = plan_for(raw)
        expected = preprocess_case(volume.array, volume.spacing, classes, plan, plan.configuration(FULLRES))
        reader = open_case(folder / FULLRES, case.name)
        np.testing.assert_allclose(reader.image(), expected.image, atol=1e-6)
        assert np.array_equal(reader.label(), expected.label)
    return finished


def test_torch_is_not_needed(raw, tmp_path):
    with start(raw, tmp_path, 1) as process:
        said, complaints = process.communicate(timeout=PATIENCE)
    assert said.split() == ["6", "False"], complaints


def test_killed_half_way_and_started_again(raw, tmp_path):
    with start(raw, tmp_path, 2, each="if finished == 2: os.kill(os.getpid(), signal.SIGKILL)") as process:
        process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert 2 <= len(finish(raw, tmp_path / "prepared")) < 6


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_killed_while_a_case_is_written(raw, tmp_path, step):
    """At its image, its label, its locations, its card: of the second case that is written."""
    before = (
        f"import mvl_auto.files as f; to = f.os.replace; n = []; "
        f"f.os.replace = lambda *a: n.append(1) or (to(*a) if len(n) < 4 + {step} "
        f"else os.kill(os.getpid(), signal.SIGKILL))"
    )
    with start(raw, tmp_path, 1, before=before) as process:
        process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert list((tmp_path / "prepared").rglob(".writing-*"))
    assert finish(raw, tmp_path / "prepared") == {NAMES[0]}


def test_a_second_process_on_the_same_folder_is_told_so(raw, tmp_path):
    with start(raw, tmp_path, 1, each="if finished == 1: print('at it', flush=True); input()") as process:
        assert process.stdout.readline().strip() == "at it"
        with pytest.raises(MvlError, match="another process is preprocessing or training here"):
            preprocess_dataset(raw, plan_for(raw), [FULLRES], tmp_path / "prepared", workers=1)
        process.communicate("go on\n", timeout=PATIENCE)
    assert process.returncode == 0
    assert len(finish(raw, tmp_path / "prepared")) == 6


def test_ctrl_c_ends_it_and_its_workers(raw, tmp_path):
    with start(raw, tmp_path, 2, each="if finished == 1: print('at it', flush=True); input()") as process:
        process.stdout.readline()
        workers = workers_of(psutil.Process(process.pid))
        assert len(workers) == 2, "there must be someone to end"
        os.killpg(process.pid, signal.SIGINT)
        _, complaints = process.communicate(timeout=PATIENCE)
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    assert complaints.count("Traceback") == 1
    assert not psutil.wait_procs(workers, timeout=PATIENCE)[1]
    assert finish(raw, tmp_path / "prepared")


def test_a_worker_that_is_killed_takes_no_case_with_it(raw, tmp_path):
    """As the system does when memory runs out: the first of the two workers, in the middle of its case."""
    kill = (
        f"import sys, psutil; sys.path.insert(0, {str(SUPPORT)!r}); from jobs import workers_of; "
        "victim = workers_of(psutil.Process()).pop(); victim.kill(); print('killed', victim.pid, flush=True)"
    )
    with start(raw, tmp_path, 2, each=f"exec({kill!r}) if finished == 1 else None") as process:
        said, complaints = process.communicate(timeout=PATIENCE)
    assert said.split()[:1] == ["killed"], complaints
    assert said.split()[2:3] == ["6"], complaints
    finish(raw, tmp_path / "prepared")


# ------------------------------------------------------------------------------ real data


def test_pictures_of_cells(real_data, tmp_path):
    """RGB in one file, masks of 0/255, sizes that differ."""
    whole = real_data / "Dataset101_Nuclei"
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / "Dataset101_Nuclei" / part).mkdir(parents=True)
        for file in sorted((whole / part).iterdir())[:3]:
            shutil.copy(file, tmp_path / "Dataset101_Nuclei" / part)
    description = json.loads((whole / "dataset.json").read_text()) | {"numTraining": 3}
    (tmp_path / "Dataset101_Nuclei" / "dataset.json").write_text(json.dumps(description))
    raw = read_dataset(tmp_path / "Dataset101_Nuclei")
    plan = make_plan(make_configuration((64, 64), channels=3, normalization="rgb_to_0_1"), labels=raw.labels)
    report = preprocess_dataset(raw, plan, [SLICES], tmp_path / "prepared")
    assert not report.failed
    for case in raw.cases:
        volume, classes = load_case(case, raw.labels)
        reader = open_case(tmp_path / "prepared" / SLICES, case.name)
        np.testing.assert_allclose(reader.image(), volume.array / 255, atol=1e-6)
        assert np.array_equal(reader.label(), classes)
        assert set(np.unique(reader.label())) == {0, 1}
