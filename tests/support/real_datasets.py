"""Small datasets put together from the real volumes of MVL_TEST_DATA: pieces of one scan are its cases.

What a piece is follows from the scan: all of its header stays, only fewer slices or columns are there. One volume
makes no training set that anybody would want; but its spacing, its values and its labels are those of real data.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from builders import Layout

NUMBERS = {"Cord": 31, "CordContrasts": 32, "Organs": 33, "Spleen": 34, "Series": 35}
CHANNELS = {"CordContrasts": ("MT0", "MT1", "T1w"), "Cord": ("T2s",)}  # the others: CT


@dataclass(frozen=True)
class Piece:
    """One case. images: one per channel; or the files of a DICOM series."""

    label: sitk.Image
    images: tuple[sitk.Image, ...] = ()
    slices: tuple[Path, ...] = ()


def assemble(name: str, samples: Path, folder: Path, layout: Layout) -> Path:
    """Write the dataset `name` (a key of NUMBERS) into `folder` and return its own folder."""
    pieces = dict(zip(("one", "two", "three"), PIECES[name](samples), strict=True))
    dataset = folder / f"{'Dataset' if layout == 'nnunet' else 'Task'}{NUMBERS[name]:03d}_{name}"
    (dataset / "imagesTr").mkdir(parents=True)
    (dataset / "labelsTr").mkdir()
    channels = CHANNELS.get(name, ("CT",))
    for case, piece in pieces.items():
        sitk.WriteImage(piece.label, str(dataset / "labelsTr" / f"{case}.nii.gz"))
        if piece.slices:
            _copy_series(piece.slices, dataset / "imagesTr" / case)
        elif layout == "nnunet":
            for channel, image in enumerate(piece.images):
                sitk.WriteImage(image, str(dataset / "imagesTr" / f"{case}_{channel:04d}.nii.gz"))
        else:
            _write_together(piece.images, dataset / "imagesTr" / f"{case}.nii.gz")
    values = sorted({int(value) for piece in pieces.values() for value in np.unique(_array(piece.label))} - {0})
    names = {"background": 0} | {f"structure {value}": value for value in values}
    _describe(dataset, layout, names, channels, [(case, bool(piece.slices)) for case, piece in pieces.items()])
    return dataset


def link_some(source: Path, folder: Path, cases: int) -> Path:
    """The first cases of a dataset in the MSD layout, as links to its files; returns the folder of the new one."""
    dataset = folder / source.name
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    chosen = sorted(description["training"], key=lambda pair: pair["image"])[:cases]
    for pair in chosen:
        for file in (pair["image"], pair["label"]):
            (dataset / file).parent.mkdir(parents=True, exist_ok=True)
            (dataset / file).symlink_to(source / file)
    known = {"training": chosen, "numTraining": len(chosen), "test": [], "numTest": 0}
    (dataset / "dataset.json").write_text(json.dumps(description | known))
    return dataset


# ------------------------------------------------------------------------------ scans in pieces


def _cord(samples: Path) -> Iterator[Piece]:
    """0.5 x 0.5 x 7.5 mm: the cropped scan, and two windows of the whole one; grey matter."""
    yield Piece(_read(samples / "cord/t2s_gmseg_manual.nii.gz"), (_read(samples / "cord/t2s.nii.gz"),))
    image, label = (_read(samples / f"cord/t2s_uncropped{part}.nii.gz") for part in ("", "_gmseg_manual"))
    z, y, x = (int(place) for place in np.argwhere(_array(label)).mean(axis=0))
    for slices, half in [(slice(0, z + 1), 40), (slice(z - 2, 11), 32)]:
        window = (slice(x - half, x + half), slice(y - half, y + half), slices)
        yield Piece(label[window], (image[window],))


def _cord_contrasts(samples: Path) -> Iterator[Piece]:
    """0.84 x 0.84 x 17 mm: three contrasts on one grid of five slices."""
    images = [_read(samples / f"cord_mt/{contrast}.nii.gz") for contrast in ("mt0", "mt1", "t1w")]
    label = _read(samples / "cord_mt/mt1_seg.nii.gz")
    for window in (np.s_[:, :, :], np.s_[4:, :38, :4], np.s_[:36, 2:, 1:]):
        yield Piece(label[window], tuple(image[window] for image in images))


def _organs(samples: Path) -> Iterator[Piece]:
    """3 mm: 42 label values between 0 and 117, with gaps."""
    image, label = _read(samples / "ct/example_ct_sm.nii.gz"), _read(samples / "ct/example_seg.nii.gz")
    for window in (np.s_[:, :, :], np.s_[:, :, :24], np.s_[:, :, 6:]):
        yield Piece(label[window], (image[window],))


def _spleen(samples: Path) -> Iterator[Piece]:
    """0.8 x 0.8 x 5 mm: three windows around the spleen."""
    image, label = (_read(samples / f"spleen/sub-spleen2_ct{part}.nii.gz") for part in ("", "_seg-manual"))
    _, y, x = (int(place) for place in np.argwhere(_array(label)).mean(axis=0))
    for half, slices in [(40, slice(4, 24)), (36, slice(2, 20)), (32, slice(8, 26))]:
        window = (slice(max(x - half, 0), x + half), slice(max(y - half, 0), y + half), slices)
        yield Piece(label[window], (image[window],))


def _series(samples: Path) -> Iterator[Piece]:
    """0.98 x 0.98 x 2 mm: runs of slices of one DICOM series."""
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(samples / "ct/dicom"))  # from the feet to the head
    label = sitk.DICOMOrient(_read(samples / "ct/example_seg_dicom.nii.gz"), "LPS")
    for start, stop in [(0, 7), (7, 13), (13, 18)]:
        yield Piece(label[:, :, start:stop], slices=tuple(map(Path, files[start:stop])))


PIECES = {
    "Cord": _cord,
    "CordContrasts": _cord_contrasts,
    "Organs": _organs,
    "Spleen": _spleen,
    "Series": _series,
}


# -------------------------------------------------------------------------------------- on disk


def _read(file: Path) -> sitk.Image:
    return sitk.ReadImage(str(file))


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def _copy_series(slices: tuple[Path, ...], folder: Path) -> None:
    folder.mkdir()
    for file in slices:
        shutil.copy(file, folder)


def _write_together(images: tuple[sitk.Image, ...], file: Path) -> None:
    """One file; of several channels a 4D NIfTI, as in the Decathlon."""
    sitk.WriteImage(images[0], str(file))
    if len(images) > 1:
        first = nibabel.load(file)
        channels = np.stack([_array(image).transpose() for image in images], axis=-1)
        header = first.header.copy()
        header.set_data_dtype(channels.dtype)
        nibabel.save(nibabel.Nifti1Image(channels, None, header), file)


def _describe(
    dataset: Path, layout: Layout, labels: dict[str, int], channels: tuple[str, ...], cases: list[tuple[str, bool]]
) -> None:
    numbered = {str(number): channel for number, channel in enumerate(channels)}
    if layout == "nnunet":
        content = {"channel_names": numbered, "labels": labels, "numTraining": len(cases), "file_ending": ".nii.gz"}
    else:
        pairs = [
            {"image": f"./imagesTr/{case}{'' if is_folder else '.nii.gz'}", "label": f"./labelsTr/{case}.nii.gz"}
            for case, is_folder in cases
        ]
        by_value = {str(value): name for name, value in labels.items()}
        content = {"modality": numbered, "labels": by_value, "numTraining": len(cases), "training": pairs}
    (dataset / "dataset.json").write_text(json.dumps(content))
