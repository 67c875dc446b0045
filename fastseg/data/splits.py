"""Which pictures of a data set without splits are for training, for validation and for the test.

A picture goes by the SHA-256 of its name, 80 % to train, 10 % to val, 10 % to test, and so stays
where it is however many are added. Of a few pictures a split may get none that way: it is then
given the one whose number lies nearest, until it has one of its own. Of a video, whose frames
look alike, whole sequences have to go: `by` says which pictures are one.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from fastseg.data.dataset import SPLITS, DataError

# Names under which people keep a split.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
BY_FOLDER = "folder"
_ENDS_PERCENT = {"train": 80, "val": 90, "test": 100}
_NUMBERED = re.compile(r"(.*?)([0-9]{3,})([^0-9]*)")


def hashed_split(name: str) -> str:
    """Return the split of a name among many."""
    percent = _percent(name)
    return next(split for split, end in _ENDS_PERCENT.items() if percent < end)


def choose_names(names: Iterable[str], split: str, by: str = "", place: str = "") -> set[str]:
    """Return the names that belong to a split.

    Args:
        names: of all pictures, with the folders that they are in.
        split: one of SPLITS.
        by: "folder", or a regular expression whose match in a name (its first group, where it has
            one) is the sequence that the picture belongs to; "": each picture stands alone.
        place: names the data in an error.

    Raises:
        DataError: `by` is no regular expression, a name does not match it, or all pictures are of
            one sequence.
    """
    sequence_by_name = {name: _sequence(name, by, place) for name in names}
    sequences = set(sequence_by_name.values())
    if by and len(sequences) == 1:
        raise DataError(
            f"{place}: by {by!r} all {len(sequence_by_name)} pictures are one sequence, "
            f"{min(sequences)!r}; expected two or more, to train on some and validate on others"
        )
    split_by_sequence = _assign(sequences)
    return {n for n, sequence in sequence_by_name.items() if split_by_sequence[sequence] == split}


def look_like_frames(names: Iterable[str]) -> bool:
    """Return whether most names are one step after another, as each n-th frame of a video is."""
    names = set(names)
    numbers: dict[tuple[str, str], list[int]] = {}
    for match in filter(None, map(_NUMBERED.fullmatch, names)):
        numbers.setdefault((match[1], match[3]), []).append(int(match[2]))
    followed = 0
    for those in numbers.values():
        gaps = Counter(after - before for before, after in pairwise(sorted(those)))
        followed += max(gaps.values(), default=0)
    return followed > len(names) / 2


def _assign(keys: set[str]) -> dict[str, str]:
    """Return the split of each key; train gets the first one, val the next, test the third."""
    found = {key: hashed_split(key) for key in sorted(keys)}
    for place, split in enumerate(SPLITS):
        if len(keys) <= place or split in found.values():
            continue
        counts = Counter(found.values())
        donors = [key for key, its in found.items() if its not in SPLITS[:place] or counts[its] > 1]
        end = _ENDS_PERCENT[split]
        found[min(donors, key=lambda key: (abs(_percent(key) - end), key))] = split
    return found


def _percent(name: str) -> int:
    return int(hashlib.sha256(os.fsencode(name)).hexdigest(), 16) % 100


def _sequence(name: str, by: str, place: str) -> str:
    if not by:
        return name
    if by == BY_FOLDER:
        return name.rpartition("/")[0]
    try:
        match = re.search(by, name)
    except re.error as error:
        raise DataError(
            f"{place}: --split-by {by!r} is no regular expression ({error}); write 'folder', or "
            "what of a name tells its sequence, such as '^[^_]+'"
        ) from error
    if match is None:
        raise DataError(f"{place}: {name!r} holds nothing that --split-by {by!r} matches")
    return match[1] if match.groups() and match[1] is not None else match[0]
