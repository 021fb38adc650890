"""Reports: one HTML file of a run, or of several side by side, and the pictures of the label audit.

collect.py reads what a run's folder has, scores.py orders its cases, volumes.py and slices.py make their pictures,
figures.py draws the charts, page.py puts all of it into one file without any request to elsewhere.
"""

from mvl_auto.report.write import Report, write_report

__all__ = ["Report", "write_report"]
