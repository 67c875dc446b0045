"""Which labels to look at again, and which pictures to label next, as a network sees them.

A label is suspect where a network gives its class little probability. A picture's disagreement is 1
less the soft minimum of the labels' probabilities over its judged pixels, cleanlab's score of
labels for segmentation (Lad and Mueller, 2023): few pixels that are surely wrong count more than
many that are a little. What is shown of a picture is its doubt: the probability of the network's
class less that of the label's, 0 where they agree.

A picture without labels is worth labelling where the network is not sure, and where nothing like it
is labelled or chosen yet. Uncertainty is 1 less the probability of the most probable class less
that of the second, as a mean over pixels. What a picture is like is the mean probability of each
class and the mean colour in each cell of a grid. Chosen is, one after the other, the picture with
the largest product of uncertainty and distance to what is nearest of the labelled and the chosen
ones: the core-set choice of Sener and Savarese, 2018, weighted by uncertainty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from fastseg_runtime.arrays.image import resize_nearest
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from fastseg_runtime.engines.frame_runner import place
from torch.nn import functional as F

from fastseg import Network
from fastseg.data import Array, Sample, Samples
from fastseg.fitting import LETTERBOX, covered, fit_image
from fastseg_training.lessons import Frame

STRIDE = 4  # pixels of the network's input per judged one: wrong labels are regions, not pixels
TEMPERATURE = 0.1  # cleanlab's: the lower, the more the worst pixels count
GRID = 4  # cells on each side of what a picture is like
COLOR_WEIGHT = 0.5  # colours tell day from night where classes do not; classes count more
THUMB_WIDTH = 240  # pixels of a picture on the sheet


@dataclass(frozen=True)
class Thumbs:
    """Small pictures for the sheet, (h, w, 3) or (h, w) uint8; `label_hw` None: has none."""

    image_hw3: Array
    network_hw: Array
    label_hw: Array | None = None
    doubt_hw: Array | None = None


@dataclass(frozen=True)
class Suspect:
    """A labelled picture.

    Attributes:
        name: within the split.
        files: its picture and its label.
        disagreement: 0 to 1; 0 where no pixel is judged.
        unlabelled_share: of its pixels.
        pairs: shares of judged pixels that are labelled so and are another class for the network,
            by (label, network), the largest first, at most 3.
        likeness_F: what it is like.
        index: in the data set.
    """

    name: str
    files: tuple[str, ...]
    disagreement: float
    unlabelled_share: float
    pairs: tuple[tuple[str, str, float], ...]
    likeness_F: Array
    index: int

    def as_json(self, rank: int) -> dict[str, Any]:
        """Return what a machine reads."""
        keys = ("name", "files", "disagreement", "unlabelled_share")
        pairs = [{"label": a, "network": b, "share": share} for a, b, share in self.pairs]
        return {"rank": rank, **{key: getattr(self, key) for key in keys}, "pairs": pairs}


@dataclass(frozen=True)
class Candidate:
    """A picture without labels, in the order in which to label.

    Attributes:
        name: its file, with the number of the frame in a video.
        uncertainty: 0 to 1.
        novelty: distance to what is nearest of the labelled ones and of those before it.
        thumbs: for the sheet.
    """

    name: str
    uncertainty: float
    novelty: float
    thumbs: Thumbs

    def as_json(self, rank: int) -> dict[str, Any]:
        """Return what a machine reads."""
        return {"rank": rank, "name": self.name} | {
            key: getattr(self, key) for key in ("uncertainty", "novelty")
        }


def find_suspects(network: Network, samples: Samples) -> Iterator[Suspect]:
    """Look at labelled pictures, in the order of the data set."""
    names = [info.name for info in network.info.classes]
    for index in range(len(samples)):
        sample = samples[index]
        probability_Khw = probabilities(network, sample.image_HW3)
        height, width = probability_Khw.shape[1:]
        label_hw = resize_nearest(sample.label_HW, width, height)
        doubt_hw, network_hw = doubt(probability_Khw, label_hw)
        judged_hw = label_hw != IGNORE_INDEX
        yield Suspect(
            sample.name,
            sample.files,
            disagreement((probability_Khw.max(0) - doubt_hw)[judged_hw]),
            float((sample.label_HW == IGNORE_INDEX).mean()),
            _pairs(names, label_hw, network_hw),
            _likeness(probability_Khw, sample.image_HW3),
            index,
        )


def draw_suspect(network: Network, sample: Sample) -> Thumbs:
    """Return the small pictures of a labelled one."""
    probability_Khw = probabilities(network, sample.image_HW3)
    label_hw = resize_nearest(sample.label_HW, *probability_Khw.shape[:0:-1])
    doubt_hw, network_hw = doubt(probability_Khw, label_hw)
    doubt_hw = np.rint(doubt_hw * 255).astype(np.uint8)
    return Thumbs(_thumb(sample.image_HW3), network_hw, label_hw, doubt_hw)


def probabilities(network: Network, image_HW3: Array) -> Array:
    """Return the probability of each class, (K, h, w) float32, at 1/STRIDE of its input size."""
    spec = network.info.input_spec()
    fitted_HW3 = fit_image(image_HW3, spec)
    logits_1Khw = network.logits(torch.from_numpy(np.ascontiguousarray(fitted_HW3))[None]).float()
    if spec.resize == LETTERBOX:
        logits_1Khw = F.interpolate(logits_1Khw, size=(spec.height, spec.width), mode="bilinear")
        logits_1Khw = covered(logits_1Khw, image_HW3.shape[:2], spec)
    at = place(image_HW3.shape[:2], spec)
    size = (max(1, at.height // STRIDE), max(1, at.width // STRIDE))
    logits_1Khw = F.interpolate(logits_1Khw, size=size, mode="bilinear")
    probability_Khw: Array = logits_1Khw.softmax(1)[0].cpu().numpy()
    return probability_Khw


def disagreement(of_label_N: Array) -> float:
    """Return 1 less the soft minimum of the probabilities of labels, 0 where there are none."""
    if not of_label_N.size:
        return 0.0
    wrong_N = 1 - of_label_N.astype(np.float64)
    weight_N = np.exp((wrong_N - 1) / TEMPERATURE)
    return float((wrong_N * weight_N).sum() / weight_N.sum())


def doubt(probability_Khw: Array, label_hw: Array) -> tuple[Array, Array]:
    """Return the doubt of each pixel, (h, w) float32, 0 where nobody judged, and the class ids."""
    network_hw = probability_Khw.argmax(0).astype(np.uint8)
    judged_hw = label_hw != IGNORE_INDEX
    known_hw = np.where(judged_hw, label_hw, network_hw)
    of_label_hw = np.take_along_axis(probability_Khw, known_hw[None].astype(np.int64), 0)[0]
    return probability_Khw.max(0) - of_label_hw, network_hw


def choose_next(
    network: Network, frames: Iterable[Frame], labelled: Sequence[Suspect], most: int
) -> list[Candidate]:
    """Return pictures without labels in the order in which to label them, at most so many."""
    names, uncertainty, likeness, thumbs = [], [], [], []
    for frame in frames:
        probability_Khw = probabilities(network, frame.image_HW3)
        top_2hw = np.partition(probability_Khw, -2, axis=0)[-2:]
        names.append(frame.name)
        uncertainty.append(float(1 - (top_2hw[1] - top_2hw[0]).mean()))
        likeness.append(_likeness(probability_Khw, frame.image_HW3))
        thumbs.append(Thumbs(_thumb(frame.image_HW3), probability_Khw.argmax(0).astype(np.uint8)))
    order, novelty = _core_set(
        np.array(uncertainty), np.array(likeness), [one.likeness_F for one in labelled], most
    )
    return [
        Candidate(names[i], uncertainty[i], n, thumbs[i])
        for i, n in zip(order, novelty, strict=True)
    ]


def _core_set(
    uncertainty_N: Array, likeness_NF: Array, labelled: Sequence[Array], most: int
) -> tuple[list[int], list[float]]:
    """Return the indices of the chosen pictures, and the distance of each when it was chosen."""
    if not len(uncertainty_N):
        return [], []
    nearest_N = np.full(len(uncertainty_N), np.inf)
    for known_F in labelled or [likeness_NF.mean(0)]:
        nearest_N = np.minimum(nearest_N, np.linalg.norm(likeness_NF - known_F, axis=1))
    order: list[int] = []
    novelty: list[float] = []
    left_N = np.ones(len(uncertainty_N), bool)
    while left_N.any() and len(order) < most:
        worth_N = np.where(left_N, uncertainty_N * nearest_N, -1.0)
        best = int(worth_N.argmax())
        order.append(best)
        novelty.append(float(nearest_N[best]))
        left_N[best] = False
        distance_N = np.linalg.norm(likeness_NF - likeness_NF[best], axis=1)
        nearest_N = np.minimum(nearest_N, distance_N)
    return order, novelty


def _likeness(probability_Khw: Array, image_HW3: Array) -> Array:
    """Return mean probabilities and colours, 0 to 1, of each cell of a grid, (F,) float32."""
    classes_ggK = _cells(np.ascontiguousarray(probability_Khw.transpose(1, 2, 0)))
    colors_gg3 = _cells(image_HW3.astype(np.float32) / 255) * COLOR_WEIGHT
    return np.concatenate((classes_ggK.ravel(), colors_gg3.ravel())).astype(np.float32)


def _cells(values_hwC: Array) -> Array:
    channels = [
        cv2.resize(values_hwC[:, :, c], (GRID, GRID), interpolation=cv2.INTER_AREA)
        for c in range(values_hwC.shape[2])  # OpenCV resizes at most 4 channels at once
    ]
    return np.stack(channels, axis=-1)


def _pairs(
    names: Sequence[str], label_hw: Array, network_hw: Array
) -> tuple[tuple[str, str, float], ...]:
    judged_hw = label_hw != IGNORE_INDEX
    wrong_hw = judged_hw & (label_hw != network_hw)
    codes, counts = np.unique(
        label_hw[wrong_hw].astype(int) * 256 + network_hw[wrong_hw], return_counts=True
    )
    largest = sorted(zip(counts.tolist(), codes.tolist(), strict=True), reverse=True)[:3]
    total = max(1, int(judged_hw.sum()))
    return tuple((names[code >> 8], names[code & 255], count / total) for count, code in largest)


def _thumb(image_HW3: Array) -> Array:
    height, width = image_HW3.shape[:2]
    size = (THUMB_WIDTH, max(1, round(height * THUMB_WIDTH / width)))
    return np.asarray(cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA))
