"""docs/evidence.md has the tables that its records give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_tables_of_the_page_are_those_of_its_records():
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts/evidence.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"run python scripts/evidence.py\n{done.stderr}"
