"""A small root with all that commands work on, for tests that damage it."""

from __future__ import annotations

import shutil
from pathlib import Path

from builders import make_dataset
from commands import succeed
from corpus import PREPARED
from trained import write_trained

from mvl_auto.plans import Plan, read_document


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
