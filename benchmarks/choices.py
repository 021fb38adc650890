"""What a choice of the planner or of the training is worth in Dice: each version trained for the same steps.

    python benchmarks/choices.py mirroring rate batch depth colours -o FOLDER [--steps 300] [--folds 0] [--seeds 2]
    python benchmarks/choices.py --table -o FOLDER        what FOLDER has so far

Every run is one version, fold and seed, from the same weights and batches where the version leaves them alone; its
result is a small JSON file in FOLDER/results. Started again, the script goes on with what is missing, and a training
resumes at its checkpoint. The versions take turns. Steps are fixed, so a busy machine changes no figure.

mirroring: of training and prediction, from right to left only, or along all axes. rate: the peak of the learning rate.
batch: patches of a step, with as many patches in all. colours: the red, green and blue of Nuclei divided by 255, or a
z-score each, as nnU-Net's rule for the names R, G and B has it. depth: blocks of the trunk, with as many steps as take
the same time on two threads (116, 98 and 78 ms a step on an Intel Xeon with AVX512-BF16).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cpu import cpu

DATA = Path(__file__).parents[2] / "shared/data"
HIPPOCAMPUS, NUCLEI = "Task04_Hippocampus", "Dataset101_Nuclei"


@dataclass(frozen=True)
class Version:
    """One of the things to choose from.

    data: the folder of the raw dataset. plan, network: fields of the configuration and of its network that differ from
    the plan's. train: further arguments of mvl_auto.train. share: of --steps. channels: other names for the channels in
    dataset.json.
    """

    name: str
    data: str = HIPPOCAMPUS
    plan: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0
    channels: tuple[str, ...] = ()


CHOICES = {
    "mirroring": (Version("right-left"), Version("all-axes", plan={"mirror_axes": (0, 1, 2)})),
    "rate": tuple(Version(f"rate-{rate:g}", train={"learning_rate": rate}) for rate in (1.5e-3, 3e-3)),
    "batch": tuple(
        Version(f"batch-{size}-rate-{rate:g}", train={"batch_size": size, "learning_rate": rate}, share=4 / size)
        for size in (4, 2, 1)
        for rate in (1.5e-3, 3e-3)
    ),
    "depth": tuple(
        Version(f"depth-{depth}", network={"depth": depth}, share=share)
        for depth, share in ((6, 1.0), (4, 1.2), (2, 1.5))
    ),
    "colours": (
        Version("divided-by-255", data=NUCLEI, channels=("R", "G", "B")),
        Version("z-score", data=NUCLEI, channels=("zscore", "zscore", "zscore")),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("choices", nargs="*", choices=[*CHOICES, []], metavar="CHOICE", help=f"of {', '.join(CHOICES)}")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--dataset", metavar="NAME", help="of --data, instead of the choice's own")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--llm", default="none", help="frozen block of the networks (default: none)")
    parser.add_argument("--table", action="store_true", help="print what there is, and train nothing")
    args = parser.parse_args()
    results = args.output / "results"
    results.mkdir(parents=True, exist_ok=True)
    if args.dataset:
        for choice in args.choices:
            CHOICES[choice] = tuple(replace(version, data=args.dataset) for version in CHOICES[choice])
    for choice in [] if args.table else args.choices:
        for seed in range(args.seeds):
            for fold in args.folds:
                for version in CHOICES[choice]:
                    file = results / f"{choice}-{version.name}-{args.steps}-fold{fold}-seed{seed}.json"
                    if not file.exists():
                        found = run(args, choice, version, fold, seed)
                        file.with_suffix(".part").write_text(json.dumps(found, indent=1), encoding="utf-8")
                        file.with_suffix(".part").rename(file)
                        print(f"{file.stem}: {found['dice']:.4f}", flush=True)
    print_table([json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("*.json"))])


def run(args: argparse.Namespace, choice: str, version: Version, fold: int, seed: int) -> dict[str, Any]:
    """Trains and validates one run; what its JSON file holds."""
    import mvl_auto

    root = args.output / "roots" / f"{choice}-{version.name}-{args.llm}"
    dataset = planned(args, root, version)
    steps = round(args.steps * version.share)
    name = f"seed{seed}-{steps}"
    mvl_auto.train(dataset, fold, root=root, run=name, steps=steps, seed=seed, device="cpu", **version.train)
    (folder,) = root.glob(f"results/*/{name}/fold{fold}")
    scores = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    told = {
        "choice": choice,
        "version": version.name,
        "fold": fold,
        "seed": seed,
        "steps": steps,
        "of_steps": args.steps,
    }
    return told | {"llm": args.llm, "dice": scores["mean"]["dice"], "cases": len(scores["cases"]), "cpu": cpu()}


def planned(args: argparse.Namespace, root: Path, version: Version) -> str:
    """The dataset's name in a root of this version alone: linked, planned, prepared, and the plan changed."""
    import mvl_auto
    from mvl_auto.plans import Plan, read_document, write_document

    raw = root / "raw" / version.data
    if not (raw / "dataset.json").exists():
        link(args.data / version.data, raw, version.channels)
    if not (root / "planned").exists():
        mvl_auto.plan_and_preprocess(raw, root=root, preset="cpu", llm=args.llm)
        (file,) = root.glob("preprocessed/*/plans.json")
        write_document(file, changed(read_document(file, Plan), version))
        (root / "planned").touch()
    (file,) = root.glob("preprocessed/*/plans.json")
    return file.parent.name


def changed(plan: Any, version: Version) -> Any:
    of = plan.configurations[plan.recommended]
    network = of.network.model_copy(update=version.network)
    of = of.model_copy(update={**version.plan, "network": network})
    return plan.model_copy(update={"configurations": {**plan.configurations, plan.recommended: of}})


def link(source: Path, raw: Path, channels: tuple[str, ...]) -> None:
    """A dataset whose images and labels are the source's, with a dataset.json of its own."""
    raw.mkdir(parents=True, exist_ok=True)
    for folder in source.iterdir():
        if folder.is_dir() and not (raw / folder.name).exists():
            (raw / folder.name).symlink_to(folder, target_is_directory=True)
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    if channels:
        description["channel_names"] = {str(number): name for number, name in enumerate(channels)}
    (raw / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def print_table(results: list[dict[str, Any]]) -> None:
    groups = defaultdict(list)
    for each in results:
        groups[each["choice"], each["of_steps"], each["version"], each["steps"]].append(each)
    print("| choice | version | steps | runs | mean Dice | of each run |\n|---|---|---|---|---|---|")
    for (choice, _, version, steps), each in groups.items():
        dice = [run["dice"] for run in each]
        values = ", ".join(f"{value:.3f}" for value in dice)
        print(f"| {choice} | {version} | {steps} | {len(dice)} | {statistics.mean(dice):.4f} | {values} |")


if __name__ == "__main__":
    main()
