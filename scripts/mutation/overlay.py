"""A copy of the repository in which mistakes may be made, and in which tests run in forks of one warm process.

Python finds the copy before the installed package: it is first on the path, of this process and of those it starts. The
stages are links inside of mvl_auto there, as setup.py maps them.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import py_compile
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

STAGES = ("planners", "preprocessing", "inference", "evaluation")
COPIED = (
    "mvl_auto",
    *STAGES,
    "tests",
    "scripts",
    "benchmarks",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "pyproject.toml",
    "setup.py",
)
HEAVY = [
    *("numpy", "scipy.ndimage", "scipy.stats", "scipy.optimize", "torch", "torch.utils.data", "torch.func", "pydantic"),
    *("pytest", "hypothesis", "hypothesis.strategies", "SimpleITK", "nibabel", "pydicom", "tifffile", "PIL.Image"),
    *("pandas", "transformers.models.llama.modeling_llama", "batchgenerators.transforms.color_transforms"),
    *("batchgenerators.transforms.noise_transforms", "batchgenerators.transforms.resample_transforms", "coverage"),
    *(
        "safetensors.torch",
        "filelock",
        "joblib",
        "tqdm",
        "skimage.measure",
        "huggingface_hub",
        "_pytest.assertion.rewrite",
    ),
]
MOST_MEMORY = 24 * 2**30  # bytes of address space of a process of the tests


def make_overlay(repository: Path, folder: Path) -> Path:
    """Copy what the tests need; compiled files are checked by their source's hash, so that no mistake is overlooked."""
    for name in COPIED:
        source = repository / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    for stage in STAGES:
        if (folder / stage).is_dir():
            (folder / "mvl_auto" / stage).symlink_to(Path("..") / stage)
    for name in ("mvl_auto", *STAGES):
        for file in (folder / name).rglob("*.py"):
            _compile(file)
    return folder


def _compile(file: Path) -> None:
    py_compile.compile(str(file), doraise=False, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)


def enter(folder: Path) -> None:
    """Work in the copy from now on, with everything heavy that is not ours imported."""
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path[:] = [str(folder), *(each for each in sys.path if each not in ("", str(folder)))]
    sys.dont_write_bytecode = True
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    ours = [name for name in sys.modules if name == "mvl_auto" or name.startswith("mvl_auto.")]
    if ours:
        raise RuntimeError(f"{ours[0]} is imported before the fork: a mistake in it would not be seen")


@contextlib.contextmanager
def changed(file: Path, text: str) -> Iterator[None]:
    """The file with another text, for a while."""
    before = file.read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(before, encoding="utf-8")


def in_a_fork(work: Callable[[], int], said: Path, seconds: float) -> tuple[int | None, float]:
    """The exit code of the work, None where it took longer; and how long it took. What it says goes to a file."""
    begun = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        code = 70
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
            stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            code = int(work())
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            os._exit(code)
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        spent = time.monotonic() - begun
        if done:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)  # what the tests left behind
            return os.waitstatus_to_exitcode(status), spent
        if spent > seconds:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None, spent
        time.sleep(0.02)


def pytest_in_a_fork(
    arguments: Sequence[str], said: Path, seconds: float, plugins: Sequence[object] = ()
) -> tuple[int | None, float]:
    """pytest -x on the arguments: 0 passed, 1 a test failed, 2 and more it could not run, None too long."""

    def work() -> int:
        import pytest

        basis = said.parent / "basetemp"
        shutil.rmtree(basis, ignore_errors=True)
        return pytest.main(
            ["-q", "-n0", "-p", "no:cacheprovider", f"--basetemp={basis}", *arguments], plugins=list(plugins)
        )

    return in_a_fork(work, said, seconds)
