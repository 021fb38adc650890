"""One walk through all stages by the installed commands, which the tests of this folder look at from all sides."""

from __future__ import annotations

import pytest
from builders import make_dataset
from commands import TINY_BLOCK, installed, succeed
from walking import STEPS, UNSEEN, Walk, hashes, write_unseen


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    from mvl_auto.llm import load_block

    root = tmp_path_factory.mktemp("walk")
    make_dataset(root / "raw", "nnunet", cases=10)
    images, references, predictions = root / "imgs", root / "references", root / "preds"
    for seed, (name, (ending, axes, degrees)) in enumerate(UNSEEN.items(), start=900):
        write_unseen(images / f"{name}{ending}", references / f"{name}{ending}", seed, axes, degrees)
    load_block(TINY_BLOCK, "last", root / "blocks")
    before = hashes(root / "blocks")
    plan = ("plan_and_preprocess", "-d", 7, "--llm", TINY_BLOCK, "--memory", "1GB", "--device", "cpu", "--explain")
    said = {
        "plan_and_preprocess": succeed(*plan, root=root, run=installed),
        "train": succeed("train", 7, "fold0", "--steps", STEPS, "--device", "cpu", root=root, run=installed),
        "predict": succeed("predict", "-i", "imgs", "-o", "preds", root=root, run=installed),
        "evaluate": succeed("evaluate", "-r", "references", "-p", "preds", root=root, run=installed),
    }
    return Walk(root, "Dataset007_Tiny", images, references, predictions, before, said)
