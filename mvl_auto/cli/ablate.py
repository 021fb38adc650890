"""mvl_ablate: what the LLM block brings, by training with it, without it, and with controls in its place."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mvl_auto.cli.common import DONE, Command, run_command
from mvl_auto.cli.plan_and_preprocess import CONFIGURATIONS
from mvl_auto.cli.submitting import add_submit_arguments, command_words, send, words_of_options
from mvl_auto.cli.values import DEVICES, at_most, device, duration, learning_rate, positive, share, whole
from mvl_auto.errors import MvlError
from mvl_auto.tables import table
from mvl_auto.text import count_text, duration_text, memory_text

if TYPE_CHECKING:
    from mvl_auto.ablation.estimate import Estimate
    from mvl_auto.ablation.record import RunRecord


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", required=True, help="number, name or path, planned and preprocessed")
    parser.add_argument("-c", "--configuration", metavar="NAME", choices=CONFIGURATIONS, help="of the plan")
    parser.add_argument(
        "--arms",
        nargs="+",
        metavar="ARM",
        help="vit, vit+compute, mappers, mlp, random, permuted, pretrained, lora (these are the default), lora-random, "
        "head, middle, two-layers, train-only, all-tokens, pooled, queries, no-trunk, aa, rotated",
    )
    parser.add_argument("--folds", nargs="+", default=["0"], metavar="K", help="whose cases are scored (default: 0)")
    parser.add_argument(
        "--seeds", type=at_most(10_000), default=1, metavar="N", help="runs of each arm and fold (default: 1)"
    )
    parser.add_argument("--first-seed", type=whole, default=0, metavar="N", help="of those (default: 0)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=positive, metavar="N", help="of each run (default: as planned)")
    length.add_argument("--time", type=duration, metavar="TIME", help="of each run instead: 90s, 10m")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--fraction", nargs="+", type=share, metavar="X", help="of the training cases: 0.1 1.0 (default: 1.0)"
    )
    amount.add_argument(
        "--cases", nargs="+", type=at_most(10**6), metavar="N", help="training cases, as a number: 4 8 16"
    )
    rates = parser.add_argument_group("learning rates")
    rates.add_argument("--lr", type=learning_rate, metavar="RATE", help="of every arm (default: as in mvl_train)")
    rates.add_argument(
        "--mapper-rate", type=times, default=1.0, metavar="X", help="factor on it for mappers and gate (default: 1)"
    )
    rates.add_argument(
        "--lr-search",
        nargs="+",
        type=learning_rate,
        default=[],
        metavar="RATE",
        help="find each arm's own among these, in short runs on a part of the training cases",
    )
    rates.add_argument(
        "--mapper-search", nargs="+", type=times, default=[1.0], metavar="X", help="the same for --mapper-rate"
    )
    rates.add_argument("--search-steps", type=positive, default=100, metavar="N", help="of those runs (default: 100)")
    work = parser.add_argument_group("how it is done")
    work.add_argument("-o", "--output", type=Path, metavar="DIR", help="of the study (default: below results)")
    work.add_argument("--dry-run", action="store_true", help="say how many runs, how long and how much disk, and stop")
    work.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="runs at once, of one thread each (default: 1)"
    )
    work.add_argument("--scheduler", metavar="ADDRESS", help="train on the Dask cluster at tcp://HOST:PORT")
    work.add_argument("--keep", action="store_true", help="keep checkpoints and predictions of finished runs")
    work.add_argument("--device", type=device, default="auto", metavar="DEVICE", help=DEVICES)
    work.add_argument("--only", metavar="RUN", help="train this run alone, by its name, as a job does, and stop")
    add_submit_arguments(parser, "run")


def times(text: str) -> float:
    """A number above 0 and at most 1000."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a factor: give a number above 0 and at most 1000")
    return number


