"""A data set of one's own in Python: `--data package.module:factory`.

`factory(split)` is called with "train", "val" or "test" and returns the samples of that split, or
None if there is no such split. Samples are anything with len() and [index]; each is a `Sample`, or
a pair of a picture, (H, W, 3) uint8 RGB, and its class ids, (H, W) integers with 255 = ignore.
Their attribute `classes` names the classes in the order of their ids: texts or `ClassInfo`s. The
current folder is searched for the module too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo

from fastseg.data.class_list import generated_color
from fastseg.data.dataset import (
    MAX_CLASSES,
    Array,
    DataError,
    MissingSplitError,
    Sample,
    check_index,
)
from fastseg.own_code import describe_error, load_own, search_here


@dataclass(frozen=True)
class OwnDataset:
    """What a factory returned, checked sample by sample. See Dataset for the fields."""

    name: str
    split: str
    classes: tuple[ClassInfo, ...]
    licence: str
    samples: Any

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(_run(f"{self.name}: len() of {self.split}", lambda: len(self.samples)))

    def __getitem__(self, index: int) -> Sample:
        """Return a sample, or raise a DataError that says what is wrong with it."""
        place = f"{self.name}: {self.split} sample {check_index(index, len(self))}"
        sample = _run(place, lambda: self.samples[index])
        if isinstance(sample, Sample):
            picture, label, name, files = (
                sample.image_HW3,
                sample.label_HW,
                sample.name,
                sample.files,
            )
        elif isinstance(sample, tuple | list) and len(sample) == 2:
            (picture, label), name, files = sample, f"{self.split}{index:06d}", ()
        else:
            raise DataError(
                f"{place} is {type(sample).__name__}; expected a pair of a picture and its "
                "class ids"
            )
        image_HW3, label_HW = _run(place, lambda: (np.asarray(picture), np.asarray(label)))
        return Sample(
            _picture(image_HW3, place),
            _class_ids(label_HW, image_HW3.shape[:2], len(self.classes), place),
            name,
            files,
        )


def is_factory(spec: str) -> bool:
    """Return whether a spec names something in a module or a package that is there."""
    module, _, name = spec.rpartition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        return False
    search_here()
    try:
        return find_spec(module.partition(".")[0]) is not None  # of "a.b" it would run a's code
    except (ImportError, ValueError):
        return False


def open_own(spec: str, split: str) -> OwnDataset:
    """Call a factory for one split.

    Raises:
        DataError: it is not there, fails, or returns something else.
        MissingSplitError: it returned None.
    """
    module = spec.rpartition(":")[0]
    factory = _run(spec, lambda: load_own(spec))
    samples = _run(spec, lambda: factory(split))
    if samples is None:
        raise MissingSplitError(f"{spec}: no split {split!r}")
    if not (hasattr(samples, "__len__") and hasattr(samples, "__getitem__")):
        raise DataError(
            f"{spec}: returned {type(samples).__name__} for {split}; expected samples with len() "
            "and [index]"
        )
    return OwnDataset(
        module, split, _classes(spec, samples), str(getattr(samples, "licence", "")), samples
    )


def _classes(spec: str, samples: Any) -> tuple[ClassInfo, ...]:
    named = _run(spec, lambda: getattr(samples, "classes", ()))
    is_list = isinstance(named, Iterable) and not isinstance(named, str | Mapping)
    classes = tuple(
        info if isinstance(info, ClassInfo) else ClassInfo(str(info), generated_color(index))
        for index, info in enumerate(named if is_list else ())
    )
    if not 1 <= len({info.name for info in classes}) == len(classes) <= MAX_CLASSES:
        shown = [info.name for info in classes] if is_list else named
        raise DataError(
            f"{spec}: its samples have classes = {shown!r:.200}; expected a list of 1 to "
            f"{MAX_CLASSES} different names in the order of their ids"
        )
    return classes


def _picture(image_HW3: Array, place: str) -> Array:
    if image_HW3.dtype == np.uint8 and image_HW3.ndim == 3 and image_HW3.shape[2] == 3:
        return image_HW3.copy()  # their code may draw the next one into it
    raise DataError(
        f"{place}: picture is {image_HW3.shape} {image_HW3.dtype}; expected (H, W, 3) uint8 RGB, "
        "not normalised"
    )


def _class_ids(label_HW: Array, size: tuple[int, ...], num_classes: int, place: str) -> Array:
    is_whole = np.issubdtype(label_HW.dtype, np.integer) or label_HW.dtype == bool
    if label_HW.shape != size or not is_whole:
        raise DataError(
            f"{place}: label is {label_HW.shape} {label_HW.dtype}; expected class ids as integers "
            f"of the picture's {size}"
        )
    wrong = (label_HW != IGNORE_INDEX) & ((label_HW < 0) | (label_HW >= num_classes))
    if wrong.any():
        raise DataError(
            f"{place}: label holds {np.unique(label_HW[wrong])[:5].tolist()}; expected 0 to "
            f"{num_classes - 1}, or {IGNORE_INDEX} for what nobody judged"
        )
    return label_HW.astype(np.uint8)


def _run(doing: str, code: Callable[[], Any]) -> Any:
    """Run the user's code; what it raises becomes a DataError of one line."""
    try:
        return code()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{doing}: {describe_error(error)}") from error
