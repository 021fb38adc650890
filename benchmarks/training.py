"""Dice after equal seconds of training: ours, its controls and nnU-Net v2, alternately, on the same cases.

    python -m venv PEER && PEER/bin/pip install nnunetv2
    python benchmarks/training.py -o FOLDER [--peer PEER/bin/python] [--tasks Hippocampus-10m ...] [--seeds 3]
    python benchmarks/training.py -o FOLDER --table [--keep FILE]     what FOLDER has so far

Every run is one task, one network, one fold, one seed; its result is a small JSON file in FOLDER/results. Started
again, the script goes on with what is missing, and a training of ours resumes at its checkpoint. The networks take
turns within each fold and seed. `mvl` is the plan with the frozen block, `vit` the same without it, `unet` has
convolutions in place of the trunk, `nnunet` is nnU-Net's own plan, trained by benchmarks/nnunet_timed.py for as many
seconds, all of them for training steps. All train on our folds, with as many threads, and are scored by mvl_evaluate.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from figures import add_keep, keep

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests/support"))
OURS, PEER = ("mvl", "vit", "unet"), "nnunet"


@dataclass(frozen=True)
class Dataset:
    """folder: of the raw data. configuration: nnU-Net's. folds: that are trained."""

    folder: str
    configuration: str
    folds: tuple[int, ...] = (0,)


DATASETS = {
    "Hippocampus": Dataset("Dataset004_Hippocampus", "3d_fullres"),
    "Nuclei": Dataset("Dataset101_Nuclei", "2d", (0, 1, 2, 3, 4)),
    "Organs": Dataset("Dataset033_Organs", "3d_fullres"),
}
TASKS = ["Hippocampus-10m", "Hippocampus-30m", "Hippocampus-60m", "Nuclei-5m", "Organs-10m"]


@dataclass(frozen=True)
class Result:
    """dice: mean over the labels and validation cases of the fold, of labels that a case has."""

    task: str
    network: str
    fold: int
    seed: int
    dice: float
    labels: dict[str, float]
    cases: int
    steps: int
    seconds: float
    precision: str
    threads: int
    cpu: str

    @property
    def file_name(self) -> str:
        return f"{self.task}-{self.network}-fold{self.fold}-seed{self.seed}.json"


@dataclass(frozen=True)
class Place:
    """Where the benchmark works. peer: Python of an environment with nnU-Net, if there is one."""

    folder: Path
    data: Path
    peer: Path | None
    threads: int

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def environment(self) -> dict[str, str]:
        nnunet = {f"nnUNet_{name}": str(self.folder / "nnunet" / name) for name in ("preprocessed", "results")}
        threads = {"OMP_NUM_THREADS": str(self.threads), "nnUNet_n_proc_DA": "1"}
        return os.environ | {"MVL_ROOT": str(self.root), "nnUNet_raw": str(self.root / "raw")} | nnunet | threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--peer", type=Path, help="Python of an environment with nnunetv2; without it only ours")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared/data")
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="DATASET-TIME", help=f"of {', '.join(DATASETS)}")
    parser.add_argument("--networks", nargs="+", choices=[*OURS, PEER], default=[*OURS, PEER])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    add_keep(parser)
    parser.add_argument("--table", action="store_true", help="print what there is, and train nothing")
    args = parser.parse_args()
    place = Place(args.output.absolute(), args.data.absolute(), args.peer and args.peer.absolute(), args.threads)
    place.results.mkdir(parents=True, exist_ok=True)
    if not args.table:
        networks = [name for name in args.networks if name != PEER or place.peer]
        for task, network, fold, seed in runs(args.tasks, networks, args.seeds):
            file = place.results / f"{task}-{network}-fold{fold}-seed{seed}.json"
            if not file.exists():
                result = (train_peer if network == PEER else train_ours)(place, task, network, fold, seed)
                write_json(file, asdict(result))
                print(f"{file.stem}: Dice {result.dice:.4f}, {result.steps} steps", flush=True)
    results = [Result(**json.loads(file.read_text())) for file in sorted(place.results.glob("*.json"))]
    print(table(results))
    keep(args.keep, figures(results))


def runs(tasks: list[str], networks: list[str], seeds: int) -> Iterator[tuple[str, str, int, int]]:
    """Networks take turns: a run of each, then the next fold, then the next seed."""
    for task in tasks:
        for seed in range(seeds):
            for fold in split_task(task)[0].folds:
                for network in networks:
                    yield task, network, fold, seed


def split_task(task: str) -> tuple[Dataset, str]:
    """The dataset of Hippocampus-10m, and the time as the commands take it."""
    dataset, _, length = task.partition("-")
    return DATASETS[dataset], length


def train_ours(place: Place, task: str, network: str, fold: int, seed: int) -> Result:
    raw = prepare(place, task)
    name = f"{task}-{network}-seed{seed}"
    words = ["-n", name, "--network", network, "--time", split_task(task)[1], "--seed", seed]
    ours(place, "train", raw, f"fold{fold}", *words)
    (folder,) = place.root.glob(f"results/{raw.name}/{name}/fold{fold}")
    state, scores = (json.loads((folder / file).read_text()) for file in ("state.json", "summary.json"))
    how = {"steps": state["step"], "seconds": state["elapsed"], "precision": state["precision"]}
    return result(place, task, (network, fold, seed), scores, how)


