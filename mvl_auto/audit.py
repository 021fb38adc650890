"""Label audit of a dataset: which labels are most likely wrong, by networks that never saw them.

Cross-validation gives every case a fold whose network was not trained on it. That network predicts the case again, with
probabilities; evaluation/audit.py compares them with the label. Each case's result is a file of its own, so an
interrupted audit goes on where it stopped.

    <run>/audit/cases/<case>.json     one case
    <run>/audit/audit.json, audit.csv the ranking, most suspicious first
    <run>/audit/audit.html            the first of them with pictures
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mvl_auto.datasets import Case, Dataset, hash_files, inspect_dataset, load_case, paths_read
from mvl_auto.errors import MvlError
from mvl_auto.evaluation.audit import audit_case, suspicion_score, usual_agreement
from mvl_auto.files import ensure_writable_folder, nothing_unfinished, write_json, write_text
from mvl_auto.locks import locked
from mvl_auto.outputs import check_apart, leaving_no_trace
from mvl_auto.plans import Document, Frozen, read_document, write_document
from mvl_auto.printable import printable
from mvl_auto.progress import Progress, silent
from mvl_auto.runs import State, TrainedRun, load_trained

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from mvl_auto.images import Geometry
    from mvl_auto.runs import Trained

AUDIT, CASES = "audit", "cases"
PICTURED = 20  # cases of audit.html
NO_REASON = "disagreement"
ITKSNAP_OFFSET_MM = "5 5"  # of the text from its point, in the plane of the slice
PLACE = ("voxel_i", "voxel_j", "voxel_k", "x_mm", "y_mm", "z_mm")
COLUMNS = ("rank", "case", "score", "reason", "detail", "gain", "agreement", *PLACE)

log = logging.getLogger(__name__)


class AuditedSuspicion(Frozen):
    """One way in which a label may be wrong, and where. Positions are in the image file's own frame."""

    reason: str
    detail: str
    gain: float = Field(description="soft Dice that the correction would gain, mean over the labels of the case")
    voxel: tuple[int, int, int] = Field(description="index i j k of the image file, from 0")
    position: tuple[float, float, float] = Field(description="mm, RAS+ (NIfTI's world)")


class AuditedCase(Document):
    """The audit of one case."""

    case: str
    fold: str = Field(description="whose network, which did not see the case, predicted it")
    checkpoint: str = Field(description="sha256 of that network's checkpoint.safetensors")
    files_hash: str = Field(description="of the case's image and label files: a changed label is audited again")
    agreement: float
    per_label: dict[str, float]
    soft_minimum: dict[str, float]
    suspicions: tuple[AuditedSuspicion, ...]


@dataclass(frozen=True)
class AuditReport:
    """The ranking. cases: most suspicious first, each with its score."""

    folder: Path
    cases: tuple[tuple[AuditedCase, float], ...]
    left_out: dict[str, str]  # case -> why it could not be audited


def audit_run(
    trained: TrainedRun,
    raw_folder: Path,
    blocks_folder: Path,
    *,
    device: str = "auto",
    progress: Progress = silent,
) -> AuditReport:
    """Audit every case that a fold of the run kept apart, and write the ranking into <run>/audit.

    trained: all finished folds of a run. Raises MvlError when the run has no fold that kept cases apart, or is the
    second stage of a cascade; a case that cannot be read is left out, and said.
    """
    if trained.configuration.previous_stage is not None:
        raise MvlError(
            f"is a cascade's second stage, which mvl_audit cannot use ({trained.configuration.name})",
            file=trained.folder,
            remedy="Choose the first stage or another run with -n RUN.",
        )
    if not any(state.validation_cases for _, state in trained.folds):
        raise MvlError(
            "has no fold that kept cases apart",
            file=trained.folder,
            remedy="Train the folds of the cross-validation: mvl_train DATASET 0 1 2 3 4.",
        )
    raw, _ = inspect_dataset(raw_folder)
    folder = trained.folder / AUDIT
    check_apart(folder, paths_read(raw), remedy="Remove what is there in place of the folder of the audit.")
    with (
        leaving_no_trace(folder),
        locked(ensure_writable_folder(folder), "auditing"),
        nothing_unfinished(folder / CASES),
    ):
        audits, left_out = _audit_cases(trained, raw, blocks_folder, folder / CASES, device, progress)
        report = AuditReport(folder, ranked(audits), left_out)
        write_ranking(report, trained)
        write_pictures(report, trained, raw, progress)
    return report


def ranked(audits: Sequence[AuditedCase]) -> tuple[tuple[AuditedCase, float], ...]:
    """The cases with their scores, most suspicious first; ties by name."""
    usual = usual_agreement([each.per_label for each in audits])
    scores = [
        suspicion_score(each.per_label, max((s.gain for s in each.suspicions), default=0.0), usual) for each in audits
    ]
    return tuple(sorted(zip(audits, scores, strict=True), key=lambda pair: (-pair[1], pair[0].case)))


