"""Data sets by one string: open_dataset("camvid:PATH", "train")[0].image_HW3.

A new data set is one file with an `open_...(location, split)` function and one line in LOADERS;
`@recognised_by` says how its folder is known where a path alone is named.

In here: what a data set is (dataset, file_dataset), how its files are read (image_file, class_list,
label_codec, listed_labels), what a string may say of that (read_options, splits), how a path is
recognised (recognise), what layouts share (pairing, named_files, shapes), one file per layout that
people have, `generated/` for those that are drawn, and what is in one and wrong with it
(survey, check). Everybody may import the names below, and `class_list`; the rest serves this room
and fastseg_training. It imports the runtime's records and nothing of the network.
"""

from fastseg.data.check import DatasetReport, check_dataset, render_report
from fastseg.data.dataset import (
    SPLITS,
    AmbiguousDataError,
    Array,
    DataError,
    Dataset,
    MissingSplitError,
    Sample,
    Samples,
    UnknownLabelError,
    class_frequencies,
)
from fastseg.data.loaders import (
    LOADERS,
    describe_kinds,
    full_spec,
    load_split,
    open_dataset,
    recognise_spec,
)
from fastseg.data.read_options import MOST_BROKEN, ReadOptions, with_options
from fastseg.data.survey import Survey, obstacles

__all__ = [
    "LOADERS",
    "MOST_BROKEN",
    "SPLITS",
    "AmbiguousDataError",
    "Array",
    "DataError",
    "Dataset",
    "DatasetReport",
    "MissingSplitError",
    "ReadOptions",
    "Sample",
    "Samples",
    "Survey",
    "UnknownLabelError",
    "check_dataset",
    "class_frequencies",
    "describe_kinds",
    "full_spec",
    "load_split",
    "obstacles",
    "open_dataset",
    "recognise_spec",
    "render_report",
    "with_options",
]