def train_peer(place: Place, task: str, network: str, fold: int, seed: int) -> Result:
    from mvl_auto.text import parse_duration

    raw = prepare(place, task)
    prepared = place.folder / "nnunet/preprocessed" / raw.name
    dataset, length = split_task(task)
    number = int(raw.name[len("Dataset") : len("Dataset") + 3])
    assert place.peer
    if not (prepared / "splits_final.json").exists():
        command = place.peer.with_name("nnUNetv2_plan_and_preprocess")
        call(place, [command, "-d", number, "-c", dataset.configuration, "-npfp", 2, "-np", 2])
        write_json(prepared / "splits_final.json", our_folds(place, raw))
    script = Path(__file__).with_name("nnunet_timed.py")
    output = place.folder / "nnunet/results" / f"{task}-fold{fold}-seed{seed}"
    seconds = parse_duration(length)
    call(place, [place.peer, script, raw.name, dataset.configuration, fold, seconds, place.threads, seed, output])
    validation = output / "validation"
    ours(place, "evaluate", "-r", raw / "labelsTr", "-p", validation, "--only-common", "--metrics", "dice")
    scores = json.loads((validation / "scores.json").read_text())
    how = json.loads((output / "timed.json").read_text())
    return result(place, task, (network, fold, seed), scores, how)


def result(place: Place, task: str, run: tuple[str, int, int], scores: dict, how: dict) -> Result:
    from cpu import cpu

    labels = {label: each["dice"]["mean"] for label, each in scores["labels"].items()}
    of_run = dict(zip(("network", "fold", "seed"), run, strict=True))
    measured = {"dice": scores["mean"]["dice"], "labels": labels, "cases": len(scores["cases"])}
    return Result(task=task, **of_run, **measured, **how, threads=place.threads, cpu=cpu())


def prepare(place: Place, task: str) -> Path:
    """The raw dataset of a task in nnU-Net's layout, planned and preprocessed by ours."""
    from preprocess import link_hippocampus
    from real_datasets import assemble

    dataset = split_task(task)[0]
    raw = place.root / "raw" / dataset.folder
    if not raw.exists():
        if dataset is DATASETS["Hippocampus"]:
            link_hippocampus(place.data, raw.parent, cases=10**6)
        elif dataset is DATASETS["Nuclei"]:  # with masks of 0 and 1, as nnU-Net needs them
            ours(place, "doctor", "-d", place.data / raw.name, "--fix", raw)
        else:
            assemble("Organs", place.data / "samples", raw.parent, "nnunet")
    ours(place, "plan_and_preprocess", "-d", raw)
    return raw


def our_folds(place: Place, raw: Path) -> list[dict[str, list[str]]]:
    """Our folds as nnU-Net writes them."""
    splits = json.loads((place.root / "preprocessed" / raw.name / "splits.json").read_text())
    every = sorted({case for fold in splits["folds"] for case in fold})
    return [{"train": [case for case in every if case not in fold], "val": list(fold)} for fold in splits["folds"]]


def ours(place: Place, command: str, *words: object) -> None:
    call(place, [Path(sys.executable).with_name(f"mvl_{command}"), *words])


def call(place: Place, words: list[object]) -> None:
    """Run a command. Raises CalledProcessError, with what it said on the screen, when it fails."""
    done = subprocess.run(list(map(str, words)), env=place.environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
        done.check_returncode()


def write_json(file: Path, content: object) -> None:
    beside = file.with_name(f".{file.name}.writing")
    beside.write_text(json.dumps(content, indent=1))
    shutil.move(beside, file)


def figures(results: list[Result]) -> dict[str, float]:
    """Every run: Dice, Dice of each label, steps, threads."""
    found: dict[str, float] = {}
    for one in results:
        name = f"{one.task}, {one.network}, fold {one.fold}, seed {one.seed}"
        found |= {f"{name}: Dice": one.dice, f"{name}: steps": one.steps, f"{name}: threads": one.threads}
        found |= {f"{name}: validation cases": one.cases, f"{name}: fold": one.fold}
        found |= {f"{name}: Dice of {label}": value for label, value in one.labels.items()}
    return found


def table(results: list[Result]) -> str:
    """Mean Dice over the folds of each seed; mean and spread over the seeds."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for one in results:
        groups[one.task, one.network].append(one)
    lines = ["| task | network | Dice | folds x seeds | steps | precision, threads, CPU |", "|---|---|---|---|---|---|"]
    for (task, network), those in sorted(groups.items()):
        by_seed: dict[int, list[float]] = defaultdict(list)
        for one in those:
            by_seed[one.seed].append(one.dice)
        means = [statistics.mean(values) for values in by_seed.values()]
        spread = f" ± {statistics.stdev(means):.4f}" if len(means) > 1 else ""
        steps = round(statistics.mean(one.steps for one in those))
        how = ", ".join(sorted({f"{one.precision}, {one.threads}, {one.cpu}" for one in those}))
        count = f"{len({one.fold for one in those})} x {len(by_seed)}"
        lines.append(f"| {task} | {network} | {statistics.mean(means):.4f}{spread} | {count} | {steps} | {how} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
