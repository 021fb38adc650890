"""What all tests share: the real data, where there is some, and a root folder that is nobody's home."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_DATA = REPOSITORY.parent / "shared" / "data"

# threads of several libraries on two cores only get in each other's way; the tests' arrays are small
for variable in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(variable, "1")

# `pytest &` of a shell ignores Ctrl-C, nohup SIGHUP, and every process that a test starts would inherit that
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# the same examples in every run, and no clock: two busy cores are no bug
settings.register_profile("mvl", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mvl")


# files of many seconds to minutes, the longest first, so that no worker is left alone with one at the end. LONG: what
# `pytest` alone leaves out, and .ci/run runs too
LONG = (
    *("faults/test_kill.py", "test_golden.py", "integration/test_hippocampus.py", "integration/test_real_datasets.py"),
    *("training/test_train.py", "training/test_batches.py", "planners/cost/test_memory.py"),
    *("integration/test_bad_datasets.py", "integration/test_full_disk.py", "planners/cost/test_estimate.py"),
    *("integration/test_bad_input.py", "integration/test_cascade.py", "training/test_block_start.py"),
    *("faults/test_fuzz.py", "demo/test_walk.py", "integration/test_interrupted.py", "integration/test_notebook.py"),
)
SLOW = (
    *("jobs/test_dask.py", "planners/test_objective.py", "ablation/test_ablation.py", "jobs/test_processes.py"),
    *("ablation/test_evidence_page.py", "images/test_damaged.py", "integration/test_broken_cases.py"),
    *("planners/test_planner.py", "training/test_cascade.py", "report/test_write.py", "network/test_model.py"),
    *("training/test_seed.py", "faults/test_hostile.py", "integration/test_turned.py", "integration/test_walk.py"),
    *("integration/test_doctor.py", "jobs/test_contract.py", "test_mutate.py", "training/test_team.py"),
    *("training/test_submit.py", "training/test_pretrain.py", "images/test_dicom_values.py", "faults/test_refused.py"),
    *("training/test_loggers.py", "ablation/test_study_as_jobs.py"),
    *("training/test_sending.py", "preprocessing/test_all_cases.py", "faults/test_overwritten.py", "test_api.py"),
    *("plans/test_plans.py", "planners/cost/test_timing.py", "training/test_planned_time.py", "faults/test_limits.py"),
    "faults/test_surroundings.py",
    *("training/test_first_stage.py", "images/test_picture_headers.py", "images/test_nibabel_alone.py"),
    *("planners/doctor/test_repair.py", "planners/fingerprint/test_store.py", "inference/test_folder.py"),
)
TESTS = REPOSITORY / "tests"
ORDER = {TESTS / name: place for place, name in enumerate((*LONG, *SLOW))}


def pytest_configure(config: pytest.Config) -> None:
    """`pytest` alone leaves the long files out; with a path, -m or -k it runs what they name."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not (
        config.option.markexpr or config.option.keyword
    ):
        config.option.markexpr = "not long"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("real_data")
        if item.path in ORDER:
            item.add_marker("slow")
            if ORDER[item.path] < len(LONG):
                item.add_marker("long")
    items.sort(key=lambda item: ORDER.get(item.path, len(ORDER)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data: $MVL_TEST_DATA, else ../shared/data. Skips the test where there is none."""
    folder = Path(os.environ.get("MVL_TEST_DATA") or DEFAULT_DATA).absolute()
    if not (folder / "samples").is_dir():
        pytest.skip(f"needs real data: {folder} has none (set MVL_TEST_DATA)")
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty $MVL_ROOT for one test, with no other dataset folder in sight."""
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setenv("MVL_ROOT", str(folder))
    monkeypatch.delenv("nnUNet_raw", raising=False)
    return folder
