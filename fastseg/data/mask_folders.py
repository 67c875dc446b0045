"""Folders of pictures and masks as most people have them, whatever the folders are called.

    images/NAME.jpg  masks/NAME.png           Kvasir-SEG: or imgs, img_dir; labels, annotations, ...
    train/images/    train/masks/             the splits outside, or inside: images/train/, ...
    train/NAME.jpg   train_masks/NAME_mask.gif   Carvana
    NAME.jpg         NAME_mask.png            both in one folder, or in train/, valid/, test/

What follows or precedes the common name of all pictures or all masks ("_image", "_mask",
"_annotation", "mask_") is found by itself. Splits may be called training, valid, validation,
testing. Without splits each picture goes to one by a hash of its name.

Without a list of classes, masks of 0 and 255, or of 0 and 1, are background and foreground; masks
of that kind may be JPEGs, which are cut at 128. In mmseg's img_dir/ann_dir each value is a class,
as mmseg has it, and 255 is ignored. All other masks need a list of classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo, numbered_classes

from fastseg.data.class_list import read_classes, read_lines
from fastseg.data.dataset import MAX_CLASSES, Array, DataError, LabelSizeError, MissingSplitError
from fastseg.data.file_dataset import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    FileDataset,
    LabelReader,
    MaskReader,
    Pair,
    Problem,
    file_called,
)
from fastseg.data.image_file import StoredLabel, read_stored_label
from fastseg.data.label_codec import LabelCodec, of_16_bits
from fastseg.data.listed_labels import Evidence, note_palette
from fastseg.data.pairing import (
    Affix,
    pair_folders,
    pair_in_one_folder,
    subfolders_by_split,
)

IMAGES: tuple[str, ...] = (
    "images",
    "image",
    "imgs",
    "img",
    "img_dir",
    "pictures",
    "photos",
    "frames",
    "input",
)
LABELS: tuple[str, ...] = (
    "labels",
    "label",
    "masks",
    "mask",
    "annotations",
    "annotation",
    "ann_dir",
    "annots",
)
LABELS += ("gt", "groundtruth", "ground_truth", "segmentation", "segmentations", "target")
CLASS_LISTS: tuple[str, ...] = (
    "classes.txt",
    "labelmap.txt",
    "class_dict.csv",
    "_classes.csv",
    "class_names.txt",
)
CLASS_LISTS += ("label_colors.txt",)
ENDINGS = ("_mask", "_masks", "_label", "_labels", "_annotation", "_seg", "_segmentation", "_gt")
_JPEG = (".jpg", ".jpeg")
_MMSEG = "ann_dir"
_FOREGROUND = 128  # JPEG spreads a 0/255 edge over values on both sides; in the middle it is cut
_DARK, _LIGHT, _MOST_BETWEEN = 64, 191, 0.05  # a 0/255 mask has little but blurred edges there
_LOOKED_AT = 20  # masks whose values say what kind they are; every mask is held to it when read
_BINARY = (ClassInfo("background", (0, 0, 0)), ClassInfo("foreground", (255, 255, 255)))


@dataclass(frozen=True)
class Place:
    """Where pictures and labels of a split lie; "" is the split of those that have none.

    Attributes:
        affix: of the labels, where they lie beside the pictures.
    """

    split: str
    images: Path
    labels: Path
    affix: Affix | None = None

    def pairs(self) -> tuple[list[Pair], list[Problem]]:
        """Pair what lies there."""
        if self.affix is not None:
            return pair_in_one_folder(self.images, self.affix, IMAGE_SUFFIXES, LABEL_SUFFIXES)
        suffixes = (
            LABEL_SUFFIXES if _has_files(self.labels, LABEL_SUFFIXES) else (*LABEL_SUFFIXES, *_JPEG)
        )
        return pair_folders(self.images, self.labels, IMAGE_SUFFIXES, suffixes)


@dataclass(frozen=True)
class BinaryReader:
    """Reads masks of two values, one of them 0; grey in three channels and JPEG too."""

    ids: LabelCodec
    evidence: Evidence = field(default_factory=Evidence, compare=False)

    def __call__(self, pair: Pair, height: int, width: int) -> Array:
        """Return the class map, which has to be of the image's size."""
        stored = read_stored_label(pair.label)
        values_HW = _values(pair.label, stored)
        if values_HW.shape != (height, width):
            raise LabelSizeError(
                f"{pair.label}: label is {values_HW.shape[1]}x{values_HW.shape[0]}, its image "
                f"{pair.image.name} is {width}x{height} (upright); they have to be equal"
            )
        if values_HW is stored.values and stored.palette_P3 is not None:
            self._note_palette(str(pair.label), stored)
        return self.ids.decode(values_HW, str(pair.label))

    def _note_palette(self, place: str, stored: StoredLabel) -> None:
        """Refuse colours that are not those of the other files, or black for the foreground."""
        used = np.unique(stored.values).tolist()
        if stored.palette_P3 is not None and not stored.palette_P3[0].any():
            used = [value for value in used if value == 0]  # on black any colour is the object's
        note_palette(self.ids, stored, used, place, self.evidence)
        black = [v for v, (color, _) in self.evidence.colors.items() if color == (0, 0, 0) and v]
        if black:
            raise DataError(
                f"{place}: its palette has black for the value {black[0]}, which without a list of "
                "classes is the foreground; write a classes.txt with the colours, such as "
                "'0 background 0 0 0' and '1 object 255 0 0', and these count"
            )


