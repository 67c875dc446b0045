"""Data sets and exports with one mask a picture, each known by the files that it alone has.

    cvat      labelmap.txt, JPEGImages/, SegmentationClass/          CVAT's "Segmentation mask 1.1"
    voc       JPEGImages/, SegmentationClass/ or .../PNG             Pascal VOC, labelme2voc
    roboflow  SPLIT/_classes.csv, SPLIT/NAME.jpg, NAME_mask.png      Roboflow's semantic masks
    ade       objectInfo150.txt, images/training, annotations/...    ADE20K's scene parsing
    comma10k  imgs/, masks/ in comma10k's five colours
    urbansyn  rgb/rgb_0001.png, ss/ss_0001.png                       Cityscapes' training ids
    cwfid     train_test_split.yaml, images/, annotations/           crop and weed, github.com/cwfid

Lists of names in ImageSets/Segmentation say the splits of cvat and voc; where nothing says them,
splits.py does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

from fastseg.data import cityscapes
from fastseg.data.class_list import generated_color, read_classes
from fastseg.data.dataset import DataError, MissingSplitError
from fastseg.data.file_dataset import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    FileDataset,
    MaskReader,
    Pair,
    Problem,
    composed,
    name_within,
    read_text,
)
from fastseg.data.image_file import read_label_file
from fastseg.data.label_codec import Color, LabelCodec
from fastseg.data.pairing import (
    Affix,
    by_split,
    pair_folders,
    pair_in_one_folder,
    split_of,
    subfolders_by_split,
)
from fastseg.data.recognise import recognised_by

Found = tuple[Sequence[Pair], Sequence[Problem]]

_IMAGES, _LISTS, _LABELMAP = "JPEGImages", "ImageSets/Segmentation", "labelmap.txt"
_VOC_LABELS = ("SegmentationClass", "SegmentationClassPNG")  # labelme2voc's first may hold .npy
_VOC_LISTS_OF_CLASSES = ("class_names.txt", "classes.txt", "labels.txt")
_VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
_VOC_BORDER = (224, 224, 192)  # around objects, stored as 255
_CSV, _MASK = "_classes.csv", Affix(after="_mask")
_ADE_NAMES = "objectInfo150.txt"
# The authors' table of comma10k; what is empty is black, in the oldest masks white.
_COMMA10K: dict[str, Color] = {
    "road": (64, 32, 32),
    "lane markings": (255, 0, 0),
    "undrivable": (128, 128, 96),
    "movable": (0, 255, 102),
    "my car": (204, 0, 255),
}
_COMMA10K_EMPTY = ((0, 0, 0), (255, 255, 255))
_URBANSYN_UNLABELLED = 19
_CWFID_SPLITS = "train_test_split.yaml"
_CWFID: dict[str, Color] = {"soil": (0, 0, 0), "crop": (0, 255, 0), "weed": (255, 0, 0)}


def _looks_like_cvat(path: Path) -> str:
    is_cvat = (path / _LABELMAP).is_file() and (path / _VOC_LABELS[0]).is_dir()
    return "CVAT's segmentation masks" if is_cvat else ""


@recognised_by(_looks_like_cvat)
def open_cvat(location: str, split: str) -> FileDataset:
    """Open one split of CVAT's "Segmentation mask 1.1"; its labelmap.txt names classes and colours.

    Raises:
        DataError: labelmap.txt or a folder is missing.
        MissingSplitError: there are lists of splits, but not of this one.
    """
    root = Path(location)
    classes, codec = read_classes(root / _LABELMAP)
    if not (root / _IMAGES).is_dir():
        raise DataError(
            f"{root}: has no folder {_IMAGES}; export again with 'Save images', or put the "
            "pictures there"
        )
    found = pair_folders(root / _IMAGES, _voc_labels(root), IMAGE_SUFFIXES, LABEL_SUFFIXES)
    return _listed("cvat", root, split, classes, codec, found)


def _looks_like_voc(path: Path) -> str:
    root = _voc_root(path)
    if (root / _LABELMAP).is_file() or not (root / _IMAGES).is_dir() or not _has_voc_labels(root):
        return ""
    named = _first_file(root, _VOC_LISTS_OF_CLASSES)
    return f"Pascal VOC's folders, classes of {named.name}" if named else "Pascal VOC, 21 classes"


@recognised_by(_looks_like_voc)
def open_voc(location: str, split: str) -> FileDataset:
    """Open one split in Pascal VOC's folders: its own 21 classes, or those of a class_names.txt.

    Raises:
        DataError: a folder is missing.
        MissingSplitError: there are lists of splits, but not of this one.
    """
    root = _voc_root(Path(location))
    if not (root / _IMAGES).is_dir():
        raise DataError(f"{root}: no Pascal VOC here; expected {_IMAGES}/ and {_VOC_LABELS[0]}/")
    found = pair_folders(root / _IMAGES, _voc_labels(root), IMAGE_SUFFIXES, LABEL_SUFFIXES)
    if named := _first_file(root, _VOC_LISTS_OF_CLASSES):
        classes, codec = read_classes(named)
        return _listed("voc", root, split, classes, codec, found)
    colors = [(0, 0, 0), *(generated_color(index) for index in range(len(_VOC_NAMES) - 1))]
    classes = tuple(ClassInfo(name, color) for name, color in zip(_VOC_NAMES, colors, strict=True))
    ids = {index: index for index in (*range(len(classes)), IGNORE_INDEX)}
    by_color = {color: index for index, color in enumerate(colors)} | {_VOC_BORDER: IGNORE_INDEX}
    note = f"no {_VOC_LISTS_OF_CLASSES[0]} or classes.txt: its classes are taken for Pascal VOC's"
    dataset = _listed("voc", root, split, classes, LabelCodec(ids, by_color), found)
    return replace(dataset, notes=(note, *dataset.notes))


def _looks_like_roboflow(path: Path) -> str:
    of_splits = any(split_of(file.parent.name) for file in path.glob(f"*/{_CSV}"))
    return "Roboflow's semantic masks" if of_splits or (path / _CSV).is_file() else ""


@recognised_by(_looks_like_roboflow)
def open_roboflow(location: str, split: str) -> FileDataset:
    """Open one split of Roboflow's semantic masks, which lie beside the pictures.

    Raises:
        DataError: there is no _classes.csv, or those of two splits differ.
        MissingSplitError: there are split folders, but not this one.
    """
    root = Path(location)
    folders = _with_csv(root)
    if not folders:
        raise DataError(f"{root}: no {_CSV} here; expected one in train/, valid/ and test/")
    classes, codec = read_classes(next(iter(folders.values())) / _CSV)
    for folder in folders.values():
        if read_classes(folder / _CSV)[0] != classes:
            raise DataError(f"{folder / _CSV}: names other classes than those of another split")
    if split not in folders and "" not in folders:
        raise MissingSplitError(f"{root}: no split {split!r}; expected {split}/{_CSV}")
    folder = folders.get(split) or folders[""]
    found: Found = pair_in_one_folder(folder, _MASK, IMAGE_SUFFIXES, LABEL_SUFFIXES)
    dataset = _dataset("roboflow", split, classes, MaskReader(codec), found)
    return replace(dataset, unsplit=split not in folders)


def _looks_like_ade(path: Path) -> str:
    return "ADE20K's scene parsing, 150 classes" if (path / _ADE_NAMES).is_file() else ""


@recognised_by(_looks_like_ade)
def open_ade(location: str, split: str) -> FileDataset:
    """Open one split of ADE20K; the value 0 is what belongs to none of the 150 classes.

    Raises:
        DataError: objectInfo150.txt or a folder is missing.
        MissingSplitError: it has no such split.
    """
    root = Path(location)
    rows = [line.split("\t") for line in read_text(root / _ADE_NAMES).splitlines()[1:] if line]
    try:
        named = [(int(row[0]), row[-1].split(",")[0].strip()) for row in rows]
    except ValueError as error:
        raise DataError(
            f"{root / _ADE_NAMES}: {error}; expected 'Idx Ratio Train Val Stuff Name' with tabs"
        ) from error
    classes = tuple(ClassInfo(name, generated_color(i)) for i, (_, name) in enumerate(named))
    ids = {0: IGNORE_INDEX, IGNORE_INDEX: IGNORE_INDEX}
    reader = MaskReader(LabelCodec(ids | {value: i for i, (value, _) in enumerate(named)}, {}))
    found = _split_folders(root, "images", "annotations", split)
    licence = "ADE20K: pictures for non-commercial research and education; cite Zhou et al. 2017"
    return replace(_dataset("ade", split, classes, reader, found), licence=licence)


def _looks_like_comma10k(path: Path) -> str:
    masks = sorted((path / "masks").glob("*.png")) if (path / "imgs").is_dir() else []
    if not masks:
        return ""
    try:
        values = read_label_file(masks[0])
    except DataError:
        return ""
    if values.ndim != 3:
        return ""
    seen = {
        tuple(color) for color in values.reshape(-1, 3)[:: max(1, values.size // 30000)].tolist()
    }
    known = {*_COMMA10K.values(), *_COMMA10K_EMPTY}
    return "comma10k, 5 classes" if seen <= known and seen & {*_COMMA10K.values()} else ""


@recognised_by(_looks_like_comma10k)
def open_comma10k(location: str, split: str) -> FileDataset:
    """Open one split of comma10k; as its authors have it, names that end with 9 are val.

    Raises:
        DataError: the folders are not there.
        MissingSplitError: test, which it does not have.
    """
    root = Path(location)
    if split == "test":
        raise MissingSplitError(f"{root}: comma10k has no split 'test'")
    found = _below(root, "imgs", "masks")
    pairs, problems = _chosen(*found, lambda name: name.endswith("9") == (split == "val"))
    classes, codec = _by_color(_COMMA10K, _COMMA10K_EMPTY)
    dataset = _dataset("comma10k", split, classes, MaskReader(codec), (pairs, problems))
    return replace(dataset, licence="comma10k: MIT")


def _looks_like_urbansyn(path: Path) -> str:
    is_there = (path / "rgb").is_dir() and (path / "ss").is_dir()
    return "UrbanSyn, Cityscapes' 19 classes" if is_there else ""


@recognised_by(_looks_like_urbansyn)
def open_urbansyn(location: str, split: str) -> FileDataset:
    """Open one split of UrbanSyn, which comes without splits.

    Raises:
        DataError: the folders are not there.
    """
    found = _below(Path(location), "rgb", "ss")
    count = len(cityscapes.CLASSES)
    ids = {index: index for index in range(count)}
    ids |= {_URBANSYN_UNLABELLED: IGNORE_INDEX, IGNORE_INDEX: IGNORE_INDEX}
    reader = MaskReader(LabelCodec(ids, {}))
    dataset = _dataset("urbansyn", split, cityscapes.CLASSES, reader, found)
    return replace(dataset, licence="UrbanSyn: CC BY-SA 4.0; cite Gomez et al. 2023", unsplit=True)


def _looks_like_cwfid(path: Path) -> str:
    is_there = (path / _CWFID_SPLITS).is_file() and (path / "annotations").is_dir()
    return "CWFID, soil, crop and weed" if is_there else ""


@recognised_by(_looks_like_cwfid)
def open_cwfid(location: str, split: str) -> FileDataset:
    """Open one split of the Crop/Weed Field Image Dataset; what is in train and test is test.

    Raises:
        DataError: a folder or the list of its splits is missing.
        MissingSplitError: val, which it does not have.
    """
    root = Path(location)
    numbers = _cwfid_splits(root / _CWFID_SPLITS)
    if split not in numbers:
        raise MissingSplitError(f"{root}: CWFID has no split {split!r}")
    twice = numbers["train"] & numbers["test"]
    chosen = numbers[split] - (twice if split == "train" else set())
    pairs, problems = _chosen(
        *_below(root, "images", "annotations"),
        lambda name: name.isdecimal() and int(name) in chosen,
    )
    classes, codec = _by_color(_CWFID, ())
    dataset = _dataset("cwfid", split, classes, MaskReader(codec), (pairs, problems))
    names = ", ".join(f"{number:03d}" for number in sorted(twice))
    notes = (f"{_CWFID_SPLITS} has {names} in train and in test; left out of train",)
    licence = "CWFID: non-commercial research only; cite Haug and Ostermann 2014"
    return replace(dataset, licence=licence, notes=notes if twice and split == "train" else ())


def _cwfid_splits(path: Path) -> dict[str, set[int]]:
    lists = re.findall(r"^(train|test):\s*\[([\d,\s]*)\]", read_text(path), re.MULTILINE)
    numbers = {split: {int(n[-9:]) for n in re.findall(r"\d+", found)} for split, found in lists}
    if set(numbers) != {"train", "test"}:
        raise DataError(f"{path}: expected the lists 'train: [1, 2]' and 'test: [3, 4]'")
    return numbers


def _voc_root(path: Path) -> Path:
    """Return the folder that holds JPEGImages: this one, or VOCdevkit/VOC2012 below it."""
    below = sorted((*path.glob("VOC20*"), *path.glob("VOCdevkit/VOC20*")))
    return path if (path / _IMAGES).is_dir() or not below else below[-1]


def _has_voc_labels(root: Path) -> bool:
    return any((root / name).is_dir() for name in _VOC_LABELS)


def _voc_labels(root: Path) -> Path:
    """Return the folder of masks."""
    folders = [root / name for name in _VOC_LABELS if (root / name).is_dir()]
    if not folders:
        raise DataError(
            f"{root}: has no folder {_VOC_LABELS[0]}; expected one mask a picture there"
        )
    with_masks = (f for f in folders if any(f.rglob(f"*{suffix}") for suffix in LABEL_SUFFIXES))
    filled = (f for f in with_masks if any(p.suffix in LABEL_SUFFIXES for p in f.rglob("*")))
    return next(filled, folders[0])


def _listed(
    kind: str,
    root: Path,
    split: str,
    classes: tuple[ClassInfo, ...],
    codec: LabelCodec,
    found: Found,
) -> FileDataset:
    """Return the pairs that the split's list names; pictures that nobody labelled are left out."""
    pairs, problems = found
    lists = by_split(root / _LISTS, sorted((root / _LISTS).glob("*.txt")))
    if lists and split not in lists:
        raise MissingSplitError(f"{root / _LISTS}: no list of split {split!r}")
    unlabelled = {problem.file for problem in problems if "has no label" in problem.message}
    problems = [problem for problem in problems if problem.file not in unlabelled]
    if split in lists:
        known = {composed(pair.name): pair for pair in pairs}
        names = list(dict.fromkeys(_listed_names(lists[split], known)))
        stems = {composed(name_within(root / _IMAGES, Path(file))): file for file in unlabelled}
        problems += [
            Problem(str(lists[split]), f"lists {name}, no such picture")
            for name in names
            if name not in known and name not in stems
        ]
        pairs = [known[name] for name in names if name in known]
        count = sum(name in stems for name in names)
    else:
        count = len(unlabelled)
    note = f"{count} pictures have no mask and are left out"
    dataset = _dataset(kind, split, classes, MaskReader(codec), (pairs, problems))
    return replace(dataset, notes=(note,) if count else (), unsplit=split not in lists)


