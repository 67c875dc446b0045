"""Which of the things that a network gives are its logits, and what is wrong with the others.

Shape letters: N batch, K classes, H and W pixels of the picture, h and w of the logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

MAIN_NAMES = ("out", "logits")  # torchvision's, transformers'
MAX_DEPTH = 3  # of lists in dictionaries in lists
MAX_LISTED = 12
ROUNDING = 2  # how many positions a map may be off its size: convolutions without padding


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


def choose(
    result: Any, image_N3HW: Tensor, num_classes: int | None = None, name: str = ""
) -> Choice:
    """Find the logits in what a network gave.

    Args:
        result: the network's output for image_N3HW.
        image_N3HW: what it was given.
        num_classes: K; one logit stands for two classes. None: any number.
        name: the path that the user chose; "": find it.

    Raises:
        ValueError: nothing in it can be the logits, or more than one thing can.
    """
    found = leaves(result)
    size = tuple(image_N3HW.shape)
    reasons = {path: misfit(value, size, num_classes) for path, value in found.items()}
    if name and list(found) != [""]:
        return Choice(_named(name, found, reasons))
    if len(found) == 1:
        ((path, reason),) = reasons.items()
        if reason:
            raise ValueError(f"the network gives {reason}")
        return Choice(path)
    fitting = [path for path, reason in reasons.items() if not reason]
    main = [path for path in fitting if path in MAIN_NAMES]
    if len(main) == 1:
        return Choice(main[0])
    if len(fitting) == 1:
        others = f"{len(found) - 1} other outputs"
        return Choice(fitting[0], f"takes output {fitting[0]} of {listing(found)}: no {others} fit")
    if fitting:
        raise ValueError(
            f"the network gives {listing(found)}; {', '.join(fitting)} can all be the logits: say "
            f"which with --output-name, such as --output-name {fitting[0]}"
        )
    if not found:
        raise ValueError("the network gives nothing; expected logits (N, classes, height, width)")
    reason = next(iter(reasons.values()))
    raise ValueError(f"the network gives {listing(found)}; none can be the logits: {reason}")


def _named(name: str, found: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """Return the path that a user means: a path, or the index of one of several."""
    flat = all("." not in path for path in found)
    if name not in found and flat and name.isdecimal() and int(name) < len(found):
        name = list(found)[int(name)]
    if name not in found:
        raise ValueError(f"the network has no output {name!r:.80}; it gives {listing(found)}")
    if reasons[name]:
        raise ValueError(f"output {name} is {reasons[name]}; the network gives {listing(found)}")
    return name


def listing(found: Mapping[str, Any]) -> str:
    """Return "0: (1, 11, 8, 8), 1: (1, 11, 64, 64)" for the parts of a result."""
    parts = [f"{path or 'one'}: {_what(value)}" for path, value in found.items()]
    more = [f"and {len(parts) - MAX_LISTED} more"] if len(parts) > MAX_LISTED else []
    return ", ".join([*parts[:MAX_LISTED], *more])


def _what(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def misfit(value: Any, image: tuple[int, ...], num_classes: int | None = None) -> str:
    """Return what a thing is instead of logits (N, K, h, w) for images (N, 3, H, W); "" if it is.

    Args:
        value: anything.
        image: the images' shape.
        num_classes: K; 1 logit is right for 2 classes. None: any number.
    """
    expected = "expected logits (N, classes, height, width)"
    if not isinstance(value, Tensor):
        return f"{type(value).__name__}; {expected}"
    shape = tuple(value.shape)
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        return f"{shape} in {kind}, class ids already; {expected}: leave the argmax out"
    if value.ndim != 4:
        return f"{shape}; {expected}"
    if shape[0] != image[0]:
        return f"{shape} for {image[0]} picture; {expected} with N = {image[0]}"
    if reason := _wrong_size(shape, image):
        return reason
    if num_classes not in (None, shape[1]) and (shape[1], num_classes) != (1, 2):
        return _wrong_count(shape, num_classes or 0)
    return ""


def _wrong_count(shape: tuple[int, ...], num_classes: int) -> str:
    if shape[1] == 1:
        return (
            f"{shape}, one logit, which tells two classes apart; expected {num_classes}: name the "
            "one class, or two"
        )
    last = "; its classes seem to be last: permute(0, 3, 1, 2)"
    return f"{shape}, {shape[1]} classes; expected {num_classes}" + (
        last if shape[3] == num_classes else ""
    )


def _wrong_size(shape: tuple[int, ...], image: tuple[int, ...]) -> str:
    """Return why (h, w) is no whole fraction of the picture, in both directions alike; or ""."""
    (h, w), (height, width) = shape[2:], image[2:]
    if h > height or w > width:
        return f"{shape}, more than the picture's {width}x{height}"
    strides = range(1, max(height, width) + 1)
    whole = any(
        max(abs(h - height / stride), abs(w - width / stride)) < ROUNDING for stride in strides
    )
    if not whole or (h == w == 1 and max(height, width) > 1):
        return (
            f"{shape}, which does not lie evenly over a picture of {width}x{height}; expected one "
            "position for every s x s pixels"
        )
    return ""
