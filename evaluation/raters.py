"""Several raters: how well they agree with each other, beside how well the model agrees with each.

    raters/alice/case.nii.gz, raters/bob/case.nii.gz, ...      one folder of label files per rater

Every pair is compared on the cases that both have. Of two raters the first by name counts as the reference, which
matters for precision, recall and signed errors only: Dice, Jaccard and the surface metrics are symmetric.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvl_auto.errors import MvlError
from mvl_auto.evaluation.case import Scoring
from mvl_auto.evaluation.folder import evaluate_folders, find_labels
from mvl_auto.evaluation.metrics import DEFAULT_METRICS
from mvl_auto.evaluation.pairs import label_files
from mvl_auto.evaluation.summary import Summary, as_json
from mvl_auto.files import entries, write_json, writing
from mvl_auto.progress import Progress, silent

if TYPE_CHECKING:
    import pandas as pd

MODEL = "model"
FILE_STEM = "raters"


@dataclass(frozen=True, eq=False)
class Agreement:
    """Who was compared with whom: (reference, prediction) -> scores. "model" stands for the predictions."""

    summaries: Mapping[tuple[str, str], Summary]

    @property
    def with_model(self) -> dict[tuple[str, str], Summary]:
        return {pair: summary for pair, summary in self.summaries.items() if pair[1] == MODEL}

    @property
    def among_raters(self) -> dict[tuple[str, str], Summary]:
        return {pair: summary for pair, summary in self.summaries.items() if pair[1] != MODEL}

    def means(self, metric: str = "dice") -> tuple[float, float]:
        """The mean agreement of the model with the raters, and of the raters with each other."""
        groups = (self.with_model, self.among_raters)
        with_model, among = ([summary.mean(metric) for summary in group.values()] for group in groups)
        return sum(with_model) / len(with_model), sum(among) / len(among)

    def table(self) -> pd.DataFrame:
        """A row per pair, case and label: reference, prediction, and the columns of `Summary.table`."""
        import pandas as pd

        parts = []
        for (reference, prediction), summary in self.summaries.items():
            part = summary.table.copy()
            part.insert(0, "prediction", prediction)
            part.insert(0, "reference", reference)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)


def evaluate_raters(
    raters: Path,
    predictions: Path,
    *,
    scoring: Scoring | None = None,
    dataset_json: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Agreement:
    """Score the predictions against each rater, and every rater against each other one.

    raters: a folder with one folder of label files per rater. The other arguments are as in `evaluate_folders`.
    Raises MvlError for fewer than two raters, raters that share no case, and all that `evaluate_folders` raises.
    """
    scoring = scoring or Scoring(DEFAULT_METRICS)
    folders = find_raters(raters)
    labels = find_labels(raters, predictions, dataset_json)
    jobs = [((name, MODEL), (folder, Path(predictions))) for name, folder in folders.items()]
    jobs += [((first, other), (folders[first], folders[other])) for first, other in itertools.combinations(folders, 2)]
    summaries = {
        pair: evaluate_folders(
            *compared, scoring=scoring, labels=labels, only_common=True, workers=workers, progress=progress
        )
        for pair, compared in jobs
    }
    return Agreement(summaries)


def find_raters(folder: Path) -> dict[str, Path]:
    """Rater -> folder of label files. Raises MvlError for fewer than two."""
    if not Path(folder).is_dir():
        raise MvlError("is not a folder of raters", file=folder, remedy="Give the folder that holds one per rater.")
    found = {
        path.name: path
        for path in entries(folder)
        if path.is_dir() and not path.name.startswith(".") and label_files(path, "reference", may_be_empty=True)
    }
    if MODEL in found:
        raise MvlError(f"'{MODEL}' stands for the predictions", file=found[MODEL], remedy="Rename the rater's folder.")
    if len(found) < 2:
        raise MvlError(
            f"has {len(found)} folder{'s' * (len(found) != 1)} of label files; agreement needs two raters",
            file=folder,
            remedy="Put the label files of each rater into a folder of their own, or use --references.",
        )
    return found


def agreement_files(folder: Path) -> list[Path]:
    """The files that `write_agreement` writes, in its order."""
    return [Path(folder) / f"{FILE_STEM}{ending}" for ending in (".csv", ".json")]


def write_agreement(agreement: Agreement, folder: Path, about: Mapping[str, Any] | None = None) -> list[Path]:
    """Write raters.csv (a row per pair, case and label) and raters.json. Returns the files.

    Raises MvlError when they cannot be written.
    """
    table, document = agreement_files(folder)
    with writing(table) as beside:
        agreement.table().to_csv(beside, index=False)
    pairs = [
        {"reference": reference, "prediction": prediction} | as_json(summary)
        for (reference, prediction), summary in agreement.summaries.items()
    ]
    write_json(document, {**(about or {}), "pairs": pairs})
    return [table, document]
