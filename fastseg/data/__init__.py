"""Data sets by one string: open_dataset("camvid:PATH", "train")[0].image_HW3.

A new data set is one file with an `open_...(location, split)` function and one line in LOADERS.

In here: what a data set is (dataset, file_dataset), how its files are read (image_file, class_list,
label_codec), one file per layout that people have, `generated/` for those that are drawn, and what
is wrong with one (check). Everybody may import the names below, and `class_list`; the rest serves
this room and fastseg_training. It imports the runtime's records and nothing of the network.
"""

from fastseg.data.check import DatasetReport, check_dataset, render_report
from fastseg.data.dataset import (
    SPLITS,
    Array,
    DataError,
    Dataset,
    MissingSplitError,
    Sample,
    Samples,
    UnknownLabelError,
    class_frequencies,
)
from fastseg.data.loaders import LOADERS, describe_kinds, open_dataset

__all__ = [
    "LOADERS",
    "SPLITS",
    "Array",
    "DataError",
    "Dataset",
    "DatasetReport",
    "MissingSplitError",
    "Sample",
    "Samples",
    "UnknownLabelError",
    "check_dataset",
    "class_frequencies",
    "describe_kinds",
    "open_dataset",
    "render_report",
]
