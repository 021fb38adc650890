"""Run tests with the lowest versions that setup.py allows: are its lower bounds true?

python scripts/lowest.py [--keep FOLDER] [TESTS ...]        # default tests: one or two of each stage

A fresh environment gets `mvl-auto[test]` by uv, which chooses the lowest version of every package that setup.py names
and the newest of what those need in turn.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TESTS = [
    "tests/test_cache.py",
    "tests/images",
    "tests/network",
    "tests/llm/test_block.py",
    "tests/inference/test_predict.py",
    "tests/evaluation/test_summary.py",
    "tests/test_api.py",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="make the environment there, and leave it")
    parser.add_argument("tests", nargs="*", default=TESTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary) / "venv"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = folder / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "uv"], check=True)
        lowest = ["--resolution", "lowest-direct", "--compile-bytecode", "-e", f"{REPOSITORY}[test]"]
        subprocess.run([python, "-m", "uv", "pip", "install", "--python", python, *lowest], check=True)
        return subprocess.run([python, "-m", "pytest", "-q", *args.tests], cwd=REPOSITORY).returncode


if __name__ == "__main__":
    sys.exit(main())
