"""Which of the things that a network gives are its logits, and what is wrong with the others.

Shape letters: N batch, K classes, H and W pixels of the picture, h and w of the logits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from fastseg_runtime.engines.own_onnx import MAIN_NAMES, lies_evenly
from torch import Tensor

MAX_CLASSES = IGNORE_INDEX  # ids 0 to 254
MAX_DEPTH = 3  # of lists in dictionaries in lists
MAX_LISTED = 12  # outputs named in a message, which stays one line
# Of probabilities in 8 bits: 19 classes, each half a step of 1/256 off, add up to 4 % too much.
SUM_ERROR = 0.05
EXPECTED = "expected logits (N, classes, height, width)"


class ReadingError(ValueError):
    """What a network gives cannot be read as logits, or not in the way that a user named."""


@dataclass(frozen=True)
class Choice:
    """The output that was chosen.

    Attributes:
        path: where it lies in what the network gives, as leaves() names it.
        note: what a user should know of the choice; "" where there was none.
    """

    path: str
    note: str = ""


def leaves(result: Any, path: str = "", depth: int = 0) -> dict[str, Any]:
    """Return everything in a network's result by its path: "out", "1", "aux.0"; "" for itself.

    Dictionaries, lists, tuples, named tuples, dataclasses and objects with attributes are looked
    into; what is None is left out.
    """
    parts = None if depth > MAX_DEPTH else _parts(result)
    if parts is None:
        return {} if result is None else {path: result}
    found: dict[str, Any] = {}
    for name, part in parts.items():
        found.update(leaves(part, f"{path}.{name}" if path else str(name), depth + 1))
    return found


def _parts(result: Any) -> Mapping[Any, Any] | None:
    if isinstance(result, Tensor | str | bytes | int | float) or result is None:
        return None
    if isinstance(result, Mapping):
        return result
    if hasattr(result, "_asdict"):
        named: Mapping[Any, Any] = result._asdict()
        return named
    if isinstance(result, list | tuple):
        return dict(enumerate(result))
    if dataclasses.is_dataclass(result):
        return {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    held = getattr(result, "__dict__", {})
    return held if any(isinstance(part, Tensor) for part in held.values()) else None


@dataclass(frozen=True)
class Reading:
    """How to read logits for each class off what a network gives.

    Attributes:
        num_classes: K; one logit stands for two classes. None: any number.
        output_name: of several outputs, the path of the logits; "": the one that can be.
        threshold: of the probability above which one logit means the second class.

    Raises:
        ReadingError: a threshold that is no probability between 0 and 1.
    """

    num_classes: int | None = None
    output_name: str = ""
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a threshold that would make one class of all pixels."""
        if not 0 < self.threshold < 1:
            raise ReadingError(f"threshold is {self.threshold}; expected more than 0, less than 1")

    @property
    def logit_threshold(self) -> float:
        """The logit whose sigmoid is the threshold."""
        return math.log(self.threshold / (1 - self.threshold))

    def logits(self, result: Any, image_N3HW: Tensor) -> Tensor:
        """Return float logits (N, K, h, w), K at least 2, of a network's result for images.

        Raises:
            ReadingError: nothing in it can be the logits, or more than one thing can.
        """
        return self.heads(result, image_N3HW)[0]

    def heads(self, result: Any, image_N3HW: Tensor) -> list[Tensor]:
        """Return the logits, and after them the other outputs with as many; see logits()."""
        found = leaves(result)
        main = self.choose(result, image_N3HW).path
        images, count = tuple(image_N3HW.shape), found[main].shape[1]
        others = [x for path, x in found.items() if path != main and not misfit(x, images, count)]
        return [self._two_or_more(x) for x in (found[main], *others) if x.shape[1] == count]

    def choose(self, result: Any, image_N3HW: Tensor) -> Choice:
        """Find the logits in what a network gave for images; see logits() for the errors."""
        found = leaves(result)
        images = tuple(image_N3HW.shape)
        reasons = {path: misfit(x, images, self.num_classes) for path, x in found.items()}
        if self.output_name and list(found) != [""]:
            return Choice(_named(self.output_name, found, reasons))
        fitting = [path for path, reason in reasons.items() if not reason]
        main = [path for path in fitting if path in MAIN_NAMES]
        if len(main) == 1 or len(found) == len(fitting) == 1:
            return Choice((main or fitting)[0])
        if len(fitting) == 1:
            return Choice(
                fitting[0], f"gives {listing(found)}: output {fitting[0]} alone can be logits"
            )
        if fitting:
            raise ReadingError(
                f"gives {listing(found)}; {' and '.join(fitting)} can all be the logits: say which "
                f"are, such as --output-name {fitting[0]}"
            )
        if len(found) == 1:
            raise ReadingError(*reasons.values())
        if not found:
            raise ReadingError(f"gives nothing; {EXPECTED}")
        reason = next(iter(reasons.values()))
        raise ReadingError(f"gives {listing(found)}; none can be the logits: the first {reason}")

    def _two_or_more(self, logits_NKhw: Tensor) -> Tensor:
        if logits_NKhw.shape[1] > 1:
            return logits_NKhw.float()
        # softmax of (-z/2, z/2) is sigmoid(z): these two logits say what the one said.
        half_N1hw = (logits_NKhw.float() - self.logit_threshold) / 2
        return torch.cat([-half_N1hw, half_N1hw], dim=1)


