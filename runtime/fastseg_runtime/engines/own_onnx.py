"""An ONNX file that fastseg-export did not make: what a user says of it, and how it is run here.

numpy closes the gap to what a session expects; a bundle made by fastseg-export has all of it in the
graph, and the proof beside it.
"""

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from fastseg_runtime.engines.image_port import ImagePort, image_port

# Name -> means, standard deviations (R, G, B) and what the byte 255 is before them.
STATISTICS: Dict[str, Tuple[Tuple[float, ...], Tuple[float, ...], int]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1),
    "unit": ((0.0,) * 3, (1.0,) * 3, 1),
    "centred": ((128.0,) * 3, (64.0,) * 3, 255),
}
MAIN_NAMES = ("out", "logits")  # torchvision's, transformers'
_NAMES = ", ".join(STATISTICS)


@dataclass(frozen=True)
class OwnFile:
    """What a user says of a file, in the words of the options; None: nothing."""

    size: Optional[str] = None
    normalization: Optional[str] = None
    color: Optional[str] = None
    output_name: Optional[str] = None
    threshold: Optional[float] = None


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
        self._session = session
        self._port: ImagePort = image_port(session.get_inputs())
        self.size = self._port.size_for(parse_size(said.size) if said.size else None)
        if said.color not in (None, "rgb", "bgr"):
            raise ValueError(f"color is {said.color!r:.80}; expected 'rgb' or 'bgr'")
        self._bgr = said.color == "bgr"
        self._table_3x256 = None if self._port.takes_bytes else _normalised_bytes(said)
        threshold = 0.5 if said.threshold is None else said.threshold
        if not 0 < threshold < 1:
            raise ValueError(f"threshold is {threshold}; expected more than 0, less than 1")
        self._logit = math.log(threshold / (1 - threshold))
        width, height = self.size
        names = [output.name for output in session.get_outputs()]
        found = self._run(names, np.zeros((1, height, width, 3), np.uint8))
        shapes = {name: np.asarray(value) for name, value in zip(names, found)}
        self._name = _chosen(shapes, said.output_name)
        self._refuse_probabilities()
        scores = self._scores(shapes[self._name])
        self.num_classes = scores.shape[1] if scores.ndim == 4 else None

    def _refuse_probabilities(self) -> None:
        # Of noise, one logit lies on both sides of 0 and 1; what a sigmoid gives never does.
        width, height = self.size
        image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
        value = np.asarray(self._run([self._name], image)[0])
        is_one = value.ndim == 4 and 1 in (value.shape[1], value.shape[3])
        if is_one and value.dtype.kind == "f" and value.min() >= 0 and value.max() <= 1:
            raise ValueError(
                "gives one probability for each pixel, as after a sigmoid; expected the logit "
                "before it: export the file without its sigmoid"
            )

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
            return self._full_size(value.reshape(1, *value.shape[-2:]))
        logits = value.astype(np.float32, copy=False)
        if self._port.channels_last and _covers(value.shape[1:3], self.size):
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


def _covers(sides: Tuple[int, ...], size: Tuple[int, int]) -> bool:
    """Return whether (h, w) may lie evenly over a picture of (width, height)."""
    return min(sides) > 1 and abs(sides[0] * size[0] - sides[1] * size[1]) <= max(size) * max(
        sides
    ) / min(sides)


def _fits(value: Array) -> bool:
    if value.dtype.kind == "f":
        return value.ndim == 4 and len(value) == 1
    planes = value.ndim == 3 or (value.ndim == 4 and value.shape[1] == 1)
    return value.dtype.kind in "iu" and planes and len(value) == 1


def _chosen(values: Dict[str, Array], name: Optional[str]) -> str:
    """Return which output has the logits or ids."""
    told = ", ".join(f"{key}: {x.dtype} {x.shape}" for key, x in values.items())[:300]
    fitting = [key for key, value in values.items() if _fits(value)]
    if name is not None and name not in fitting:
        raise ValueError(f"gives {told}; --output-name {name!r:.80} is none of these with scores")
    main = [key for key in fitting if key in MAIN_NAMES]
    chosen = [name] if name is not None else main if len(main) == 1 else fitting
    if not chosen:
        raise ValueError(f"gives {told}; expected logits (1, K, h, w) or class ids (1, H, W)")
    if len(chosen) > 1:
        raise ValueError(
            f"gives {told}; {' and '.join(chosen)} can all be the scores: say which, such as "
            f"--output-name {chosen[0]}"
        )
    value = values[chosen[0]]
    if value.dtype.kind == "f" and min(value.shape[1], value.shape[3]) > IGNORE_INDEX:
        raise ValueError(f"gives {told}; expected {IGNORE_INDEX} classes at most")
    return chosen[0]
