"""Ablation: the same training with the LLM block, without it, and with other things in its place.

study.json           what is compared, and on which plan and data (record.StudyRecord)
rates.json           the learning rates of each arm, where they were searched (rates.py)
runs/<run>/          a run while it is trained
records/<run>.json   a finished run with its scores (record.RunRecord)
"""
