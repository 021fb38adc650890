"""Random damage to each kind of file that a command reads, for as long as one likes.

    python -m tests.faults.fuzz --seconds 600 [--seed 0] [--kinds image plans ...] [--keep FOLDER]
    python -m tests.faults.fuzz --seed 0 --only 1234          one of them again

Each try damages one file of a small root and runs the command that meets it. Whatever the damage is, the command must
end in time and memory with one of its exit codes, without a traceback, and change nothing outside of the root. What it
makes of the file is not judged: a flipped bit of a voxel is another voxel. A try is named by the seed and its number.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from commands import succeed
from corpus import DOCTOR, DONE, EVALUATE, PLAN, PREDICT, PREPARE, PREPARED, RAW, RESULTS, TRAIN, Hostile
from damage import damaged, damaged_archive
from prepared_root import base

from tests.faults.hostile import Outcome, runner

CACHE = PREPARED / "3d_fullres"
BLOCK = "random:hidden=16,heads=2,kv_heads=1,ffn=24,seed=0"
ZIP = b"PK"
BEGUN = RESULTS / "begun"  # a run that was trained, where that of RESULTS was only written
MORE = Path("more")  # files of other formats, beside what a root has


@dataclass(frozen=True)
class Kind:
    """files: below the root, one of which is damaged. command: what reads them.

    without: a file below the root that is removed, since the command would read it in place of the others. codes: with
    which the command may end; what can be made anew, or is only shown, must not stop it.
    """

    files: Sequence[str]
    command: Sequence[str]
    without: str | None = None
    codes: tuple[int, ...] = DONE

    def files_of(self, root: Path) -> list[Path]:
        return sorted(file for pattern in self.files for file in root.glob(pattern) if file.is_file())

    def forget(self, root: Path) -> None:
        if self.without is not None:
            (root / self.without).unlink()


def predicting(place: str) -> list[str]:
    return ["predict", "-i", place, *PREDICT[3:], "-n", "3d_fullres"]  # there are two runs


KINDS = {
    "image": Kind(["imgs/*.nii.gz"], predicting("imgs")),
    "image in NIfTI without gzip": Kind([f"{MORE}/nii/*"], predicting(f"{MORE}/nii")),
    "image in NRRD": Kind([f"{MORE}/nrrd/*"], predicting(f"{MORE}/nrrd")),
    "image in MetaImage": Kind([f"{MORE}/mha/*"], predicting(f"{MORE}/mha")),
    "image in TIFF": Kind([f"{MORE}/tif/*"], ["evaluate", "-r", f"{MORE}/tif", "-p", f"{MORE}/tif"]),
    "image in PNG": Kind([f"{MORE}/png/*"], ["evaluate", "-r", f"{MORE}/png", "-p", f"{MORE}/png"]),
    "image in DICOM": Kind([f"{MORE}/dicom/*"], predicting(f"{MORE}/dicom")),
    "segments of 3D Slicer": Kind([f"{MORE}/seg/*"], ["evaluate", "-r", f"{MORE}/seg", "-p", f"{MORE}/seg"]),
    "image of the dataset": Kind([f"{RAW}/imagesTr/*"], PREPARE),
    "label of the dataset": Kind([f"{RAW}/labelsTr/*"], DOCTOR),
    "prediction": Kind(["masks/*"], EVALUATE),
    "dataset.json": Kind([f"{RAW}/dataset.json"], PLAN),
    "plan": Kind([f"{PREPARED}/plans.json"], TRAIN),
    "plan of a run": Kind([f"{RESULTS}/3d_fullres/plans.json"], predicting("imgs")),
    "splits": Kind([f"{PREPARED}/splits.json", f"{PREPARED}/dataset.json"], TRAIN),
    "fingerprint": Kind([f"{PREPARED}/fingerprint.json"], PLAN),
    "examined cases": Kind([f"{PREPARED}/.examined/*"], PLAN, f"{PREPARED}/fingerprint.json", codes=(0,)),
    "cards of the cache": Kind([f"{CACHE}/*.json"], TRAIN),
    "arrays of the cache": Kind([f"{CACHE}/*.b2nd", f"{CACHE}/*.seg", f"{CACHE}/*.locations"], TRAIN),
    "checkpoint": Kind([f"{RESULTS}/3d_fullres/fold0/*"], predicting("imgs")),
    "curves of a training": Kind(
        [f"{BEGUN}/fold0/progress.csv"], [*TRAIN[:3], "-n", "begun", "--steps", "2"], codes=(0,)
    ),
    "results of a training": Kind(
        [f"{BEGUN}/fold0/*", f"{BEGUN}/fold0/validation/*"], ["report", str(BEGUN)], codes=(0,)
    ),
    "names of labels": Kind(["masks/labels.json"], ["evaluate", "-r", f"{MORE}/references", "-p", "masks"]),
    "card of a block": Kind(["blocks/*.json"], ["block", "list"]),
    "block": Kind(["blocks/*"], ["block", "verify"]),
    "model in GGUF": Kind([f"{MORE}/gguf/*"], ["block", "add", f"file:{MORE}/gguf/model.gguf"]),
    "model in safetensors": Kind([f"{MORE}/model/*"], ["block", "add", f"file:{MORE}/model"]),
    "scores": Kind([f"{MORE}/scores/*"], ["compare", f"{MORE}/scores", f"{MORE}/others"]),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this one try")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="put the damaged files of problems there")
    args = parser.parse_args(argv)
    tries, problems, longest = Counter[str](), Counter[str](), 0.0
    with tempfile.TemporaryDirectory(prefix="mvl-fuzz-") as folder:
        for number, (kind, outcome) in fuzz(Path(folder), args.seed, args.seconds, args.kinds, args.only):
            tries[kind, outcome.code] += 1
            longest = max(longest, outcome.seconds)
            if outcome.problem:
                problems[kind] += 1
                print(f"try {number}, {outcome.hostile.name}: {outcome.problem}", flush=True)
                if args.keep is not None:
                    keep(Path(folder) / "place/around/root", outcome, args.keep / f"{args.seed}-{number}")
    for kind in args.kinds:
        done, partly, refused = (tries[kind, code] for code in (0, 1, 2))
        ended = f"{refused:4} refused, {partly:4} done in part, {done:4} done, {problems[kind]} problems"
        print(f"{kind:28} {sum(tries[kind, code] for code in DONE):4} tries: {ended}")
    print(f"{tries.total()} tries, {problems.total()} problems; the longest took {longest:.1f} s")
    return 1 if problems else 0


def fuzz(
    folder: Path, seed: int, seconds: float, kinds: Sequence[str], only: int | None = None
) -> Iterator[tuple[int, tuple[str, Outcome]]]:
    """The number of each try, the kind of file that was damaged, and how its command ended."""
    with runner(folder, base_of_many) as run:
        for kind in kinds:
            if problem := run(sound(kind)).problem:
                raise RuntimeError(f"{kind}, undamaged: {problem}")
        end, number = time.monotonic() + seconds, 0 if only is None else only
        while time.monotonic() < end:
            kind = kinds[number % len(kinds)]
            yield number, (kind, run(damage_one(kind, Random(f"{seed}-{number}"))))
            number += 1
            if only is not None:
                return


def sound(kind: str) -> Hostile:
    """The same command with nothing damaged, which must succeed: else its refusals say nothing."""
    return Hostile(kind, KINDS[kind].command, KINDS[kind].forget, (0,))


def damage_one(kind: str, random: Random) -> Hostile:
    """One file of a kind, damaged in one way."""

    def spoil(root: Path) -> None:
        KINDS[kind].forget(root)
        file = random.choice(KINDS[kind].files_of(root))
        content = file.read_bytes()
        behind_checksums = content.startswith(ZIP) and random.random() < 2 / 3
        file.write_bytes((damaged_archive if behind_checksums else damaged)(content, random))

    return Hostile(kind, KINDS[kind].command, spoil, KINDS[kind].codes)


def keep(root: Path, outcome: Outcome, folder: Path) -> None:
    """Copy the files that may be damaged, and what was said."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "said.txt").write_text(outcome.said, encoding="utf-8")
    for file in KINDS[outcome.hostile.name].files_of(root):
        (folder / file.name).write_bytes(file.read_bytes())


