"""mvl_audit: rank the labels of a dataset by how likely they are wrong."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mvl_auto.cli.common import DONE, PARTLY_FAILED, Command, run_command
from mvl_auto.cli.values import DEVICES, device, positive
from mvl_auto.files import ensure_writable_folder
from mvl_auto.outputs import leaving_no_trace
from mvl_auto.tables import table
from mvl_auto.text import count_text

SHOWN = 20


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(COMMAND, argv)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", required=True, metavar="DATASET", help="number, name or path")
    parser.add_argument("-c", "--configuration", metavar="NAME", help="2d, 3d_fullres, ... (default: the trained one)")
    parser.add_argument("-n", "--name", metavar="RUN", help="name of the run (default: the only one)")
    parser.add_argument("--most", type=positive, default=SHOWN, metavar="N", help=f"cases to show (default: {SHOWN})")
    parser.add_argument(
        "--fix-list", type=Path, metavar="FOLDER", help="write the places there, for 3D Slicer and ITK-SNAP, per case"
    )
    parser.add_argument("--device", type=device, default="auto", help=DEVICES)


def run(args: argparse.Namespace) -> int:
    from mvl_auto import api
    from mvl_auto.audit import row_of, write_fix_list

    with ExitStack() as stack:
        if args.fix_list is not None:
            stack.enter_context(leaving_no_trace(args.fix_list))
            ensure_writable_folder(args.fix_list)
        report = api.audit(
            args.dataset,
            root=args.root,
            configuration=args.configuration,
            run=args.name,
            device=args.device,
            progress=args.progress,
        )
    rows = [row_of(audited, score) for audited, score in report.cases[: args.most]]
    lines = [
        (str(rank), row["case"], f"{row['score']:.3f}", f"{row['reason']}: {row['detail']}")
        for rank, row in enumerate(rows, start=1)
    ]
    print(table(["", "case", "score", "what may be wrong"], lines))
    print(f"\nwrote {report.folder / 'audit.csv'} and audit.json: all {len(report.cases)} cases, with places")
    print(f"wrote {report.folder / 'audit.html'}: the first ones with pictures")
    if args.fix_list is not None:
        listed = write_fix_list(report, args.fix_list, args.most)
        places = f"the places of {count_text(len(listed), 'case')}"
        print(f"wrote {places} to {args.fix_list}: .mrk.json for 3D Slicer, .annot for ITK-SNAP")
    return PARTLY_FAILED if report.left_out else DONE


COMMAND = Command(
    name="mvl_audit",
    summary="Rank the labels of a dataset by how likely they are wrong. Every case is predicted by the fold that was "
    "not trained on it; a label that a simple correction (labels swapped, shifted, flipped, slices or objects missing) "
    "would make agree much better with the prediction comes first.",
    example="mvl_audit -d 4",
    add_arguments=add_arguments,
    run=run,
    uses_torch=True,
)
