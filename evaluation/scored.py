"""Scores read back from scores.json or summary.json, as runs of models: what `compare` works on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvl_auto.errors import MvlError
from mvl_auto.evaluation.metrics import METRICS
from mvl_auto.evaluation.summary import FILE_STEM, SCHEMA_VERSION
from mvl_auto.files import entries, read_json
from mvl_auto.images import composed

FILES = (f"{FILE_STEM}.json", "summary.json")  # of mvl_evaluate, of training's validation
EVALUATE = "Run mvl_evaluate on its predictions first, or name a folder that holds scores.json or summary.json."
AGAIN = "Run mvl_evaluate again."


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """The scores of one network. key: which of a model's runs it is, such as "fold0" or "2 fold0"."""

    key: str
    file: Path
    schema_version: int
    scoring: Mapping[str, Any]
    metrics: tuple[str, ...]
    cases: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]  # case -> label -> metric -> value

    def value(self, case: str, label: str, metric: str) -> float:
        """NaN: undefined."""
        value = self.scores[case].get(label, {}).get(metric)
        return math.nan if value is None else float(value)


@dataclass(frozen=True, eq=False)
class Model:
    """A model under a name, and its runs (folds, seeds)."""

    name: str
    runs: tuple[ScoredRun, ...]


def read_models(models: Sequence[Path | str]) -> tuple[Model, ...]:
    """Models from what a user names: "path", "path,path" (seeds), each with a name in front or not: "name=path,path".

    A path is a scores.json or summary.json, a folder that holds one, or a training run with fold0, fold1, ...
    Raises MvlError when there is nothing of the kind, a file is damaged, or two models have one name.
    """
    parts = [_name_and_paths(str(model)) for model in models]
    own = _tails([paths[0].absolute() for _, paths in parts])
    names = [given or tail for (given, _), tail in zip(parts, own, strict=True)]
    for name in names:
        if names.count(name) > 1:
            raise MvlError(f"two models are called '{name}'", remedy="Give each a name: baseline=FOLDER llm=FOLDER.")
    return tuple(Model(name, _runs(paths)) for name, (_, paths) in zip(names, parts, strict=True))


def read_run(file: Path, key: str = "") -> ScoredRun:
    """One scores.json or summary.json. Raises MvlError when it is damaged, or of a newer format."""
    content = read_json(file, remedy=EVALUATE)
    cases = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(cases, dict) or not cases:
        raise MvlError("holds no scores of cases", file=file, remedy=AGAIN)
    version = content.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise MvlError(f"has the format {version}; this version reads up to {SCHEMA_VERSION}", file=file, remedy=AGAIN)
    for case, labels in cases.items():
        if not isinstance(labels, dict) or not all(_are_numbers(values) for values in labels.values()):
            raise MvlError(f"its scores of the case '{case}' are damaged", file=file, remedy=AGAIN)
    cases = {
        composed(case): {composed(label): values for label, values in labels.items()} for case, labels in cases.items()
    }
    labels = tuple(dict.fromkeys(label for of_case in cases.values() for label in of_case))
    every = [values for of_case in cases.values() for values in of_case.values()]
    metrics = tuple(name for name in METRICS if all(name in values for values in every))
    if not metrics:
        raise MvlError("holds no metric that is known here", file=file, remedy=AGAIN)
    scoring = content.get("scoring")
    if not isinstance(scoring, dict):  # format 1
        scoring = {"tolerance_mm": content.get("nsd_tolerance_mm"), "tolerances_mm": {}}
    return ScoredRun(key, file, version, scoring, metrics, tuple(cases), labels, cases)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value))
        for value in values.values()
    )


def _tails(paths: Sequence[Path]) -> list[str]:
    """The end of each path, with as many folders as tell it apart from the others."""
    tails = []
    for path in paths:
        lengths = range(1, len(path.parts) + 1)
        others = [other for other in paths if other != path]
        alone = (n for n in lengths if all(other.parts[-n:] != path.parts[-n:] for other in others))
        tails.append("/".join(path.parts[-next(alone, 1) :]))
    return tails


def _name_and_paths(text: str) -> tuple[str, list[Path]]:
    """A path may itself contain = or a comma: what exists is taken as it stands."""
    if Path(text).expanduser().exists():
        return "", [Path(text).expanduser()]
    name, _, rest = text.partition("=") if "=" in text else ("", "", text)
    if Path(rest).expanduser().exists():
        return name, [Path(rest).expanduser()]
    return name, [Path(part).expanduser() for part in rest.split(",") if part] or [Path(text)]


def _runs(paths: Sequence[Path]) -> tuple[ScoredRun, ...]:
    found = []
    for number, path in enumerate(paths, start=1):
        seed = f"{number}" if len(paths) > 1 else ""
        found += [read_run(file, " ".join(filter(None, (seed, fold)))) for fold, file in _score_files(path)]
    return tuple(found)


def _score_files(path: Path) -> list[tuple[str, Path]]:
    """The files of scores below a path, each with its fold ("" where it has none)."""
    if not path.is_dir():
        return [("", path)]
    for name in FILES:
        if (path / name).is_file():
            return [(path.name if path.name.startswith("fold") else "", path / name)]
    folds = [entry for entry in entries(path) if entry.is_dir() and entry.name.startswith("fold")]
    files = [(fold.name, fold / name) for fold in folds for name in FILES if (fold / name).is_file()]
    if not files:
        raise MvlError("holds no scores.json or summary.json", file=path, remedy=EVALUATE)
    return files