def run(args: argparse.Namespace) -> int:
    from mvl_auto.ablation.options import AblationOptions
    from mvl_auto.ablation.record import Amount, Length
    from mvl_auto.api import ablation

    steps, seconds = args.steps, args.time
    amounts = [Amount(cases=n) for n in args.cases or ()] or [Amount(share=x) for x in args.fraction or (1.0,)]
    options = AblationOptions(
        arms=tuple(args.arms) if args.arms else None,
        folds=tuple(args.folds),
        seeds=args.seeds,
        first_seed=args.first_seed,
        amounts=tuple(amounts),
        length=Length(steps=steps, seconds=seconds) if steps or seconds else None,
        learning_rate=args.lr,
        mapper_rate=args.mapper_rate,
        learning_rates=tuple(args.lr_search),
        mapper_rates=tuple(args.mapper_search),
        search_steps=args.search_steps,
        configuration=args.configuration,
        device=args.device,
        keep=args.keep,
        jobs=args.jobs,
        scheduler=args.scheduler,
        output=args.output,
    )
    if args.dry_run:
        print(in_words(ablation.estimate_ablation(args.dataset, options, root=args.root)))
        return DONE
    if args.submit_option and args.submit is None:
        raise MvlError("--submit-option is for jobs", remedy="Add --submit slurm, or leave it out.")
    if args.submit is not None and args.scheduler is not None:
        raise MvlError("--submit and --scheduler are two ways to do the runs", remedy="Leave one of them out.")
    if args.only is not None:
        print(results([ablation.do_one(args.dataset, options, args.only, root=args.root)]))
        return DONE
    if args.submit is not None and (names := ablation.runs_to_do(args.dataset, options, root=args.root)):
        return send_runs(args, names, ablation.output_folder(args.dataset, options, args.root))
    records = ablation.ablate(args.dataset, options, root=args.root, progress=args.progress)
    print(results(records))
    print(f"\nwhat that says: {ablation.output_folder(args.dataset, options, args.root) / 'evidence.html'}")
    return DONE


def send_runs(args: argparse.Namespace, names: Sequence[str], study: Path) -> int:
    """A job for each run."""
    module = "mvl_auto.cli.ablate"
    commands = {name: command_words(module, [*words_of(args), "--only", name], gpus="1") for name in names}
    code = send(commands, args, study / "jobs")
    print("when these jobs are over, run the same command again: it sends what is left, and then compares the runs")
    return code


def words_of(args: argparse.Namespace) -> list[str]:
    """The arguments of the same study. Paths do not depend on the working folder."""
    dataset = Path(args.dataset)
    chosen = {
        "--root": args.root.absolute(),
        "-d": dataset.absolute() if dataset.exists() else args.dataset,
        "-c": args.configuration,
        "--arms": args.arms,
        "--folds": args.folds,
        "--seeds": args.seeds,
        "--first-seed": args.first_seed,
        "--steps": args.steps,
        "--time": args.time,
        "--fraction": args.fraction,
        "--cases": args.cases,
        "--lr": args.lr,
        "--mapper-rate": args.mapper_rate,
        "--lr-search": args.lr_search,
        "--mapper-search": args.mapper_search,
        "--search-steps": args.search_steps,
        "-o": None if args.output is None else args.output.absolute(),
        "--keep": args.keep,
        "--device": args.device,
    }
    return words_of_options(chosen)


def in_words(estimate: Estimate) -> str:
    done = estimate.total - estimate.runs
    kept = f", {done} are finished already" if done else ""
    return (
        f"{count_text(estimate.runs, 'run')} to train{kept}: about {duration_text(estimate.seconds)}, "
        f"at most {memory_text(estimate.disk_bytes)} of disk at a time"
    )


def results(records: list[RunRecord]) -> str:
    """Mean Dice by arm and amount; what that says is in the page that is written beside the records."""

    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        groups.setdefault((record.arm, str(record.amount)), []).append(record)
    rows = []
    for (arm, amount), those in groups.items():
        dice = statistics.mean(record.mean_dice for record in those)
        seconds = statistics.median(record.seconds_per_step for record in those)
        rows.append([arm, amount, str(len(those)), f"{dice:.4f}", f"{seconds:.3f}"])
    return table(["arm", "training cases", "runs", "mean Dice", "s per step"], rows)


COMMAND = Command(
    name="mvl_ablate",
    summary="Train the planned network with its LLM block, without it, and with controls in the block's place, on the "
    "same cases, weights at the start and batches, and compare them. If interrupted, run the same command again: "
    "finished runs are kept, and the run that was stopped resumes.",
    example="""
        mvl_ablate -d 4 --steps 400 --folds 0 1 --seeds 3
        mvl_ablate -d 4 --arms vit pretrained --cases 4 8 16 --dry-run
        mvl_ablate -d 4 --steps 400 --lr-search 7e-4 1.5e-3 3e-3 --mapper-search 1 10
        mvl_ablate -d 4 --steps 400 --seeds 3 --submit slurm --submit-option partition=gpu time=2h gpus=1
    """,
    add_arguments=add_arguments,
    run=run,
    trains=True,
    uses_torch=True,
)

if __name__ == "__main__":  # a job runs python -m mvl_auto.cli.ablate
    sys.exit(main())