def _named(name: str, found: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """Return the path that a user means: a path, or the index of one of several."""
    flat = all("." not in path for path in found)
    if name not in found and flat and name.isdecimal() and int(name) < len(found):
        name = list(found)[int(name)]
    if name not in found:
        raise ReadingError(f"has no output {name!r:.80}; it gives {listing(found) or 'nothing'}")
    if reasons[name]:
        raise ReadingError(f"gives {listing(found)}: output {name} {reasons[name]}")
    return name


def listing(found: Mapping[str, Any]) -> str:
    """Return "0: (1, 11, 8, 8), 1: (1, 11, 64, 64)" for the parts of a result."""
    parts = [f"{path or 'one'}: {_what(value)}" for path, value in found.items()]
    more = [f"and {len(parts) - MAX_LISTED} more"] if len(parts) > MAX_LISTED else []
    return ", ".join([*parts[:MAX_LISTED], *more])


def _what(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def misfit(value: Any, image: tuple[int, ...], num_classes: int | None = None) -> str:
    """Return why a thing is no logits (N, K, h, w) for images (N, 3, H, W); "" if it is.

    Args:
        value: anything.
        image: the images' shape.
        num_classes: K; 1 logit is right for 2 classes. None: any number, in maps of any size.
    """
    if not isinstance(value, Tensor):
        return f"gives {type(value).__name__}; {EXPECTED}"
    shape = tuple(value.shape)
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        if value.dtype == torch.bool:
            return f"gives {shape} in bool; export its logits, or ids as integers; {EXPECTED}"
        return f"gives {shape} in {kind}, class ids already: leave the argmax out; {EXPECTED}"
    if value.ndim == 3:
        return f"gives {shape}; {EXPECTED}; ids in place of them have to be integers"
    if value.ndim != 4:
        return f"gives {shape}; {EXPECTED}"
    if shape[0] != image[0]:
        return f"gives {shape} for a batch of {image[0]}; {EXPECTED}"
    if num_classes is None and shape[1] <= MAX_CLASSES:
        return ""
    return _wrong_count(shape, num_classes) or _wrong_size(shape, image)


def _wrong_count(shape: tuple[int, ...], num_classes: int | None) -> str:
    found = shape[1]
    if found > MAX_CLASSES:
        return f"tells {found} classes apart; ids are bytes, so {MAX_CLASSES} at most"
    if num_classes in (None, found) or (found, num_classes) == (1, 2):
        return ""
    if found == 1:
        return (
            f"gives one logit, {shape}, which tells two classes apart, expected {num_classes}: "
            "name one class, or two"
        )
    if shape[3] == num_classes:
        return f"gives {shape}, its classes last; {EXPECTED}: permute(0, 3, 1, 2)"
    return (
        f"tells {found} classes apart, expected {num_classes}; a factory with a parameter "
        f"num_classes is told how many (it gives {shape})"
    )


def _wrong_size(shape: tuple[int, ...], image: tuple[int, ...]) -> str:
    """Return why (h, w) is no whole fraction of the picture, in both directions alike; or ""."""
    (h, w), (height, width) = shape[2:], image[2:]
    if h > height or w > width:
        return (
            f"gives {shape}, more than the picture's {width}x{height}; choose a --size that its "
            "strides divide, or crop in its forward()"
        )
    if not lies_evenly((h, w), (width, height)):
        return (
            f"gives {shape}, which does not lie evenly over a picture of {width}x{height}; "
            "expected one position for every s x s pixels"
        )
    return ""


def kind_of_probabilities(values_NKhw: Tensor) -> str:
    """Return "softmax" or "sigmoid" where all values are as after one, else ""."""
    if not bool(((values_NKhw >= 0) & (values_NKhw <= 1)).all()):
        return ""
    sums_Nhw = values_NKhw.float().sum(dim=1)
    one = values_NKhw.shape[1] > 1 and bool(((sums_Nhw - 1).abs() < SUM_ERROR).all())
    return "softmax" if one else "sigmoid"
