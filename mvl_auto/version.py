"""The version, alone in its file so that `--version` and setup.py need to import nothing else."""

__version__ = "0.1.0"
