"""Is a network as sure as it is right? The temperature of its confidence, and what gap is left.

The temperature is fitted on every second verification picture, by the log loss of "this pixel's
class is right" under the confidence that the runtime gives, in the frame. What an artifact then
gives is held against PyTorch's on all pictures, and against the labels on the other half.

Shape letters: K classes, h and w the size of the logits, H and W the picture's, B bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from fastseg_runtime.engines.frame_runner import FrameFit, PlaneToFrame

from fastseg import FastSegNet, Network
from fastseg.outputs import kind_of_probabilities
from fastseg_exporters.convert.progress import Progressing, silent
from fastseg_exporters.gate.reference import Scene, VerificationSet

BINS = 15  # as in Guo et al., 2017
# Twelve of them double the temperature; networks of others have needed 0.7 to 4.
TEMPERATURES = tuple(float(t) for t in np.geomspace(0.25, 8, 61))
NEUTRAL = 1.0
STEP_PX = 3  # every third pixel of every third row is enough to fit one number to
# Mean difference from PyTorch's, a fraction: fp16 and palettes round, int8 computes otherwise.
MOST_ERROR, MOST_ERROR_INT8 = 0.01, 0.05


@dataclass(frozen=True)
class ReferenceConfidence:
    """PyTorch's confidence of the verification pictures.

    Attributes:
        temperature: that its logits are divided by.
        fitted_on: how many pictures it was fitted on; 0: it is neutral.
        maps: of each picture, uint8 (H, W).
        ece_before: expected calibration error at a temperature of 1, on the other pictures; None:
            nothing has a label.
    """

    temperature: float
    fitted_on: int
    maps: Sequence[Array]
    ece_before: float | None

    def counts_for_report(self, index: int) -> bool:
        """Return whether a picture is of the half that the temperature has not seen."""
        return bool(self.fitted_on) and index % 2 == 1


@dataclass
class Reliability:
    """How often pixels of each confidence are right."""

    _right: Array = field(default_factory=lambda: np.zeros(BINS))
    _sure: Array = field(default_factory=lambda: np.zeros(BINS))
    _count: Array = field(default_factory=lambda: np.zeros(BINS))

    def add(self, confidence_HW: Array, classes_HW: Array, label_HW: Array) -> None:
        """Count a picture: its confidence, its ids, and what is right; all uint8."""
        known = label_HW != IGNORE_INDEX
        sure, right = confidence_HW[known] / 255, (classes_HW == label_HW)[known]
        bins = np.minimum((sure * BINS).astype(int), BINS - 1)
        self._count += np.bincount(bins, minlength=BINS)
        self._sure += np.bincount(bins, sure, BINS)
        self._right += np.bincount(bins, right, BINS)

    @property
    def error(self) -> float | None:
        """Return the expected calibration error, a fraction; None: nothing was counted."""
        total = self._count.sum()
        return float(np.abs(self._right - self._sure).sum() / total) if total else None


def reference_confidence(
    network: Network,
    scenes: VerificationSet,
    keep_norms: Sequence[str] = (),
    progress: Progressing = silent,
) -> ReferenceConfidence:
    """Fit the temperature of a network, and return what it makes of the pictures.

    Args:
        network: what artifacts are made of.
        scenes: fitted on every second of them, if they have labels.
        keep_norms: batch norms that are not to be folded.
        progress: told how far it is.

    Raises:
        ValueError: it gives probabilities, of which no confidence comes by another softmax.
    """
    # Twice through the pictures: the logits of all of them, at full size, would be gigabytes.
    sure_of, losses, fitted = _reader(network, keep_norms), np.zeros(len(TEMPERATURES)), 0
    for index, scene in enumerate(scenes):
        if scene.label_HW is not None and index % 2 == 0:
            progress("calibrating the confidence", index, 2 * len(scenes))
            sure = sure_of(scene)
            losses += [_loss(sure.in_frame(t), scene) for t in TEMPERATURES]
            fitted += 1
    temperature = TEMPERATURES[int(losses.argmin())] if fitted else NEUTRAL
    before, maps = Reliability(), []
    for index, scene in enumerate(scenes):
        progress("calibrating the confidence", len(scenes) + index, 2 * len(scenes))
        sure = sure_of(scene)
        maps.append(sure.in_frame(temperature))
        if scene.label_HW is not None and index % 2 and fitted:
            before.add(sure.in_frame(NEUTRAL), scene.reference_HW, scene.label_HW)
    return ReferenceConfidence(temperature, fitted, maps, before.error)


class _Sure:
    """The confidence of one picture at any temperature, by the definition."""

    def __init__(self, network: Network, logits_Khw: torch.Tensor, size: tuple[int, int]) -> None:
        self._logits_Khw, self._size = logits_Khw, size
        spec = network.info.input_spec()
        padded = isinstance(network.model, FastSegNet)
        self._to_frame = PlaneToFrame(tuple(logits_Khw.shape[1:]), size, spec, padded)

    def in_frame(self, temperature: float) -> Array:
        """Return it, uint8 (H, W)."""
        sure_hw = (self._logits_Khw / temperature).softmax(dim=0).amax(dim=0) * 255
        confidence_HW = np.empty(self._size, np.uint8)
        self._to_frame(sure_hw.round().to(torch.uint8).numpy(), confidence_HW)
        return confidence_HW


def _reader(network: Network, keep_norms: Sequence[str]) -> Callable[[Scene], _Sure]:
    """Return what gives the confidence of a picture; the graph is built once.

    Raises:
        ValueError, when called: the network gives probabilities.
    """
    graph, info = network.graph("logits", keep_norms=keep_norms), network.info
    spec, size = info.input_spec(), (info.height, info.width)

    def sure_of(scene: Scene) -> _Sure:
        fit = FrameFit(scene.image_HW3.shape[:2], spec, size, swap=False)
        with torch.inference_mode():
            logits_Khw = graph(torch.from_numpy(fit.to_input(scene.image_HW3).copy()))[0]
        # Faint logits lie between 0 and 1 too, as after a sigmoid; they do not add up to 1.
        if kind_of_probabilities(logits_Khw[None]) == "softmax":
            raise ValueError(
                f"--confidence is made of logits, and {network.name} gives probabilities; leave "
                "the softmax out of its forward()"
            )
        return _Sure(network, logits_Khw, scene.image_HW3.shape[:2])

    return sure_of


def _loss(confidence_HW: Array, scene: Scene) -> float:
    """Return the mean log loss of a picture's pixels being right as surely as that."""
    cut = np.s_[::STEP_PX, ::STEP_PX]
    label_hw, sure_hw = np.asarray(scene.label_HW)[cut], confidence_HW[cut]
    known = label_hw != IGNORE_INDEX
    right = (scene.reference_HW[cut] == label_hw)[known]
    # Bytes at the middle of what rounds to them: a sure pixel that is wrong costs no infinity.
    sure = (sure_hw[known] + 0.5) / 256
    losses = -np.log(np.where(right, sure, 1 - sure))
    return float(losses.mean()) if losses.size else 0.0
