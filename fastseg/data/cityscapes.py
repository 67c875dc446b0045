"""Cityscapes, the 19 classes of its benchmark.

    leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png
    gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png  or  NAME_gtFine_labelTrainIds.png

Source of names, ids and colours: cityscapesScripts, helpers/labels.py (Cordts et al., "The
Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016).
"""

from __future__ import annotations

from pathlib import Path

from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

from fastseg.data.dataset import DataError, MissingSplitError
from fastseg.data.file_dataset import FileDataset, MaskReader, pair_files
from fastseg.data.label_codec import Color, LabelCodec
from fastseg.data.recognise import recognised_by

LICENCE = "Cityscapes: non-commercial use under its own licence; cite Cordts et al. 2016"

# labelIds value, name, colour; the place in this table is the training id
_TABLE: tuple[tuple[int, str, Color], ...] = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
CLASSES = tuple(ClassInfo(name, color) for _, name, color in _TABLE)
_LAST_LABEL_ID = 33

# ending of the label files -> class id by stored value; the first kind that is there is read
_TRAIN_IDS = {index: index for index in range(len(CLASSES))} | {IGNORE_INDEX: IGNORE_INDEX}
_LABEL_IDS = {value: IGNORE_INDEX for value in (*range(_LAST_LABEL_ID + 1), IGNORE_INDEX)} | {
    value: index for index, (value, _, _) in enumerate(_TABLE)
}
_KINDS = {"_gtFine_labelIds": _LABEL_IDS, "_gtFine_labelTrainIds": _TRAIN_IDS}


def _looks_like_cityscapes(path: Path) -> str:
    is_there = (path / "leftImg8bit").is_dir() and (path / "gtFine").is_dir()
    return "Cityscapes, 19 classes" if is_there else ""


@recognised_by(_looks_like_cityscapes)
def open_cityscapes(location: str, split: str) -> FileDataset:
    """Open one split of the official folders.

    Raises:
        DataError: the two folders are not there.
        MissingSplitError: they are, but not for this split.
    """
    root = Path(location)
    images, labels = root / "leftImg8bit", root / "gtFine"
    if not (images.is_dir() and labels.is_dir()):
        raise DataError(f"{root}: no Cityscapes here; expected leftImg8bit/ and gtFine/ in it")
    if not (images / split).is_dir():
        raise MissingSplitError(f"{images}: no split {split!r}")
    image_files = sorted((images / split).glob("*/*_leftImg8bit.png"))
    by_kind = {kind: sorted((labels / split).glob(f"*/*{kind}.png")) for kind in _KINDS}
    kind = next((kind for kind, files in by_kind.items() if files), next(iter(_KINDS)))
    pairs, problems = pair_files(image_files, by_kind[kind], "_leftImg8bit", kind)
    reader = MaskReader(LabelCodec(_KINDS[kind], {}))
    return FileDataset("cityscapes", split, CLASSES, LICENCE, pairs, reader, problems)