def _audit_cases(
    trained: TrainedRun, raw: Dataset, blocks_folder: Path, folder: Path, device: str, progress: Progress
) -> tuple[list[AuditedCase], dict[str, str]]:
    from mvl_auto.network.device import choose_device

    cases = {case.name: case for case in raw.cases}
    checkpoints = trained.checkpoints()
    audits: list[AuditedCase] = []
    left_out: dict[str, str] = {}
    on = str(choose_device(device))
    with progress("auditing labels", sum(len(state.validation_cases) for _, state in trained.folds)) as advance:
        for fold_folder, state in trained.folds:
            network: Trained | None = None
            for name in state.validation_cases:
                try:
                    case = _labelled(name, cases, raw)
                    known = _known(folder / f"{name}.json", case, state, checkpoints[state.fold])
                    if known is None:
                        network = network or load_trained(fold_folder, blocks_folder)
                        network.network.to(on)
                        known = _audit(case, network, state, checkpoints[state.fold], on)
                        write_document(folder / f"{name}.json", known)
                    audits.append(known)
                except MvlError as error:
                    log.error("%s: %s", name, error)
                    left_out[name] = str(error)
                advance(1, note=name)
    return audits, left_out


def _audit(case: Case, trained: Trained, state: State, checkpoint: str, device: str) -> AuditedCase:
    from mvl_auto.inference.predict import make_network_input, predict_prepared
    from mvl_auto.inference.windows import PredictionSettings
    from mvl_auto.preprocessing.case import preprocess_case

    volume, classes = load_case(case, trained.labels, len(trained.plan.channels))
    assert classes is not None, "only labelled cases are audited"
    prepared = preprocess_case(volume.array, volume.spacing, None, trained.plan, trained.configuration)
    probabilities = predict_prepared(
        [trained.network],
        trained.labels,
        trained.configuration,
        make_network_input(prepared, None, trained.plan, trained.configuration),
        prepared.trail,
        PredictionSettings(device, probabilities=True),
    ).probabilities
    assert probabilities is not None
    found = audit_case(case.name, classes, probabilities, trained.labels)
    return AuditedCase(
        case=case.name,
        fold=state.fold,
        checkpoint=checkpoint,
        files_hash=hash_files(case),
        agreement=found.agreement,
        per_label=found.per_label,
        soft_minimum=found.soft_minimum,
        suspicions=tuple(
            AuditedSuspicion(
                reason=each.reason,
                detail=each.detail,
                gain=each.gain,
                voxel=file_voxel(each.place, volume.geometry),
                position=position_mm(each.place, volume.geometry),
            )
            for each in found.suspicions
        ),
    )


def position_mm(place_zyx: Sequence[int], geometry: Geometry) -> tuple[float, float, float]:
    """Where a voxel of the canonical array lies, mm, RAS+."""
    z, y, x = place_zyx
    found = geometry.affine @ [x, y, z, 1]
    return tuple(round(float(mm), 2) for mm in found[:3])  # type: ignore[return-value]


def file_voxel(place_zyx: Sequence[int], geometry: Geometry) -> tuple[int, int, int]:
    """The index (i, j, k) in the image's file of a voxel of the canonical array."""
    index = [0, 0, 0]
    for canonical, axis, flipped in zip(reversed(place_zyx), geometry.axes, geometry.flips, strict=True):
        index[axis] = geometry.file.shape[axis] - 1 - int(canonical) if flipped else int(canonical)
    return index[0], index[1], index[2]


def _known(path: Path, case: Case, state: State, checkpoint: str) -> AuditedCase | None:
    """The result of an earlier audit of the same files by the same network."""
    if not path.is_file():
        return None
    earlier = read_document(path, AuditedCase, "Delete it and run mvl_audit again.")
    same = (earlier.case, earlier.fold, earlier.checkpoint) == (case.name, state.fold, checkpoint)
    return earlier if same and earlier.files_hash == hash_files(case) else None


def _labelled(name: str, cases: dict[str, Case], raw: Dataset) -> Case:
    if name not in cases:
        raise MvlError(f"the case '{name}' is not in the dataset any more", file=raw.folder)
    return cases[name]


# ------------------------------------------------------------------------------------- output


def write_ranking(report: AuditReport, trained: TrainedRun) -> None:
    """audit.json and audit.csv in the audit's folder. Raises MvlError when they cannot be written."""
    rows = [row_of(audited, score) for audited, score in report.cases]
    about = {"run": trained.folder.name, "dataset": trained.plan.dataset, "left_out": report.left_out, "cases": rows}
    write_json(report.folder / "audit.json", about)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for rank, row in enumerate(rows, start=1):
        writer.writerow({"rank": rank} | row)
    write_text(report.folder / "audit.csv", stream.getvalue())


