"""Scores: how well predictions agree with references, per case and label, and which of two models is better.

overlap.py, surfaces.py, boundary.py and lesions.py have the formulas, metrics.py all metrics by name, case.py scores
one case, folder.py and raters.py compare folders of files, summary.py averages and writes, compare.py compares models
with the functions of statistics.py. docs/evaluation.md has the definitions.
"""

from mvl_auto.evaluation.case import LabelScore, Scoring, score_case
from mvl_auto.evaluation.folder import evaluate_folders
from mvl_auto.evaluation.summary import Summary, score_files, summarise, write_scores

__all__ = [
    "LabelScore",
    "Scoring",
    "Summary",
    "evaluate_folders",
    "score_case",
    "score_files",
    "summarise",
    "write_scores",
]