def looks_like_folders(path: Path) -> str:
    """Return what the folders are called, "" if there are none that hold pictures and masks."""
    try:
        places = _places(path) if path.is_dir() else []
    except DataError:
        return ""
    if not places:
        return ""
    named = class_list(path)
    first = places[0]
    what = f"pictures in {_relative(path, first.images)}, masks in {_relative(path, first.labels)}"
    what = what if first.affix is None else f"pictures with masks called NAME{first.affix.after}"
    return f"{what}, classes of {named.name}" if named else f"{what}, no list of classes"


def open_mask_folders(location: str, split: str) -> FileDataset:
    """Open one split of folders of pictures and masks.

    Raises:
        DataError: no such folders, or their masks need a list of classes.
        MissingSplitError: there are splits, but not this one.
    """
    root = Path(location)
    places = {place.split: place for place in _places(root)}
    if not places:
        raise DataError(
            f"{root}: no images here; expected images/ and labels/ in it, or in train/, val/ and "
            f"test/. The first may be called {', '.join(IMAGES[1:])}, the second "
            f"{', '.join(LABELS[1:])}"
        )
    if split not in places and "" not in places:
        raise MissingSplitError(
            f"{root}: no split {split!r}; expected {split}/images and {split}/labels"
        )
    classes, reader, notes = _classes(root, [*places.values()])
    pairs, problems = places[split if split in places else ""].pairs()
    return FileDataset(
        "folder",
        split,
        classes,
        "",
        tuple(pairs),
        reader,
        tuple(problems),
        added=reader.codec.added if isinstance(reader, MaskReader) else (),
        unsplit=split not in places,
        notes=notes,
    )


def class_list(root: Path) -> Path | None:
    """Return the file that names the classes, None where there is none."""
    named = (file_called(root, name) for name in CLASS_LISTS)
    return next((file for file in named if file.is_file()), None)


def refuse_other_order(root: Path, named: Path) -> None:
    """Refuse another list of the same names in another order, where values alone say the class.

    Raises:
        DataError: there is one.
    """
    lines = read_lines(named)
    ours = [line.name.lower() for line in lines]
    others = [file_called(root, name) for name in CLASS_LISTS]
    for other in others if not any(line.color for line in lines) else []:
        theirs = ours
        if other.is_file() and other != named:
            with suppress(DataError):
                theirs = [line.name.lower() for line in read_lines(other)]
        if theirs != ours and sorted(theirs) == sorted(ours):
            raise DataError(
                f"{named}: has the classes {', '.join(ours)!s:.80}, {other.name} has them in "
                "another order; which of them the values follow is not clear: move one file away"
            )


