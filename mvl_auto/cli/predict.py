"""mvl_predict: segment new images with a trained network."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from mvl_auto.cli.common import BAD_INPUT, DONE, PARTLY_FAILED, Command, run_command
from mvl_auto.cli.values import DEVICES, device, share
from mvl_auto.text import count_text


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        required=True,
        metavar="IMAGES",
        help="folder of images, or one image",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for the segmentations",
    )
    parser.add_argument(
        "-d", "--dataset", help="number, name or path of the dataset of the training (default: the only one)"
    )
    parser.add_argument("-c", "--configuration", metavar="NAME", help="2d, 3d_fullres, ... (default: the trained one)")
    parser.add_argument("-n", "--name", metavar="RUN", help="name of the run (default: the only one)")
    parser.add_argument(
        "-f",
        "--folds",
        nargs="+",
        metavar="FOLD",
        help="folds whose networks predict together: 0 1, fold0, ... (default: all that are finished)",
    )
    parser.add_argument("--device", type=device, default="auto", help=DEVICES)
    parser.add_argument(
        "--no-mirroring",
        action="store_true",
        help="do not average over mirrored images; in 3D 8 times less work",
    )
    parser.add_argument(
        "--step-size",
        type=share,
        default=0.5,
        metavar="SHARE",
        help="distance from one window to the next, as a share of the window (default: 0.5)",
    )
    parser.add_argument("--overwrite", action="store_true", help="predict again where a prediction exists")
    parser.add_argument(
        "--probabilities", action="store_true", help="write the probabilities too, into FOLDER/probabilities"
    )
    parser.add_argument(
        "--color-table", action="store_true", help="write the labels' names and colours for ITK-SNAP and 3D Slicer"
    )
    parser.add_argument(
        "--volumes",
        action="store_true",
        help="write volumes.csv: volume (ml) and mean intensities of every label in every case",
    )


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api

    report = api.predict(
        args.input,
        args.output,
        root=args.root,
        dataset=args.dataset,
        configuration=args.configuration,
        run=args.name,
        folds=args.folds,
        device=args.device,
        mirror=not args.no_mirroring,
        step_size=args.step_size,
        overwrite=args.overwrite,
        probabilities=args.probabilities,
        color_table=args.color_table,
        volumes=args.volumes,
        progress=args.progress,
    )
    there = f", {len(report.skipped)} existed already" if report.skipped else ""
    print(f"{count_text(len(report.done), 'image')} predicted{there}, in {args.output}")
    if report.failed:
        print(f"{count_text(len(report.failed), 'image')} failed; the errors say why")
    if report.done or report.skipped:
        print(f"next: {shlex.join(['mvl_evaluate', '-r', 'REFERENCES', '-p', str(args.output)])}")
    if not report.failed:
        return DONE
    return PARTLY_FAILED if report.done or report.skipped else BAD_INPUT


COMMAND = Command(
    name="mvl_predict",
    summary="Segment images with a trained network: on each image's own grid, under its own name. "
    "If interrupted, run the same command again to resume. An image that cannot be read is reported, the others are "
    "segmented.",
    example="""
        mvl_predict -i imgs -o preds
        mvl_predict -i imgs -o preds -d 4 -f 0 1 --no-mirroring
        mvl_predict -i scan.nii.gz -o preds -c 3d_fullres --device cpu
    """,
    add_arguments=add_arguments,
    run=run,
    uses_torch=True,
)
