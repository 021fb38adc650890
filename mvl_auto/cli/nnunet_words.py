"""nnU-Net's words on our command lines: taken where they mean the same, else answered in one line with ours.

`translate` rewrites the arguments before argparse sees them. docs/from_nnunet.md has the same table for readers, and
a test compares the two. The words are those of nnU-Net v2 (https://github.com/MIC-DKFZ/nnUNet).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MANY = -1  # values, one or more


@dataclass(frozen=True)
class Word:
    """One option of nnU-Net.

    values: how many it takes (MANY: one or more). ours: the words that mean the same; `{}` stands for the value.
    only: the only values for which that is true (empty: all). note: for a word that is not needed here, why.
    instead: what to do instead, an imperative sentence; a word with it is refused.
    """

    values: int = 0
    ours: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    note: str = ""
    instead: str = ""


DEVICE = Word(1, ("--device", "{}"))
ALWAYS_RESUMES = Word(note="an interrupted run is always resumed")
TRAINER = Word(
    1,
    only=("nnUNetTrainer",),
    note="there is one trainer",
    instead="There is one trainer: set its length with --time or --steps",
)
PLANS = Word(
    1,
    only=("nnUNetPlans",),
    note="a dataset has one plan",
    instead="A dataset has one plan: make another with mvl_plan_and_preprocess under another --root",
)

WORDS: Mapping[str, Mapping[str, Word]] = {
    "mvl_plan_and_preprocess": {
        "--verify_dataset_integrity": Word(note="every dataset is checked"),
        "--clean": Word(note="a case that has changed is always read anew"),
        "--no_pp": Word(ours=("--plan-only",)),
        "--verbose": Word(ours=("-v",)),
        "-np": Word(1, ("--workers", "{}")),
        "-npfp": Word(1, ("--workers", "{}")),
        "-gpu_memory_target": Word(1, ("--memory", "{}GB")),
        "-pl": Word(1, instead="Choose the size of the GPU with --preset S, M, L or XL, or with --memory"),
        "-fpe": Word(1, instead="There is one fingerprint: leave it out"),
        "-preprocessor_name": Word(1, instead="There is one preprocessing: leave it out"),
        "-overwrite_plans_name": Word(1, instead="A dataset has one plan: make another under another --root"),
        "-overwrite_target_spacing": Word(
            MANY, instead="Leave it out: the plan chooses the voxel size, and --explain says why"
        ),
    },
    "mvl_train": {
        "--c": ALWAYS_RESUMES,
        "--use_compressed": Word(note="prepared cases are always compressed"),
        "-device": DEVICE,
        "-num_gpus": Word(
            1,
            only=("1",),
            note="one GPU is the default",
            instead="A fold is trained on one GPU: choose it with --device cuda:N, and train another fold on another",
        ),
        "-tr": TRAINER,
        "-p": PLANS,
        "--npz": Word(instead="Write probabilities of any images with mvl_predict --probabilities"),
        "--val": Word(instead="Leave it out: a trained fold that was not validated is validated by the same command"),
        "--val_best": Word(instead="Leave it out: the averaged weights at the end of the training are validated"),
        "--disable_checkpointing": Word(instead="Leave it out: checkpoints are small, and a stopped run needs them"),
        "-pretrained_weights": Word(1, instead="Give a network of mvl_train or mvl_pretrain with --from"),
    },
    "mvl_predict": {
        "--disable_tta": Word(ours=("--no-mirroring",)),
        "--save_probabilities": Word(ours=("--probabilities",)),
        "--continue_prediction": ALWAYS_RESUMES,
        "--c": ALWAYS_RESUMES,
        "--verbose": Word(ours=("-v",)),
        "--disable_progress_bar": Word(ours=("-q",)),
        "-step_size": Word(1, ("--step-size", "{}")),
        "-device": DEVICE,
        "-chk": Word(
            1,
            only=("checkpoint_final.pth",),
            note="the weights at the end of the training are used",
            instead="Leave it out: a fold has one checkpoint, the averaged weights at the end of its training",
        ),
        "-npp": Word(1, note="images are read while the network works"),
        "-nps": Word(1, note="predictions are written while the network works"),
        "-tr": TRAINER,
        "-p": PLANS,
        "-m": Word(1, instead="Choose the network with -d DATASET and -n RUN"),
        "-prev_stage_predictions": Word(
            1, instead="Leave it out: a cascade's first stage is predicted just before the second"
        ),
        "-num_parts": Word(1, only=("1",), note="one part is all", instead="Give each process a folder of its own"),
        "-part_id": Word(1, only=("0",), note="one part is all", instead="Give each process a folder of its own"),
    },
    "mvl_evaluate": {
        "-djfile": Word(1, ("--dataset-json", "{}")),
        "-pfile": Word(1, note="the label files say all that is needed"),
        "-np": Word(1, ("--workers", "{}")),
        "--chill": Word(ours=("--only-common",)),
    },
}


class Refused(ValueError):
    """A word that this command does not take: what to type instead, in one line."""


def translate(command: str, argv: Sequence[str], notes: list[str]) -> list[str]:
    """The arguments in our words. notes: takes up a line for each word that is not needed here.

    Raises Refused for a word of nnU-Net that means nothing here, with what to do instead.
    """
    words = WORDS.get(command, {})
    result: list[str] = []
    arguments = list(argv)
    if command == "mvl_evaluate" and len(argv) > 1 and not any(word.startswith("-") for word in argv[:2]):
        arguments[:2] = ["-r", argv[0], "-p", argv[1]]  # as nnUNetv2_evaluate_folder takes them
    while arguments:
        given, _, attached = arguments[0].partition("=")
        if arguments[0] == "--":
            return result + arguments
        word = words.get(given) or words.get(_with_two_dashes(given))
        if word is None:
            result.append(arguments.pop(0))
            continue
        del arguments[0]
        values = [attached] if attached else list(_values(arguments, word.values))
        if len(values) < abs(word.values):
            raise Refused(f"{given} needs a value")
        if word.instead and not (word.only and set(values) <= set(word.only)):
            raise Refused(f"{' '.join([given, *values])} is nnU-Net's. {word.instead}")
        if word.note:
            notes.append(f"{' '.join([given, *values])} is not needed: {word.note}")
        result += [ours.format(*values) for ours in word.ours]
    return result


def _with_two_dashes(given: str) -> str:
    """`--npz` for -npz, which nnU-Net's users type as often; options of one letter stay as they are."""
    return f"-{given}" if given.startswith("-") and not given.startswith("--") and len(given) > 2 else given


def _values(arguments: list[str], number: int) -> Iterator[str]:
    """Take the values of an option off the front of the arguments."""
    while arguments and number and not arguments[0].startswith("-"):
        yield arguments.pop(0)
        number -= 1
