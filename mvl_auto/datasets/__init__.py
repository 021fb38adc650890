"""Datasets on disk: their description, their layouts, their cases and labels."""

from mvl_auto.datasets.cases import Case, files_behind, files_of, find_cases
from mvl_auto.datasets.dataset import Dataset, inspect_dataset, paths_read, read_dataset
from mvl_auto.datasets.labels import one_hot, read_scheme, to_classes, to_values
from mvl_auto.datasets.load import hash_files, load_case, load_label
from mvl_auto.datasets.segments import read_values
from mvl_auto.datasets.volumes import cases_to_predict, split_volumes

__all__ = [
    "Case",
    "Dataset",
    "cases_to_predict",
    "files_behind",
    "files_of",
    "find_cases",
    "hash_files",
    "inspect_dataset",
    "load_case",
    "load_label",
    "one_hot",
    "paths_read",
    "read_dataset",
    "read_scheme",
    "read_values",
    "split_volumes",
    "to_classes",
    "to_values",
]
