"""Which label file belongs to which picture, whatever follows or precedes the name they share.

Common to all kinds whose labels are one mask a picture: finding the folders is the kind's own
business, pairing what is in them is done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath

from fastseg.data.dataset import SPLITS, DataError
from fastseg.data.file_dataset import Pair, Problem, composed, list_files, name_within
from fastseg.data.splits import SPLIT_NAMES

_SEPARATORS = "_-. "


@dataclass(frozen=True)
class Affix:
    """What stands before and after the name that a picture and its label share."""

    before: str = ""
    after: str = ""

    def strip(self, name: str) -> str:
        """Return the shared name of a path without suffix; its folders stay."""
        path = PurePosixPath(name)
        shared = path.name.removeprefix(self.before).removesuffix(self.after)
        return str(path.with_name(shared or path.name))

    def fits(self, name: str) -> bool:
        """Return whether something is left between the two."""
        last = PurePosixPath(name).name
        enough = len(last) > len(self.before) + len(self.after)
        return enough and last.startswith(self.before) and last.endswith(self.after)


def pair_folders(
    images: Path, labels: Path, image_suffixes: tuple[str, ...], label_suffixes: tuple[str, ...]
) -> tuple[list[Pair], list[Problem]]:
    """Pair the files of two folders, those in sub-folders by their relative path.

    Returns:
        The pairs in the order of their names, and the files without a partner.
    """
    pictures, masks = _named(images, image_suffixes), _named(labels, label_suffixes)
    of_picture, of_mask = choose_affixes(
        [*map(composed, pictures.values())], [*map(composed, masks.values())]
    )
    return _pair(pictures, masks, of_picture, of_mask)


def pair_in_one_folder(
    folder: Path, affix: Affix, image_suffixes: tuple[str, ...], label_suffixes: tuple[str, ...]
) -> tuple[list[Pair], list[Problem]]:
    """Pair pictures with the labels beside them, which alone have the affix."""
    files = _named(folder, tuple({*image_suffixes, *label_suffixes}))
    masks = {
        file: name
        for file, name in files.items()
        if affix.fits(name) and file.suffix.lower() in label_suffixes
    }
    pictures = {
        file: name
        for file, name in files.items()
        if file not in masks and file.suffix.lower() in image_suffixes
    }
    return _pair(pictures, masks, Affix(), affix)


def choose_affixes(pictures: Sequence[str], masks: Sequence[str]) -> tuple[Affix, Affix]:
    """Return the affixes of pictures and of masks that pair the most; of equals the shortest.

    An affix is common to all files of its side and ends at a separator, such as "_mask".
    """
    best, chosen = (0, 0), (Affix(), Affix())
    for kinds in (_endings, _beginnings):
        for one, other in product(kinds(pictures), kinds(masks)):
            paired = {one.strip(n) for n in pictures} & {other.strip(n) for n in masks}
            length = sum(len(affix.before + affix.after) for affix in (one, other))
            if (len(paired), -length) > best and paired:
                best, chosen = (len(paired), -length), (one, other)
        if best[0]:
            break
    return chosen


def split_of(name: str) -> str:
    """Return the split that a folder or a list is of by its name, "" for none."""
    return next((split for split in SPLITS if name.lower() in SPLIT_NAMES[split]), "")


def _named(folder: Path, suffixes: tuple[str, ...]) -> dict[Path, str]:
    """Return the files below a folder with their relative paths without suffix."""
    return {file: name_within(folder, file) for file in list_files(folder, suffixes)}


def _pair(
    pictures: dict[Path, str], masks: dict[Path, str], of_picture: Affix, of_mask: Affix
) -> tuple[list[Pair], list[Problem]]:
    problems: list[Problem] = []
    picture_by_name = _by_name(pictures, of_picture, problems)
    mask_by_name = _by_name(masks, of_mask, problems)
    pairs = [
        Pair(
            of_picture.strip(pictures[picture_by_name[name]]),
            picture_by_name[name],
            mask_by_name[name],
        )
        for name in sorted(picture_by_name.keys() & mask_by_name.keys())
    ]
    problems += [
        Problem(str(picture_by_name[name]), f"image has no label {name}{of_mask.after}")
        for name in sorted(picture_by_name.keys() - mask_by_name.keys())
    ]
    problems += [
        Problem(str(mask_by_name[name]), f"label has no image {name}{of_picture.after}")
        for name in sorted(mask_by_name.keys() - picture_by_name.keys())
    ]
    return pairs, problems


def _by_name(files: dict[Path, str], affix: Affix, problems: list[Problem]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file, stem in files.items():
        name = affix.strip(composed(stem))
        if name in found:
            problems.append(Problem(str(file), f"has the same name as {found[name].name}"))
        found.setdefault(name, file)
    return found


def _endings(names: Sequence[str]) -> list[Affix]:
    common = _common_beginning(PurePosixPath(name).name[::-1] for name in names)[::-1]
    places = [place for place, letter in enumerate(common) if letter in _SEPARATORS]
    return [Affix(), *(Affix(after=common[place:]) for place in places)]


def _beginnings(names: Sequence[str]) -> list[Affix]:
    common = _common_beginning(PurePosixPath(name).name for name in names)
    places = [place for place, letter in enumerate(common) if letter in _SEPARATORS]
    return [Affix(), *(Affix(before=common[: place + 1]) for place in places)]


def _common_beginning(names: Iterable[str]) -> str:
    ordered = sorted(names)
    if not ordered:
        return ""
    first, last = ordered[0], ordered[-1]
    places = (place for place, letter in enumerate(first) if last[place : place + 1] != letter)
    return first[: next(places, len(first))]


def folders_there(
    root: Path, layouts: Iterable[tuple[str, str]], names: Iterable[str]
) -> list[tuple[Path, Path]]:
    """Return all folders of images and labels that are there, {name} being each name."""
    pairs = [
        (root / images.format(name=name), root / labels.format(name=name))
        for (images, labels), name in product(layouts, names)
    ]
    return [pair for pair in pairs if pair[0].is_dir() and pair[1].is_dir()]


def subfolders_by_split(folder: Path) -> dict[str, Path]:
    """Return the sub-folders that are named after a split, by split.

    Raises:
        DataError: two are named after one.
    """
    found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return by_split(folder, found)


def by_split(folder: Path, found: Iterable[Path]) -> dict[str, Path]:
    """Return the lists or sub-folders of a folder that are named after a split, by split.

    Raises:
        DataError: two are named after one.
    """
    named: dict[str, Path] = {}
    for path in found:
        split = split_of(path.name if path.is_dir() else path.stem)
        other = named.setdefault(split, path)
        if other is not path and split:
            first, second = (f"{p.name}/" if p.is_dir() else p.name for p in (other, path))
            raise DataError(
                f"{folder}: both {first} and {second} are there for one split; put what is in them "
                "together, or move one away"
            )
    return {split: named[split] for split in SPLITS if split in named}
