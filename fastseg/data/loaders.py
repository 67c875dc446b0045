"""The table of data sets, and how a string becomes one."""

from __future__ import annotations

import contextlib
from os.path import expanduser
from pathlib import Path

from fastseg.data.class_list import check_names
from fastseg.data.dataset import SPLITS, DataError, Dataset, JoinedDataset, MissingSplitError
from fastseg.data.file_dataset import FileDataset
from fastseg.data.own_dataset import is_factory, open_own
from fastseg.data.read_options import ReadOptions, apply, parse_spec
from fastseg.data.recognise import Recognised, hint, load_opener, recognise

# kind of data -> function that takes what follows the colon of the spec, and the split; an Opener
# (see recognise.py) also knows its data where a path alone is named
LOADERS = {
    "camvid": "fastseg.data.camvid:open_camvid",
    "cityscapes": "fastseg.data.cityscapes:open_cityscapes",
    "ade": "fastseg.data.mask_kinds:open_ade",
    "coco": "fastseg.data.coco:open_coco",
    "comma10k": "fastseg.data.mask_kinds:open_comma10k",
    "cvat": "fastseg.data.mask_kinds:open_cvat",
    "cwfid": "fastseg.data.mask_kinds:open_cwfid",
    "folder": "fastseg.data.folder:open_folder",
    "label-studio": "fastseg.data.label_studio:open_label_studio",
    "labelme": "fastseg.data.labelme:open_labelme",
    "roboflow": "fastseg.data.mask_kinds:open_roboflow",
    "synthetic": "fastseg.data.generated.street.scene:open_street",
    "synthetic-lanes": "fastseg.data.generated.lanes:open_lanes",
    "synthetic-organ": "fastseg.data.generated.organ:open_organ",
    "synthetic-crops": "fastseg.data.generated.crops:open_crops",
    "urbansyn": "fastseg.data.mask_kinds:open_urbansyn",
    "voc": "fastseg.data.mask_kinds:open_voc",
    "yolo": "fastseg.data.yolo:open_yolo",
}
_GENERATED = "fastseg.data.generated."  # kinds from there need no path
DRAWN = tuple(kind for kind, opener in LOADERS.items() if opener.startswith(_GENERATED))


def describe_kinds() -> str:
    """Return what a spec may begin with, for --help."""
    read = [f"{kind}:PATH" for kind in LOADERS if kind not in DRAWN]
    return (
        f"A path alone, which is recognised, or {', '.join(read)}, package.module:factory, or "
        f"drawn: {', '.join(DRAWN)}."
    )


def recognise_spec(spec: str) -> Recognised | None:
    """Return what a path alone holds; None where the spec says its kind itself.

    Raises:
        DataError: no kind of data, or more than one, is recognised there.
    """
    bare, _ = parse_spec(_from_home(spec))
    kind, colon, _ = bare.partition(":")
    named = kind in LOADERS and (colon or kind in DRAWN)
    if named or not bare or not Path(bare).exists():
        return None
    return recognise(Path(bare), _read_from_disk())


def full_spec(spec: str) -> str:
    """Return KIND:PATH for a path alone, anything else as it is, but for "~"."""
    spec = _from_home(spec)
    recognised = recognise_spec(spec)
    return f"{recognised.kind}:{spec}" if recognised else spec


def _from_home(spec: str) -> str:
    """Return a string with the user's folder for "~", which no shell replaces behind a colon."""
    kind, colon, path = spec.partition(":")
    if kind in LOADERS and colon:
        return f"{kind}:{expanduser(path)}"
    return expanduser(spec)


def _read_from_disk() -> dict[str, str]:
    return {kind: target for kind, target in LOADERS.items() if kind not in DRAWN}


def open_dataset(spec: str, split: str) -> Dataset:
    """Open one split of a data set and refuse it if a file has no partner.

    Args:
        spec: a path whose kind is recognised, or kind:path, e.g. "camvid:data/camvid", or kind or
            kind:options for generated data, e.g. "synthetic", "synthetic:480x360",
            "synthetic:seed=3,train=400", or "package.module:factory".
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
    if split not in SPLITS:
        raise DataError(f"{spec}: no split {split!r}; choose one of {[*SPLITS, 'trainval']}")
    bare, options = parse_spec(full_spec(spec))
    dataset = _open(bare, split)
    check_names(spec, dataset.classes)
    if isinstance(dataset, FileDataset):
        return apply(options, dataset, spec)
    if options != ReadOptions():
        raise DataError(f"{spec}: is no data of files; leave out what follows the '?'")
    return dataset


def _open(spec: str, split: str) -> Dataset:
    kind, colon, location = spec.partition(":")
    if kind not in LOADERS:
        if is_factory(spec):
            return open_own(spec, split)
        raise DataError(_unknown(spec, kind if colon else ""))
    try:
        return load_opener(LOADERS[kind])(location, split)
    except DataError as error:
        there = kind not in DRAWN and Path(location).exists()
        said = hint(Path(location), kind, _read_from_disk()) if there else ""
        if said and not (isinstance(error, MissingSplitError) and _has_a_split(kind, location)):
            raise DataError(f"{error}{said}") from error
        raise


def _has_a_split(kind: str, location: str) -> bool:
    """Return whether a kind finds any split: what misses one is still of this kind."""
    for split in SPLITS:
        with contextlib.suppress(DataError):
            load_opener(LOADERS[kind])(location, split)
            return True
    return False


def _unknown(spec: str, kind: str) -> str:
    if not kind:
        return f"{spec}: no such folder or file; expected a path that is there, or KIND:PATH"
    return f"{spec}: no data set kind {kind!r}; write KIND:PATH with one of {sorted(LOADERS)}"
