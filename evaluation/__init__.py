"""Scores: how well predictions agree with references, per case and label.

metrics.py and surfaces.py define the figures, case.py scores one case, summary.py averages and writes,
folder.py compares two folders of files.
"""

from mvl_auto.evaluation.case import LabelScore, SurfaceSettings, score_case
from mvl_auto.evaluation.folder import evaluate_folders
from mvl_auto.evaluation.summary import Summary, summarise, write_scores

__all__ = ["LabelScore", "Summary", "SurfaceSettings", "evaluate_folders", "score_case", "summarise", "write_scores"]
