"""An ONNX file that fastseg-export did not make: what a user says of it, and how it is run here.

numpy closes the gap to what a session expects; a bundle made by fastseg-export has all of it in the
graph, and the proof beside it.
"""

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import FITS, IGNORE_INDEX
from fastseg_runtime.engines.image_port import ImagePort, image_port

# Name -> means, standard deviations (R, G, B) and what the byte 255 is before them.
STATISTICS: Dict[str, Tuple[Tuple[float, ...], Tuple[float, ...], int]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1),
    "unit": ((0.0,) * 3, (1.0,) * 3, 1),
    "centred": ((128.0,) * 3, (64.0,) * 3, 255),
}
ROUNDING = 0.05  # by how much a map may miss its size: convolutions without padding
MAIN_NAMES = ("out", "logits")  # torchvision's, transformers'
_NAMES = ", ".join(STATISTICS)
SAYS_ITSELF = (
    "says itself how it is used; leave --size, --normalization, --color, --output-name, "
    "--threshold and --fit out, which are for ONNX files of others"
)


@dataclass(frozen=True)
class OwnFile:
    """What a user says of a file, in the words of the options; None: nothing."""

    size: Optional[str] = None
    normalization: Optional[str] = None
    color: Optional[str] = None
    output_name: Optional[str] = None
    threshold: Optional[float] = None
    fit: Optional[str] = None


NOTHING_SAID = OwnFile()


class OwnOnnx:
    """A file in an open session, as what a backend is: bytes in, ids or logits out.

    Args:
        session: of ONNX Runtime.
        said: of the file.

    Attributes:
        size: (width, height) that it runs at.
        num_classes: K of its logits; None: it gives ids, which do not say.

    Raises:
        ValueError: it takes or gives something else, or more has to be said; the message says what.
    """

    def __init__(self, session: Any, said: OwnFile) -> None:
        if said.fit not in (None, *FITS):
            raise ValueError(f"fit is {said.fit!r:.80}; expected {' or '.join(FITS)}")
        self._session = session
        self._port: ImagePort = image_port(session.get_inputs())
        self.size = self._port.size_for(parse_size(said.size) if said.size else None)
        if said.color not in (None, "rgb", "bgr"):
            raise ValueError(f"color is {said.color!r:.80}; expected 'rgb' or 'bgr'")
        self._bgr = said.color == "bgr"
        if self._port.takes_bytes and said.normalization is not None:
            raise ValueError("takes bytes as they are; leave --normalization out")
        self._table_3x256 = None if self._port.takes_bytes else _normalised_bytes(said)
        threshold = 0.5 if said.threshold is None else said.threshold
        if not 0 < threshold < 1:
            raise ValueError(f"threshold is {threshold}; expected more than 0, less than 1")
        self._logit = math.log(threshold / (1 - threshold))
        width, height = self.size
        names = [output.name for output in session.get_outputs()]
        # Of noise, one logit lies on both sides of 0 and 1; what a sigmoid gives never does.
        noise = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
        found = {name: np.asarray(value) for name, value in zip(names, self._run(names, noise))}
        self._name = self._chosen(found, said.output_name)
        value = found[self._name]
        self._class_axis = self._axis(value)
        if self._class_axis and value.shape[self._class_axis] == 1:
            _refuse_no_logit(value)
        elif said.threshold is not None:
            raise ValueError("gives more than one logit; --threshold is for one: leave it out")
        scores = self._scores(value)
        self.num_classes = scores.shape[1] if scores.ndim == 4 else None

    def infer(self, image_1HW3: Array) -> Array:
        """Return ids (1, H, W) or logits (1, K, h, w), K at least 2, of a picture."""
        return self._scores(self._run([self._name], image_1HW3)[0])

    def _run(self, names: List[str], image_1HW3: Array) -> List[Any]:
        image = image_1HW3[..., ::-1] if self._bgr else image_1HW3
        if self._table_3x256 is not None:
            planes = [table[image[..., index]] for index, table in enumerate(self._table_3x256)]
            image = np.stack(planes, axis=-1)
        if not self._port.channels_last:
            image = image.transpose(0, 3, 1, 2)
        found: List[Any] = self._session.run(names, {self._port.name: np.ascontiguousarray(image)})
        return found

    def _scores(self, value: Array) -> Array:
        if value.dtype.kind in "iu":
            ids_1hw = value.astype(np.uint8, copy=False).reshape(1, *_sides(value))
            if value.dtype != np.uint8 and not np.array_equal(ids_1hw.reshape(value.shape), value):
                raise ValueError(f"gives ids {value.min()} to {value.max()}; expected 0 to 255")
            return self._full_size(ids_1hw)
        logits = value.astype(np.float32, copy=False)
        if self._class_axis == 3:
            logits = logits.transpose(0, 3, 1, 2)
        if logits.shape[1] > 1:
            return logits
        half = (logits - np.float32(self._logit)) / 2
        return np.concatenate([-half, half], axis=1)

    def _full_size(self, ids_1hw: Array) -> Array:
        (h, w), (width, height) = ids_1hw.shape[1:], self.size
        if (h, w) == (height, width):
            return ids_1hw
        rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
        full: Array = ids_1hw[:, rows[:, None], columns]
        return full

    def _axis(self, value: Array) -> Optional[int]:
        """Return which axis of an output has the classes; 0: it gives ids; None: no scores."""
        if value.dtype.kind in "iu" and value.ndim in (3, 4) and len(value) == 1:
            sides = _sides(value)
            return 0 if value.size == math.prod(sides) and lies_evenly(sides, self.size) else None
        if value.dtype.kind != "f" or value.ndim != 4 or len(value) != 1:
            return None
        return class_axis(value.shape, self.size, self._port.channels_last)

    def _chosen(self, values: Dict[str, Array], name: Optional[str]) -> str:
        """Return which output has the logits or ids."""
        told = ", ".join(f"{key}: {x.dtype} {x.shape}" for key, x in values.items())[:300]
        fitting = [key for key, value in values.items() if self._axis(value) is not None]
        if name is not None and name not in fitting:
            raise ValueError(
                f"gives {told}; --output-name {name!r:.80} is none of these with scores"
            )
        main = [key for key in fitting if key in MAIN_NAMES]
        chosen = [name] if name is not None else main if len(main) == 1 else fitting
        if not chosen:
            width, height = self.size
            raise ValueError(
                f"gives {told}; expected logits (1, K, h, w) of {IGNORE_INDEX} classes at most or "
                f"class ids (1, h, w), with one position for every s x s pixels of {width}x{height}"
            )
        if len(chosen) > 1:
            raise ValueError(
                f"gives {told}; {' and '.join(chosen)} can all be the scores: say which, such as "
                f"--output-name {chosen[0]}"
            )
        return chosen[0]


