"""nnU-Net v2, trained for a number of seconds: run by the Python of an environment that has nnunetv2.

    PEER/bin/python nnunet_timed.py DATASET CONFIGURATION FOLD SECONDS THREADS SEED OUTPUT

Its own trainer, plan, batches and losses. Only how long it trains differs: all SECONDS go to training steps, none to
its validation between epochs, and its polynomial decay of the learning rate runs over the time instead of 1000 epochs.
Then it predicts the validation cases as it always does. Writes OUTPUT/validation and OUTPUT/timed.json. The environment
variables nnUNet_raw, nnUNet_preprocessed and nnUNet_results must be set.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

POWER = 0.9  # of nnU-Net's schedule


def main() -> None:
    dataset, configuration = sys.argv[1:3]
    fold, seconds, threads, seed = int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
    output = Path(sys.argv[7])
    torch.set_num_threads(threads)
    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(seed)
    folder = Path(str(nnUNet_preprocessed)) / dataset
    plans, described = (json.loads((folder / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    plans["continue_training"] = False
    trainer = nnUNetTrainer(plans, configuration, fold, described, torch.device("cpu"))
    trainer.output_folder = str(output)
    output.mkdir(parents=True, exist_ok=True)
    steps, taken = train(trainer, seconds)
    trainer.perform_actual_validation()
    how = {"steps": steps, "seconds": taken, "precision": "float32"}
    (output / "timed.json").write_text(json.dumps(how))


def train(trainer: nnUNetTrainer, seconds: float) -> tuple[int, float]:
    """Steps until the time is out; returns their number and the seconds that they took."""
    trainer.on_train_start()
    trainer.network.train()
    begun, steps = time.monotonic(), 0
    while (elapsed := time.monotonic() - begun) < seconds:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - elapsed / seconds) ** POWER
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    taken = time.monotonic() - begun
    trainer.on_train_end()  # ends its workers, saves the network
    return steps, taken


if __name__ == "__main__":
    main()
