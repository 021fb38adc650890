"""mvl_train: train one fold or several of a planned dataset, and validate each at its end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mvl_auto.cli.common import DONE, Command, run_command
from mvl_auto.cli.evaluate import labels
from mvl_auto.cli.plan_and_preprocess import CONFIGURATIONS
from mvl_auto.cli.submitting import add_submit_arguments, command_words, send, words_of_options
from mvl_auto.cli.training_options import add_changes, add_configuration, add_training, shared_arguments
from mvl_auto.cli.values import factor
from mvl_auto.errors import MvlError


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="number, name or path: 4, Hippocampus, Task04_Hippocampus")
    parser.add_argument("folds", nargs="+", metavar="fold", help="fold0 or 0; several: 0 1 2; all: on every case")
    add_configuration(parser, "the configuration's")
    parser.add_argument(
        "--previous", metavar="RUN", help="for 3d_cascade_fullres: the run of its first stage (default: 3d_lowres)"
    )
    add_training(parser, "train each fold", "as planned", "weights, crops and augmentation")
    changes = add_changes(parser, "for this run, instead of what the plan says (give it a name with -n)")
    changes.add_argument(
        "--from",
        dest="start_from",
        type=Path,
        metavar="PATH",
        help="begin with the weights of a trained network, as far as they fit: a checkpoint, or the folder of a fold "
        "or of a pretraining",
    )
    changes.add_argument(
        "--trunk-rate",
        type=factor,
        metavar="FACTOR",
        help="factor on the learning rate of the trunk's blocks: 0.1, a tenth; 0: they stay as they are (default: 1)",
    )
    add_submit_arguments(parser, "fold", "gpus=1 (more than one: all train the same fold)")


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api

    configuration, folds = split_configuration(args.configuration, args.folds)
    if args.submit is not None:
        return send_folds(args, configuration, folds)
    if args.submit_option:
        raise MvlError("--submit-option is for jobs", remedy="Add --submit slurm, or leave it out.")
    results = api.train(
        args.dataset,
        folds,
        previous=args.previous,
        start_from=args.start_from,
        trunk_rate=args.trunk_rate,
        **(shared_arguments(args) | {"configuration": configuration}),
    )
    if not args.leads:
        return DONE
    for result in results:
        print(f"\n{result.folder}: {result.steps} steps in {result.seconds:.0f} s")
        if result.validation is not None:
            print(labels(result.validation))
    print(f"\nnext: mvl_predict -i IMAGES -o PREDICTIONS -d {args.dataset} -n {results[-1].folder.parent.name}")
    return DONE


def send_folds(args: argparse.Namespace, configuration: str | None, folds: Sequence[str]) -> int:
    """A job for each fold. Raises MvlError for what can be refused before a job runs."""
    from mvl_auto.api.training import check_training

    plan, chosen = check_training(args.dataset, folds, args.root, configuration, (args.name, args.previous))
    gpus = dict(args.submit_option).get("gpus", "1")
    commands = {}
    for fold in chosen:
        words = words_of(args, configuration, fold)
        commands[f"fold{fold}" if fold.isdigit() else fold] = command_words("mvl_auto.cli.train", words, gpus)
    return send(commands, args, args.root / "jobs" / plan.dataset)


def words_of(args: argparse.Namespace, configuration: str | None, fold: str) -> list[str]:
    """The arguments of the same command for one fold. Paths do not depend on the working folder."""
    dataset = Path(args.dataset)
    chosen = {
        "--root": args.root.absolute(),
        "-c": configuration,
        "-n": args.name,
        "--previous": args.previous,
        "--time": args.time,
        "--steps": args.steps,
        "--device": args.device,
        "--seed": args.seed,
        "--workers": args.workers,
        "--batch-size": args.batch_size,
        "--lr": args.lr,
        "--network": args.network,
        "--llm": args.llm,
        "--from": None if args.start_from is None else args.start_from.absolute(),
        "--trunk-rate": args.trunk_rate,
        "--logger": logger_from_anywhere(args.logger),
    }
    return [str(dataset.absolute()) if dataset.exists() else args.dataset, fold, *words_of_options(chosen)]


def logger_from_anywhere(word: str | None) -> str | None:
    """The path of FILE.py:FUNCTION does not depend on the working folder any more."""
    place, _, name = (word or "").rpartition(":")
    return f"{Path(place).absolute()}:{name}" if place.endswith(".py") else word


def split_configuration(configuration: str | None, words: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """nnU-Net's order, `mvl_train 4 3d_fullres 0`, has the configuration ahead of the folds.

    Raises MvlError when no fold is left, or -c names another configuration.
    """
    if words[0] not in CONFIGURATIONS:
        return configuration, words
    if configuration not in (None, words[0]):
        raise MvlError(f"{words[0]} and -c {configuration} are two configurations", remedy="Leave one of them out.")
    if not words[1:]:
        raise MvlError(f"{words[0]} is a configuration, no fold is named", remedy=f"Add one: {words[0]} fold0.")
    return words[0], words[1:]


COMMAND = Command(
    name="mvl_train",
    summary="Train one fold or several of a dataset that mvl_plan_and_preprocess has planned, then predict and score "
    "its validation cases. Says first how long it is going to take. If interrupted, run the same command again to "
    "resume: Ctrl-C and SIGTERM save a checkpoint first.",
    example="""
        mvl_train 4 fold0
        mvl_train 4 fold0 --time 10m
        mvl_train Hippocampus 0 1 2 -c 3d_fullres -n first_try --steps 2000
        mvl_train 4 fold0 -n slow --lr 5e-4 --batch-size 8
        mvl_train 4 fold0 -n finetuned --from results/Dataset004_Hippocampus/3d_fullres_pretrained --trunk-rate 0.1
        mvl_train 4 0 1 2 3 4 --submit slurm --submit-option partition=gpu time=12h memory=32GB gpus=1
        mvl_train 4 0 1 2 3 4 -c 3d_lowres && mvl_train 4 0 1 2 3 4 -c 3d_cascade_fullres
    """,
    add_arguments=add_arguments,
    run=run,
    trains=True,
    joint=True,
    uses_torch=True,
)

if __name__ == "__main__":  # torchrun -m mvl_auto.cli.train
    sys.exit(main())
