"""Run tests with the lowest versions that setup.py allows: are its lower bounds true?

python scripts/lowest.py [--keep FOLDER] [TESTS ...]        # default tests: one or two of each stage

A fresh environment gets `mvl-auto[test]` with every `package>=version` of setup.py pinned to that version; what those
need in turn is pip's choice.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parents[1]
TESTS = [
    "tests/test_cache.py",
    "tests/images",
    "tests/network",
    "tests/llm/test_block.py",
    "tests/training/test_train.py",
    "tests/inference/test_predict.py",
    "tests/evaluation/test_metrics.py",
]
SAME_AS_HERE = {"mypy", "ruff", "pytest", "hypothesis"}  # tools, which no user's environment has


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the environment there, and leave it")
    parser.add_argument("tests", nargs="*", default=TESTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary) / "venv"
        constraints = Path(temporary) / "lowest.txt"
        constraints.write_text("\n".join(lowest()) + "\n")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = folder / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "-e", f"{REPOSITORY}[test]", "-c", constraints]
        subprocess.run(install, check=True)
        return subprocess.run([python, "-m", "pytest", "-q", *args.tests], cwd=REPOSITORY).returncode


def lowest() -> list[str]:
    """`package==version` for every lower bound of the package, the extra `bench` apart."""
    pins = {}
    for line in requires("mvl-auto") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "test"}):
            continue
        bound = next((each.version for each in requirement.specifier if each.operator == ">="), None)
        if bound and requirement.name not in SAME_AS_HERE:
            pins[requirement.name] = f"{requirement.name}=={bound}"
    return sorted(pins.values())


if __name__ == "__main__":
    sys.exit(main())