def write_pictures(report: AuditReport, trained: TrainedRun, raw: Dataset, progress: Progress = silent) -> Path:
    """audit.html in the audit's folder: the first PICTURED cases with slices of their label and their prediction.

    The predictions are those of the folds' validation/. Raises MvlError when the page cannot be written.
    """
    from mvl_auto.report.audit_page import PAGE, AuditedRun, Suspect, write_audit_page
    from mvl_auto.report.collect import find_predictions

    predictions = {
        case: path
        for folder, state in trained.folds
        for case, path in find_predictions(folder).items()
        if case in state.validation_cases
    }
    suspects = []
    for audited, score in report.cases[:PICTURED]:
        row = row_of(audited, score)
        best = audited.suspicions[0] if audited.suspicions else None
        place = (best.voxel, best.position) if best else ((), ())
        suspects.append(Suspect(audited.case, score, row["reason"], row["detail"], *place))
    run = AuditedRun(trained.folder.name, raw, trained.plan.labels, predictions, len(report.cases))
    write_audit_page(report.folder / PAGE, run, suspects, progress)
    return report.folder / PAGE


def row_of(audited: AuditedCase, score: float) -> dict[str, Any]:
    """One line of the ranking: the reason with the largest gain, and its place."""
    best = audited.suspicions[0] if audited.suspicions else None
    row: dict[str, Any] = {
        "case": audited.case,
        "score": score,
        "reason": best.reason if best else NO_REASON,
        "detail": best.detail if best else "no simple correction explains the disagreement",
        "gain": best.gain if best else 0.0,
        "agreement": audited.agreement,
        "per_label": audited.per_label,
        "soft_minimum": audited.soft_minimum,
        "fold": audited.fold,
    }
    if best:
        row |= dict(zip(PLACE, (*best.voxel, *best.position), strict=True))
    return row


def write_fix_list(report: AuditReport, folder: Path, most: int) -> list[str]:
    """Files that labelling tools open, for each of the `most` suspicious cases that has a place.

    <case>.mrk.json for 3D Slicer (markups), <case>.annot for ITK-SNAP (landmarks): a point at each place, with the
    reason. Returns the cases. Raises MvlError when a file cannot be written.
    """
    cases = []
    for audited, _ in report.cases[:most]:
        if audited.suspicions:
            ensure_writable_folder(folder)
            write_json(folder / f"{audited.case}.mrk.json", slicer_markups(audited))
            write_text(folder / f"{audited.case}.annot", itksnap_annotations(audited))
            cases.append(audited.case)
    return cases


def slicer_markups(audited: AuditedCase) -> dict[str, Any]:
    """Points in mm, LPS, as in Slicer's schema.

    https://github.com/Slicer/Slicer/tree/main/Modules/Loadable/Markups/Resources/Schema
    """
    points = [
        {"id": str(number), "label": each.reason, "description": each.detail, "position": [-x, -y, z]}
        for number, each in enumerate(audited.suspicions, start=1)
        for x, y, z in [each.position]
    ]
    schema = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}
    return {"@schema": f"{schema}markups-schema-v1.0.3.json#", "markups": [markup]}


def itksnap_annotations(audited: AuditedCase) -> str:
    """Landmarks in the format of ITK-SNAP (20150624), after ImageAnnotationData.cxx and Registry.cxx of its source.

    Positions are in voxels along the axes of the image file, the first voxel from 0 to 1: n + 0.5 is the middle of
    index n, which ITK-SNAP's window shows as n + 1.
    """
    from xml.etree import ElementTree

    registry = ElementTree.Element("registry")
    _entries(registry, Format="ITK-SNAP Annotation File", FormatDate="20150624")
    folder = ElementTree.SubElement(registry, "folder", key="Annotations")
    _entries(folder, ArraySize=str(len(audited.suspicions)))
    for number, each in enumerate(audited.suspicions):
        _entries(
            ElementTree.SubElement(folder, "folder", key=f"Element[{number}]"),
            Type="LandmarkAnnotation",
            Pos=" ".join(str(index + 0.5) for index in each.voxel),
            Offset=ITKSNAP_OFFSET_MM,
            Text=printable(f"{each.reason}: {each.detail}"),
            Color="1 0 0",
            Plane="0",
            Selected="0",
            Tags="",
            VisibleInAllPlanes="1",
            VisibleInAllSlices="0",
        )
    ElementTree.indent(registry)
    return '<?xml version="1.0" encoding="UTF-8" ?>\n' + ElementTree.tostring(registry, encoding="unicode") + "\n"


def _entries(folder: Element, **values: str) -> None:
    from xml.etree.ElementTree import SubElement

    for key, value in values.items():
        SubElement(folder, "entry", key=key, value=value)
