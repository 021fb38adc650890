"""Many predictions in one process: its memory and its open files must not grow.

python -m tests.faults.soak --predictions 500
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from builders import make_case, write_array
from trained import write_trained

WARM_UP = 20  # predictions until caches are full
ALLOWED = 20.0  # MB of growth: allocators keep some pages


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=500)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mvl-soak-") as folder:
        memory, files = soak(Path(folder), args.predictions)
    growth = memory[-1] - memory[WARM_UP]
    print(f"{len(memory)} predictions: {memory[WARM_UP]:.0f} MB after {WARM_UP}, {memory[-1]:.0f} MB at the end")
    print(f"open files: {files[WARM_UP]} and {files[-1]}")
    return int(growth > ALLOWED or files[-1] > files[WARM_UP])


def soak(folder: Path, predictions: int) -> tuple[list[float], list[int]]:
    """Resident memory in MB, and open files, after each prediction: of images whose sizes differ."""
    from mvl_auto.images import read_image
    from mvl_auto.inference import predict_case
    from mvl_auto.runs import find_trained

    write_trained(folder)
    (trained,) = find_trained(folder).load(folder / "blocks")
    rng = np.random.default_rng(0)
    process = psutil.Process()
    memory, files = [], []
    for number in range(predictions):
        shape = [int(size) for size in rng.integers(14, 30, 3)]
        path = write_array(folder / "image.nii.gz", make_case(shape, seed=number)[0][0], (1.0, 1.0, 1.0))
        predict_case([trained.network], trained.plan, trained.configuration, read_image([path]), mirror=False)
        gc.collect()
        memory.append(process.memory_info().rss / 1e6)
        files.append(process.num_fds())
    return memory, files


if __name__ == "__main__":
    sys.exit(main())
