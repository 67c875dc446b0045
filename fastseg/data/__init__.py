"""Data sets by one string: open_dataset("camvid:PATH", "train")[0].image_HW3.

A new data set is one file with an `open_...(location, split)` function and one line in LOADERS.
"""

from fastseg.data.check import DatasetReport, check_dataset
from fastseg.data.check_report import render_report
from fastseg.data.dataset import (
    SPLITS,
    Array,
    DataError,
    Dataset,
    MissingSplitError,
    Sample,
    UnknownLabelError,
    class_frequencies,
)
from fastseg.data.loaders import LOADERS, open_dataset

__all__ = [
    "LOADERS",
    "SPLITS",
    "Array",
    "DataError",
    "Dataset",
    "DatasetReport",
    "MissingSplitError",
    "Sample",
    "UnknownLabelError",
    "check_dataset",
    "class_frequencies",
    "open_dataset",
    "render_report",
]
