"""A trained network and images for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import make_case, write_array
from predicting import VALUES
from trained import make_configuration, make_labels, make_plan, write_trained


@pytest.fixture
def run(root: Path) -> Path:
    """A trained network whose labels are not consecutive."""
    plan = make_plan(make_configuration(normalization="z_score"), labels=make_labels(VALUES))
    return write_trained(root, plan)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three small volumes."""
    for n, name in enumerate("abc"):
        write_array(tmp_path / "imgs" / f"{name}.nii.gz", make_case((14, 18 + n, 16), seed=n)[0][0], (1, 1, 1))
    return tmp_path / "imgs"
