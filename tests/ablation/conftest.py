"""A tiny planned dataset of five patients, made once for the tests of ablations."""

from __future__ import annotations

import pytest
from builders import make_dataset
from networks import RANDOM_BLOCK, tiny, tiny_llm

from mvl_auto import plan_and_preprocess
from mvl_auto.plans import Plan, read_document, write_document


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Ten cases of five patients, planned, then given a network small enough for tests."""
    root = tmp_path_factory.mktemp("root")
    raw = make_dataset(root / "raw", cases=10, shape=(16, 20, 18))
    names = sorted(file.name.split(".")[0].removesuffix("_0000") for file in (raw / "imagesTr").iterdir())
    lines = [f"{name},patient{number // 2}" for number, name in enumerate(names)]
    (raw / "groups.csv").write_text("\n".join(["case,group", *lines]))
    plan_and_preprocess(raw, root=root, llm=RANDOM_BLOCK, workers=1, progress=False)
    file = root / "preprocessed" / "Dataset007_Tiny" / "plans.json"
    plan = read_document(file, Plan)
    network = tiny(llm=tiny_llm(), width=48, heads=3)
    small = {"patch_size": (16, 16, 16), "batch_size": 2, "network": network}
    full = plan.configuration("3d_fullres").model_copy(update=small)
    write_document(file, plan.model_copy(update={"configurations": {"3d_fullres": full}, "recommended": "3d_fullres"}))
    return root