def _classes(
    root: Path, places: Sequence[Place]
) -> tuple[tuple[ClassInfo, ...], LabelReader, tuple[str, ...]]:
    masks = [pair.label for place in places for pair in place.pairs()[0]]
    if not masks:
        raise DataError(f"{root}: no picture has a mask of its name; compare the files' names")
    if named := class_list(root):
        classes, codec = read_classes(named)
        refuse_other_order(root, named)
        if masks[0].suffix.lower() in _JPEG:
            if len(classes) != len(_BINARY):
                raise DataError(
                    f"{masks[0]}: is a JPEG, which changes class ids; save labels as PNG"
                )
            return classes, BinaryReader(LabelCodec(_of_black_and_white(codec, named), {})), ()
        return classes, MaskReader(codec), ()
    is_mmseg = places[0].labels.name == _MMSEG or places[0].labels.parent.name == _MMSEG
    values = _values_of(masks if is_mmseg else masks[:: max(1, len(masks) // _LOOKED_AT)])
    if values == {0}:  # by chance none of them shows the object
        values = _values_of(masks)
    high = max(values - {0}, default=0)
    if values <= {0, high} and high in (1, IGNORE_INDEX):
        note = f"no list of classes; masks store 0 and {high}: background and foreground"
        table = {0: 0, high: 1}  # 0/1 in some files and 0/255 in others cannot both be meant
        codec = LabelCodec(table, {}, says_255=high == IGNORE_INDEX)
        return _BINARY, BinaryReader(codec), (note,)
    ids = sorted(values - {IGNORE_INDEX})
    if is_mmseg and 2 <= len(ids) <= MAX_CLASSES:
        classes = numbered_classes(len(ids))
        table = {value: index for index, value in enumerate(ids)} | {IGNORE_INDEX: IGNORE_INDEX}
        note = f"no list of classes; those of the values {ids[0]} to {ids[-1]} are numbered, and"
        reader = MaskReader(LabelCodec(table, {}), notes_palettes=True)
        return classes, reader, (f"{note} --classes FILE names them",)
    if high > IGNORE_INDEX:
        raise DataError(f"{root}: its masks store {_shown(ids)}, {of_16_bits(ids)}")
    raise DataError(
        f"{root}: no list of classes; its masks store {_shown(ids)}. Write {root / CLASS_LISTS[0]} "
        f"with a line 'value name' for each, such as '{ids[0] if ids else 0} background'; "
        f"{IGNORE_INDEX} is ignored"
    )


def _of_black_and_white(codec: LabelCodec, named: Path) -> dict[int, int]:
    """Return the class ids of black, 0, and white, 255, as a list's colours or values say.

    Raises:
        DataError: it says neither.
    """
    black, white = (codec.colors.get((grey,) * 3) for grey in (0, IGNORE_INDEX))
    if black is None or white is None:
        black, white = codec.ids.get(0), codec.ids.get(IGNORE_INDEX) if codec.says_255 else None
    if black is None or white is None:
        raise DataError(
            f"{named}: JPEG masks hold black and white, and it does not say which class is which; "
            "write '0 background' and '255 object'"
        )
    return {0: black, IGNORE_INDEX: white}


def _places(root: Path) -> list[Place]:
    """Return where pictures and masks lie, by the first spelling that is there."""
    images, labels = _called(root, IMAGES), _called(root, LABELS)
    labels = [folder for folder in labels if _has_files(folder, (*LABEL_SUFFIXES, *_JPEG))]
    if images and labels:
        return _in_two(root, _only(root, images), _only(root, labels))
    splits = subfolders_by_split(root)
    return (
        list(_inside(splits)) or list(_beside(root, splits)) or list(_in_one(splits or {"": root}))
    )


def _in_two(root: Path, images: Path, labels: Path) -> list[Place]:
    of_images, of_labels = subfolders_by_split(images), subfolders_by_split(labels)
    both = [split for split in of_images if split in of_labels]
    if of_images and not both:
        raise DataError(
            f"{root}: {images.name}/ has the splits {', '.join(of_images)}, {labels.name}/ has not"
        )
    return [Place(s, of_images[s], of_labels[s]) for s in both] or [Place("", images, labels)]


def _inside(splits: dict[str, Path]) -> Iterator[Place]:
    for split, folder in splits.items():
        images, labels = _called(folder, IMAGES), _called(folder, LABELS)
        labels = [path for path in labels if _has_files(path, (*LABEL_SUFFIXES, *_JPEG))]
        if images and labels:
            yield Place(split, _only(folder, images), _only(folder, labels))


def _beside(root: Path, splits: dict[str, Path]) -> Iterator[Place]:
    for split, folder in splits.items():
        wanted = [f"{folder.name}{between}{name}" for between in ("", "_", "-") for name in LABELS]
        if labels := _called(root, [name.lower() for name in (*wanted, f"{folder.name}annot")]):
            yield Place(split, folder, _only(root, labels))


def _in_one(folders: dict[str, Path]) -> Iterator[Place]:
    for split, folder in folders.items():
        files = [file for file in folder.iterdir() if file.suffix.lower() in LABEL_SUFFIXES]
        for ending in ENDINGS:
            if any(file.stem.endswith(ending) for file in files):
                yield Place(split, folder, folder, Affix(after=ending))
                break


def _called(root: Path, names: Sequence[str]) -> list[Path]:
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [path for path in folders if path.name.lower() in names and path.is_dir()]


def _only(root: Path, folders: Sequence[Path]) -> Path:
    if len(folders) > 1:
        names = " and ".join(f"{folder.name}/" for folder in folders)
        raise DataError(f"{root}: has {names}; which of them to read is not clear, move one away")
    return folders[0]


def _has_files(folder: Path, suffixes: tuple[str, ...]) -> bool:
    return any(file.suffix.lower() in suffixes for file in folder.rglob("*"))


def _values(path: Path, stored: StoredLabel) -> Array:
    values = stored.values
    if stored.palette_P3 is not None and (grey_P := _black_and_white(stored)) is not None:
        values = grey_P[values]  # by its colours: Pillow may number white before black
    if values.ndim == 3:
        if not (np.ptp(values, axis=2) <= (_DARK if path.suffix.lower() in _JPEG else 0)).all():
            raise DataError(f"{path}: is a colour mask; write a classes.txt that names its colours")
        values = values[:, :, 0]
    if path.suffix.lower() in _JPEG:
        between = ((values >= _DARK) & (values <= _LIGHT)).mean()
        if between > _MOST_BETWEEN:
            raise DataError(
                f"{path}: is a JPEG, which changes class ids, and {between:.0%} of it are neither "
                "black nor white; save labels as PNG"
            )
        return np.where(values >= _FOREGROUND, np.uint8(IGNORE_INDEX), np.uint8(0))
    return values


def _black_and_white(stored: StoredLabel) -> Array | None:
    """Return the grey of each entry of a palette, (P,) uint8; None if a pixel has a colour."""
    palette_P3, used = stored.palette_P3, np.unique(stored.values)
    if palette_P3 is None or used.max() >= len(palette_P3):
        return None
    colors = {tuple(color) for color in palette_P3[used].tolist()}
    return palette_P3[:, 0] if colors <= {(0, 0, 0), (255, 255, 255)} else None


def _values_of(masks: Sequence[Path]) -> frozenset[int]:
    """Return the values that masks store."""
    facts = [(mask, mask.stat()) for mask in masks]  # one may be edited under an open notebook
    return _values_once(tuple((mask, stat.st_mtime_ns, stat.st_size) for mask, stat in facts))


@lru_cache(maxsize=8)
def _values_once(masks: tuple[tuple[Path, int, int], ...]) -> frozenset[int]:
    values: set[int] = set()
    for mask, _, _ in masks:
        values.update(np.unique(_values(mask, read_stored_label(mask))).tolist())
    return frozenset(values)


def _shown(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return (", ".join(map(str, ids[:10])) or "nothing but 255") + more


def _relative(root: Path, folder: Path) -> str:
    return f"{folder.relative_to(root).as_posix()}/"