def _sides(ids: Array) -> Tuple[int, ...]:
    """Return (h, w) of ids (1, h, w), (1, 1, h, w) or (1, h, w, 1)."""
    return tuple(ids.shape[1:3] if ids.ndim == 3 or ids.shape[3] == 1 else ids.shape[2:])


def lies_evenly(sides: Sequence[int], size: Tuple[int, int]) -> bool:
    """Return whether a map of (h, w) has one position for every s x s pixels of (width, height)."""
    whole = size[::-1]
    if min(sides) < 1 or (max(sides) == 1 < max(whole)):
        return False
    if any(side > most for side, most in zip(sides, whole)):
        return False
    return any(
        all(
            abs(side - most / stride) <= max(1, ROUNDING * most / stride)
            for side, most in zip(sides, whole)
        )
        for stride in range(1, max(whole) + 1)
    )


def class_axis(
    shape: Sequence[int],
    size: Tuple[int, int],
    channels_last: bool,
    num_classes: Optional[int] = None,
) -> Optional[int]:
    """Return which axis of logits has the classes: 1, or 3; None: they do not lie over the picture.

    Args:
        shape: of four axes.
        size: (width, height) of the picture.
        channels_last: the picture's are; only then the classes may be.
        num_classes: K, or 1 logit for 2; None: any.

    Raises:
        ValueError: either can be it.
    """
    width, height = size
    counts: Sequence[int] = range(1, IGNORE_INDEX + 1)
    if num_classes is not None:
        counts = (1, 2) if num_classes == 2 else (num_classes,)
    maps = {1: (shape[2], shape[3]), 3: (shape[1], shape[2])} if channels_last else {1: shape[2:]}
    fitting = [
        axis for axis, map_hw in maps.items()
        if shape[axis] in counts and lies_evenly(map_hw, size)
    ]  # fmt: skip
    whole = [axis for axis in fitting if height * maps[axis][1] == width * maps[axis][0]]
    found = whole or fitting  # of small maps, one that is a pixel off fits by chance
    if len(found) > 1:
        raise ValueError(
            f"gives {tuple(shape)}, whose classes can be first or last: export it with its picture "
            "as (1, 3, H, W)"
        )
    return found[0] if found else None


def _refuse_no_logit(value: Array) -> None:
    """Refuse one value for each pixel that is none, given the answer to noise."""
    if value.min() >= 0 and value.max() <= 1:
        raise ValueError(
            "gives one probability for each pixel, as after a sigmoid; expected the logit before "
            "it: export the file without its sigmoid"
        )
    if (value == np.rint(value)).all():
        raise ValueError(
            "gives whole numbers as floats, such as class ids; export the file with its ids as "
            "integers, or without its argmax"
        )


def _normalised_bytes(said: OwnFile) -> Array:
    """Return what each byte of each of the file's channels becomes, float32 (3, 256)."""
    if said.normalization not in STATISTICS:
        found = "" if said.normalization is None else f", not {said.normalization!r:.80}"
        raise ValueError(
            f"takes float pictures and does not say how they are normalised: --normalization "
            f"{_NAMES}{found} (a file with numbers of its own: fastseg-export)"
        )
    mean, std, scale = STATISTICS[said.normalization]
    order = slice(None, None, -1 if said.color == "bgr" else 1)
    mean_31, std_31 = (np.array(values)[order, None] for values in (mean, std))
    table: Array = ((np.arange(256) * (scale / 255) - mean_31) / std_31).astype(np.float32)
    return table
