"""A tiny planned and preprocessed dataset, made once for all tests of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import make_dataset
from networks import RANDOM_BLOCK, tiny, tiny_llm

from mvl_auto import plan_and_preprocess
from mvl_auto.plans import Plan, read_document, write_document


@dataclass(frozen=True)
class Prepared:
    root: Path
    folder: Path  # preprocessed
    plan: Plan

    @property
    def blocks(self) -> Path:
        return self.root / "blocks"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Prepared:
    """Six cases, planned by the planner, then given a network small enough for tests."""
    root = tmp_path_factory.mktemp("root")
    raw = make_dataset(root / "raw", cases=6, shape=(16, 20, 18))
    plan_and_preprocess(raw, root=root, llm=RANDOM_BLOCK, workers=1)
    folder = root / "preprocessed" / "Dataset007_Tiny"
    plan = read_document(folder / "plans.json", Plan)
    full = plan.configuration("3d_fullres")
    network = tiny(llm=tiny_llm(), width=48, heads=3)
    small = full.model_copy(update={"patch_size": (16, 24, 24), "batch_size": 2, "network": network})
    plan = plan.model_copy(update={"configurations": {"3d_fullres": small}, "recommended": "3d_fullres"})
    write_document(folder / "plans.json", plan)
    return Prepared(root, folder, plan)
