"""The table of data sets, and how a string becomes one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from fastseg.data.dataset import SPLITS, DataError, Dataset, JoinedDataset
from fastseg.data.file_dataset import FileDataset
from fastseg.data.read_options import ReadOptions, apply, parse_spec

# kind of data -> function that takes what follows the colon of the spec, and the split
LOADERS = {
    "camvid": "fastseg.data.camvid:open_camvid",
    "cityscapes": "fastseg.data.cityscapes:open_cityscapes",
    "coco": "fastseg.data.coco:open_coco",
    "folder": "fastseg.data.folder:open_folder",
    "synthetic": "fastseg.data.generated.street.scene:open_street",
    "synthetic-lanes": "fastseg.data.generated.lanes:open_lanes",
    "synthetic-organ": "fastseg.data.generated.organ:open_organ",
    "synthetic-crops": "fastseg.data.generated.crops:open_crops",
    "yolo": "fastseg.data.yolo:open_yolo",
}
_GENERATED = "fastseg.data.generated."  # kinds from there need no path
DRAWN = tuple(kind for kind, opener in LOADERS.items() if opener.startswith(_GENERATED))


def describe_kinds() -> str:
    """Return what a spec may begin with, for --help."""
    read = [f"{kind}:PATH" for kind in LOADERS if kind not in DRAWN]
    return f"{', '.join(read)}, or drawn: {', '.join(DRAWN)}."


def open_dataset(spec: str, split: str) -> Dataset:
    """Open one split of a data set and refuse it if a file has no partner.

    Args:
        spec: kind:path, e.g. "camvid:data/camvid", or kind or kind:options for generated data,
            e.g. "synthetic", "synthetic:480x360", "synthetic:seed=3,train=400".
        split: "train", "val", "test" or "trainval" (train, then val).

    Raises:
        DataError: an unknown kind, a path with no such data, or files without a partner.
        MissingSplitError: the data set has no such split.
    """
    if split == "trainval":
        train, val = (open_dataset(spec, part) for part in ("train", "val"))
        refuse_other_classes(spec, train, val)
        return JoinedDataset(train.name, split, train.classes, train.licence, (train, val))
    dataset = load_split(spec, split)
    problems = dataset.problems if isinstance(dataset, FileDataset) else ()
    if problems:
        shown = "\n".join(f"  {problem.file}: {problem.message}" for problem in problems[:5])
        raise DataError(
            f"{spec}: {len(problems)} problems with the files of split {split}, the first are\n"
            f"{shown}\nAdd the missing files or remove their partners; `fastseg-train --check "
            f"{spec}` lists all"
        )
    if not len(dataset):
        raise DataError(f"{spec}: split {split} is empty; expected at least one pair of files")
    return dataset


def refuse_other_classes(spec: str, train: Dataset, other: Dataset) -> None:
    """Raise a DataError if the class ids of two splits do not mean the same."""
    names, others = ([info.name for info in dataset.classes] for dataset in (train, other))
    if names != others:
        raise DataError(
            f"{spec}: {train.split} has the classes {', '.join(names)}, {other.split} has "
            f"{', '.join(others)}; they have to be the same ones in the same order"
        )


def load_split(spec: str, split: str) -> Dataset:
    """Open one split as its loader gives it: files without a partner are listed, not refused."""
    bare, options = parse_spec(spec)
    kind, _, location = bare.partition(":")
    if kind not in LOADERS:
        raise DataError(
            f"{spec}: no data set kind {kind!r}; write KIND:PATH with one of {sorted(LOADERS)}"
        )
    if split not in SPLITS:
        raise DataError(f"{spec}: no split {split!r}; choose one of {[*SPLITS, 'trainval']}")
    module, _, function = LOADERS[kind].partition(":")
    opener = cast(Callable[[str, str], Dataset], getattr(import_module(module), function))
    dataset = opener(location, split)
    if isinstance(dataset, FileDataset):
        return apply(options, dataset, spec)
    if options != ReadOptions():
        raise DataError(f"{spec}: {kind} is no data of files; leave out what follows the '?'")
    return dataset
