"""Generated data sets: drawn on access, equal for equal seed, split and index.

Spec: KIND, KIND:480x360, KIND:7 (the seed) or KIND:key=value,... with the keys of Options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.bundle.manifest import ClassInfo

from fastseg.data.dataset import SPLITS, Array, DataError, Sample, check_index

LICENCE = "none (generated)"
_MIN_SIDE_PX = 32

# Draws one picture: (rng, width, height) -> image (H, W, 3) uint8 RGB, class ids (H, W) uint8.
Painter = Callable[[np.random.Generator, int, int], tuple[Array, Array]]


@dataclass(frozen=True)
class Options:
    """What a spec can set: the seed, pictures per split, and the size as WIDTHxHEIGHT."""

    seed: int = 0
    train: int = 400
    val: int = 50
    test: int = 50
    size: str = "480x360"


@dataclass(frozen=True)
class ProceduralDataset:
    """One split of generated pictures. See Dataset for the fields."""

    name: str
    split: str
    classes: tuple[ClassInfo, ...]
    paint: Painter
    options: Options
    licence: str = LICENCE

    def __len__(self) -> int:
        """Return the number of pictures in this split."""
        return int(getattr(self.options, self.split))

    def __getitem__(self, index: int) -> Sample:
        """Draw a picture. Splits differ because the split is part of the seed."""
        index = check_index(index, len(self))
        rng = np.random.default_rng((self.options.seed, SPLITS.index(self.split), index))
        width, height = parse_size(self.options.size)
        image_HW3, label_HW = self.paint(rng, width, height)
        return Sample(image_HW3, label_HW, f"{self.split}_{index:05d}")


def open_procedural(
    name: str, location: str, split: str, classes: tuple[ClassInfo, ...], paint: Painter
) -> ProceduralDataset:
    """Open a kind of generated pictures; location is what follows the colon of the spec.

    Raises:
        DataError: options that cannot be read.
    """
    return ProceduralDataset(name, split, classes, paint, parse_options(name, location))


def parse_options(kind: str, text: str) -> Options:
    """Read what follows the colon of a spec.

    Raises:
        DataError: an unknown key, a value that is no number, or a size that is none.
    """
    values: dict[str, str | int] = {}
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        if not separator:  # a bare size or a bare seed
            key, value = ("size", part) if "x" in part.lower() else ("seed", part)
        values[key] = value if key == "size" else _count(kind, key, value)
    known = [field.name for field in fields(Options)]
    if unknown := sorted(values.keys() - set(known)):
        raise DataError(f"{kind}: no option {unknown[0]!r}; choose from {known}")
    options = Options(**values)  # type: ignore[arg-type]  # checked above
    try:
        size = parse_size(options.size)
    except ValueError as error:
        raise DataError(f"{kind}: {error}") from error
    if min(size) < _MIN_SIDE_PX:
        raise DataError(f"{kind}: size={options.size}; expected {_MIN_SIDE_PX} pixels or more")
    return options


def _count(kind: str, key: str, value: str) -> int:
    if not value.isdecimal():
        raise DataError(f"{kind}: {key}={value!r}; expected a number of 0 or more")
    return int(value)
