"""What is wrong with the words of a command is said before torch is imported, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_case, make_dataset, write_array
from trained import make_plan, write_trained

from mvl_auto import api

BLOCK = "random:hidden=32,heads=4,kv_heads=2,ffn=64,seed=0"

COMMANDS = {
    "a wrong fold": ("train", ["7", "fold9"], "no fold 'fold9'"),
    "a wrong configuration": ("train", ["7", "0", "-c", "3d_fullress"], "3d_fullress"),
    "a configuration without a fold": ("train", ["7", "3d_fullres"], "Add one: 3d_fullres fold0."),
    "weights to begin with that are not there": (
        "train",
        ["7", "1", "--from", "nowhere"],
        "nowhere: holds no checkpoint",
    ),
    "a dataset that is not planned": ("train", ["99", "0"], "no planned dataset '99'"),
    "a dataset that is not there": ("plan_and_preprocess", ["-d", "99"], "no dataset '99'"),
    "a block of no source": ("plan_and_preprocess", ["-d", "7", "--llm", "smollm"], "smollm"),
    "images that are not there": ("predict", ["-i", "nowhere", "-o", "preds"], "nowhere: does not exist"),
    "a fold that is not trained": ("predict", ["-i", "imgs", "-o", "preds", "-f", "3"], "no trained fold '3'"),
    "a run that is not there": ("predict", ["-i", "imgs", "-o", "preds", "-n", "x"], "-n x"),
    "maps of nothing": ("explain", ["-i", "nowhere", "-o", "maps"], "nowhere: does not exist"),
    "references that are not there": ("evaluate", ["-r", "nowhere", "-p", "imgs"], "nowhere"),
    "an ablation of a dataset that is not planned": ("ablate", ["-d", "99"], "no planned dataset '99'"),
    "an arm that is none": ("ablate", ["-d", "7", "--arms", "vitt"], "vitt"),
    "a fold that an ablation cannot score": ("ablate", ["-d", "7", "--folds", "9"], "no fold '9'"),
    "a pretraining of nothing": ("pretrain", ["-d", "99"], "no planned dataset '99'"),
    "an audit of nothing": ("audit", ["-d", "99"], "99"),
    "a report of nothing": ("report", ["nowhere"], "nowhere"),
    "runs to compare that are not there": ("compare", ["nowhere", "imgs"], "nowhere"),
    "a dataset to examine that is not there": ("doctor", ["-d", "99"], "no dataset '99'"),
    "an unknown word": ("train", ["7", "-npz"], "-npz is nnU-Net's"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    make_dataset(root / "raw", "nnunet", cases=5, shape=(10, 12, 11))
    api.plan_and_preprocess(7, root=root, llm=BLOCK, memory=10**9, device="cpu", workers=1, plan_only=True)
    write_trained(root, make_plan())
    write_array(root / "imgs" / "a.nii.gz", make_case()[0][0], (1, 1, 1))
    return root


@pytest.mark.parametrize("what", COMMANDS)
def test_it_is_refused_without_torch(what, root):
    name, words, told = COMMANDS[what]
    script = (
        "import sys\n"
        f"from mvl_auto.cli.{name} import main\n"
        f"try:\n    code = main({words!r})\n"
        "except SystemExit as end:\n    code = end.code\n"
        "print('TORCH' if 'torch' in sys.modules else 'NONE', code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, env={"MVL_ROOT": str(root)}
    )
    assert done.stdout.splitlines()[-1] == "NONE 2", done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(f"mvl_{name}: ")]
    assert told in line