def base_of_many(root: Path) -> None:
    """The root of all hostile inputs, and files of each format that is read beside NIfTI."""
    import numpy as np
    import SimpleITK as sitk
    import tifffile
    from dicom_series import save_series
    from gguf_models import write_gguf
    from llm_models import make_model, save_model
    from PIL import Image
    from slicer_segments import write_nrrd

    from mvl_auto import api
    from mvl_auto.inference.label_files import write_label_names
    from mvl_auto.llm import ensure_block
    from mvl_auto.plans import Plan, read_document

    base(root)
    succeed(*TRAIN[:3], "-n", "begun", "--steps", 1, "--device", "cpu", root=root)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # of fields of NIfTI that other formats do not have
    more = root / MORE
    for name in ("nii", "nrrd", "mha", "tif", "png", "dicom", "seg", "gguf"):
        (more / name).mkdir(parents=True)
    image = sitk.ReadImage(str(root / "imgs/tiny_000.nii.gz"))
    for ending in ("nii", "nrrd", "mha"):
        sitk.WriteImage(image, str(more / ending / f"tiny_000.{ending}"), useCompression=ending == "mha")
    voxels = sitk.GetArrayFromImage(image)
    save_series(more / "dicom", voxels, [float(place) for place in range(len(voxels))])
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(root / "masks/tiny_000.nii.gz"))).astype(np.uint8)
    tifffile.imwrite(more / "tif/tiny_000.tif", mask, compression="zlib")
    Image.fromarray(mask[len(mask) // 2]).save(more / "png/tiny_000.png")
    write_nrrd(more / "seg/tiny_000.seg.nrrd", mask, [("one", 1, 0), ("two", 2, 0)])
    ensure_block(BLOCK, "last", root / "blocks")
    model = make_model()
    write_gguf(more / "gguf/model.gguf", model)
    save_model(more / "model", model)
    write_label_names(root / "masks", read_document(root / PREPARED / "plans.json", Plan).labels)
    shutil.copytree(root / "masks", more / "references")
    for name in ("scores", "others"):
        api.evaluate(root / RAW / "labelsTr", root / "masks", output=more / name, only_common=True, workers=1)


if __name__ == "__main__":
    sys.exit(main())