def _listed_names(path: Path, known: dict[str, Pair]) -> list[str]:
    """Return the names of a list, one a line; a number may follow, as in VOC's lists of a class."""
    lines = [line.strip().strip('"') for line in composed(read_text(path)).splitlines()]
    names = [line if line in known else line.split()[0] for line in lines if line]
    return [name if name in known else name.removesuffix(Path(name).suffix) for name in names]


def _with_csv(root: Path) -> dict[str, Path]:
    """Return the folders with a _classes.csv by split, "" for none."""
    if (root / _CSV).is_file():
        return {"": root}
    return by_split(root, sorted(file.parent for file in root.glob(f"*/{_CSV}")))


def _split_folders(root: Path, images: str, labels: str, split: str) -> Found:
    of_images, of_labels = (subfolders_by_split(root / name) for name in (images, labels))
    if split not in of_images or split not in of_labels:
        raise MissingSplitError(f"{root}: no split {split!r} in {images}/ and {labels}/")
    return pair_folders(of_images[split], of_labels[split], IMAGE_SUFFIXES, LABEL_SUFFIXES)


def _below(root: Path, images: str, labels: str) -> Found:
    for folder in (root / images, root / labels):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; expected {images}/ and {labels}/")
    return pair_folders(root / images, root / labels, IMAGE_SUFFIXES, LABEL_SUFFIXES)


def _chosen(
    pairs: Sequence[Pair], problems: Sequence[Problem], is_wanted: Callable[[str], bool]
) -> Found:
    wanted = [pair for pair in pairs if is_wanted(PurePosixPath(pair.name).name)]
    return wanted, problems


def _by_color(
    colors: dict[str, Color], ignored: Sequence[Color]
) -> tuple[tuple[ClassInfo, ...], LabelCodec]:
    classes = tuple(ClassInfo(name, color) for name, color in colors.items())
    by_color = {color: index for index, color in enumerate(colors.values())}
    return classes, LabelCodec({}, by_color | dict.fromkeys(ignored, IGNORE_INDEX))


def _dataset(
    kind: str, split: str, classes: tuple[ClassInfo, ...], reader: MaskReader, found: Found
) -> FileDataset:
    pairs, problems = found
    return FileDataset(kind, split, classes, "", tuple(pairs), reader, tuple(problems))


def _first_file(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)
