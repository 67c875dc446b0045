"""Scores of a network on labelled images, all from one confusion matrix, and its latency.

Shape letters: N batch, K classes, H and W pixels.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from fastseg_runtime.arrays.image import resize_nearest
from fastseg_runtime.arrays.metrics import (
    confusion_matrix,
    iou_per_class,
    mean_iou,
    occurring_classes,
)
from fastseg_runtime.arrays.terminal import printable
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, ClassInfo, InputSpec
from torch import Tensor, nn

from fastseg import CheckpointInfo, FastSegNet, Network
from fastseg.data import Array, DataError, Samples, Survey, open_dataset
from fastseg.data.class_list import class_mismatch, renamed_classes
from fastseg.data.loaders import DRAWN
from fastseg.fastsegnet import STRIDE
from fastseg.fitting import covered, fit_image
from fastseg.normalization import CENTRED, Normalization
from fastseg.outputs import Reading
from fastseg.own_code import own_code
from fastseg.progress import show_progress
from fastseg_training import distributed
from fastseg_training.config import ConfigError
from fastseg_training.distill import resized

TRIMAP_PIXELS = 3  # half width of the band around borders that boundary mIoU looks at
TTA_SCALES = (0.75, 1.0, 1.25)
# Takes the image's number, the normalised image (3, H, W), its labels and its predicted ids.
Observer = Callable[[int, Tensor, Array, Array], None]
LATENCY_RUNS = 10  # a median for the curves of a run; tools/compare_models measures in earnest


@dataclass(frozen=True)
class Evaluation:
    """Counts over a whole set.

    Attributes:
        confusion_KK: pixels by (truth, prediction).
        boundary_KK: the same for pixels close to a border between classes (trimap of Kohli,
            Ladicky, Torr, IJCV 2009).
        images: number of images.
        loss_sum: of the losses of all images; NaN where none was asked for.
    """

    confusion_KK: Array
    boundary_KK: Array
    images: int
    loss_sum: float = math.nan

    def gathered(self, device: torch.device) -> Self:
        """Return the counts of all processes together."""
        images, loss_sum = np.array(self.images), np.array(self.loss_sum)
        counts = (self.confusion_KK, self.boundary_KK, images, loss_sum)
        confusion_KK, boundary_KK, images, loss_sum = (distributed.total(c, device) for c in counts)
        return type(self)(confusion_KK, boundary_KK, int(images), float(loss_sum))

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that occur; NaN below two, where nothing was told apart."""
        return _mean_iou(self.confusion_KK)

    def metrics(self, classes: tuple[ClassInfo, ...]) -> dict[str, Any]:
        """Return what a line of metrics.jsonl says: mIoU if any, IoU of each class, loss."""
        scores, loss = self.scores(classes), self.loss_sum / max(self.images, 1)
        miou = {} if scores["miou"] is None else {"miou": scores["miou"]}
        return miou | {"iou": scores["iou"], "val_loss": _or_none(loss)}

    def scores(self, classes: tuple[ClassInfo, ...]) -> dict[str, Any]:
        """Return what --json prints: fractions, None where no pixel was there to judge."""
        return {
            "miou": _or_none(self.miou),
            "miou_classes": occurring_classes(self.confusion_KK),
            "iou": {
                info.name: _or_none(value)
                for info, value in zip(classes, iou_per_class(self.confusion_KK), strict=True)
            },
            "images": self.images,
            "pixel_accuracy": float(self.confusion_KK.trace() / max(self.confusion_KK.sum(), 1)),
            "boundary_miou": _or_none(_mean_iou(self.boundary_KK)),
            "boundary_pixels": TRIMAP_PIXELS,
        }


def _mean_iou(confusion_KK: Array) -> float:
    return mean_iou(confusion_KK) if occurring_classes(confusion_KK) > 1 else math.nan


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None  # JSON has no NaN


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    tta: bool = False,
    reading: Reading | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    observe: Observer | None = None,
    spec: InputSpec | None = None,
) -> Evaluation:
    """Count pixels by truth and prediction.

    Args:
        model: gives logits for normalised images; set to eval mode meanwhile.
        batches: float images (N, 3, H, W) and class ids (N, H', W'); predictions are resized to
            the labels where these are larger or smaller.
        num_classes: K.
        tta: average over mirror images and TTA_SCALES.
        reading: which of the model's outputs are its logits; None: the one that can be.
        loss: of logits and class ids of one batch, its mean.
        observe: is called for each image.
        spec: how labelled pictures were brought to the size of the images; None: stretched.
    """
    reading = reading or Reading(num_classes)
    confusion_KK, boundary_KK = np.zeros((2, num_classes, num_classes), np.int64)
    images, loss_sum = 0, math.nan if loss is None else 0.0
    for image_N3HW, label_NHW in batches:
        chance_NKHW = predict_chances(model, image_N3HW, tta, reading)
        size = label_NHW.shape[1:]
        image_N3HW, chance_NKHW = (covered(x, size, spec) for x in (image_N3HW, chance_NKHW))
        if loss is not None:
            with torch.inference_mode():
                mean = loss(chance_NKHW, label_NHW.to(chance_NKHW.device, torch.long))
            loss_sum += float(mean) * len(label_NHW)
        classes_NHW = chance_NKHW.argmax(1).to(torch.uint8).cpu().numpy()
        pairs = zip(image_N3HW, classes_NHW, label_NHW.cpu().numpy(), strict=True)
        for image_3HW, classes_HW, label_HW in pairs:
            height, width = label_HW.shape
            if classes_HW.shape != label_HW.shape:
                classes_HW = resize_nearest(classes_HW, width, height)
            confusion_KK += confusion_matrix(classes_HW, label_HW, num_classes)
            near_HW = np.where(boundary_band(label_HW), label_HW, IGNORE_INDEX)
            boundary_KK += confusion_matrix(classes_HW, near_HW, num_classes)
            if observe is not None:
                observe(images, image_3HW, label_HW, classes_HW)
            images += 1
    return Evaluation(confusion_KK, boundary_KK, images, loss_sum)


def predict(
    model: nn.Module, image_N3HW: Tensor, tta: bool = False, reading: Reading | None = None
) -> Tensor:
    """Return the class ids of normalised images, (N, H, W) uint8, in float32 arithmetic."""
    return predict_chances(model, image_N3HW, tta, reading).argmax(1).to(torch.uint8)


@torch.inference_mode()
def predict_chances(
    model: nn.Module, image_N3HW: Tensor, tta: bool = False, reading: Reading | None = None
) -> Tensor:
    """Return logits, with tta probabilities, at the size of the images, (N, K, H, W) float32."""
    device = next(model.parameters(), image_N3HW).device  # an ONNX file has no parameters
    image_N3HW, training = image_N3HW.to(device), model.training
    model.eval()
    try:
        chance = tta_probabilities if tta else full_size_logits
        return chance(model, image_N3HW, reading)
    finally:
        model.train(training)


def full_size_logits(
    model: nn.Module, image_N3HW: Tensor, reading: Reading | None = None
) -> Tensor:
    """Return the main logits at the size of the images, (N, K, H, W)."""
    logits_NKhw = (reading or Reading()).logits(model(image_N3HW), image_N3HW)
    return resized(logits_NKhw, image_N3HW.shape[-2:])


def tta_probabilities(
    model: nn.Module, image_N3HW: Tensor, reading: Reading | None = None
) -> Tensor:
    """Return probabilities averaged over TTA_SCALES and mirror images, (N, K, H, W).

    Raises:
        CheckpointError: a network of one's own takes no picture of one of the sizes.
    """
    size = image_N3HW.shape[-2:]
    # FastSegNet takes any size. Of others none is asked for that is less even than the picture's.
    even = [1 if isinstance(model, FastSegNet) else math.gcd(side, STRIDE) for side in size]
    total: Tensor | None = None
    for scale in TTA_SCALES:
        sides = [step * round(side * scale / step) for side, step in zip(size, even, strict=True)]
        scaled = F.interpolate(image_N3HW, size=sides, mode="bilinear")
        for flip in (False, True):
            with own_code(f"the network at {sides[1]}x{sides[0]}, which --tta asks for"):
                logits = full_size_logits(model, scaled.flip(-1) if flip else scaled, reading)
            logits = F.interpolate(logits.flip(-1) if flip else logits, size=size, mode="bilinear")
            total = logits.softmax(1) if total is None else total + logits.softmax(1)
    assert total is not None
    return total / (2 * len(TTA_SCALES))


def boundary_band(label_HW: Array, pixels: int = TRIMAP_PIXELS) -> Array:
    """Return which pixels have another class within `pixels` (Chebyshev distance), (H, W) bool.

    Pixels that nobody judged count as another class: hand-drawn labels leave them as seams
    between classes.
    """
    label_HW = label_HW.astype(np.uint8)
    square = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    band_HW: Array = cv2.dilate(label_HW, square) != cv2.erode(label_HW, square)
    return band_HW


@dataclass(frozen=True)
class EvaluationBatches:
    """Single images at the network's size with labels at full size: what a device will see.

    Attributes:
        samples: a data set.
        size: (width, height) that the network runs at.
        normalization: what it takes.
        spec: how pictures come into that size; None: stretched.
    """

    samples: Samples
    size: tuple[int, int]
    normalization: Normalization = CENTRED
    spec: InputSpec | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.samples)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images (1, 3, H, W) and their class ids (1, H', W'), in order."""
        spec = self.spec or InputSpec(*self.size)
        for index in range(len(self)):
            sample = self.samples[index]
            image_HW3 = sample.image_HW3
            if image_HW3.shape[1::-1] != self.size:
                image_HW3 = fit_image(image_HW3, spec)
            image_1HW3 = torch.from_numpy(np.ascontiguousarray(image_HW3))[None]
            label_1HW = torch.from_numpy(sample.label_HW)[None]
            yield self.normalization.normalise(image_1HW3), label_1HW


def spec_of(batches: Iterable[Any]) -> InputSpec | None:
    """Return how pictures were brought to the size of the batches; None: not known here."""
    return batches.spec if isinstance(batches, EvaluationBatches) else None


def measure_latency_ms(model: nn.Module, info: CheckpointInfo, reading: Reading) -> float:
    """Return the median time from camera bytes to class ids, batch 1, on the model's device."""
    device = next(model.parameters()).device
    network = Network(model, info, "", "", reading.output_name, reading.threshold)
    graph = network.graph().to(device)
    image_1HW3 = torch.zeros(1, info.height, info.width, 3, dtype=torch.uint8, device=device)
    times_ms = []
    with torch.inference_mode():
        for _ in range(LATENCY_RUNS + 1):
            started = time.perf_counter()
            graph(image_1HW3).cpu()  # the copy waits for the device
            times_ms.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times_ms[1:])


def check_classes(network: Network, data: str, classes: Sequence[ClassInfo]) -> None:
    """Refuse a network that cannot be held against labels of these classes; say other names.

    Raises:
        ConfigError: the data has another number of classes, or the same ones in another order.
    """
    if wrong := class_mismatch(network.info.classes, data, classes):
        raise ConfigError(f"{network.name}: {wrong}")
    if said := renamed_classes(network.info.classes, data, classes):
        print(printable(said), file=sys.stderr)


def score_network(network: Network, data: str, split: str, tta: bool = False) -> Evaluation:
    """Run a network over the "val" or "test" split of a data set, with a progress bar on stderr.

    What has to be said of the data, such as what was left out of it, goes there too.

    Raises:
        ConfigError: the data has another number of classes, or the same ones in another order.
        DataError: the data cannot be opened, or its labels do not say what is right.
    """
    info, survey = network.info, Survey(open_dataset(data, split))
    check_classes(network, data, survey.dataset.classes)
    size = (info.width, info.height)
    spec = info.input_spec()
    batches = EvaluationBatches(survey, size, info.input_normalization(), spec)
    shown = show_progress(batches, "evaluating", len(batches))
    found = evaluate(network.model, shown, len(info.classes), tta, network.reading, spec=spec)
    if wrong := list(survey.unusable()):
        raise DataError("\n".join(f"{data}: {text}" for text in wrong))
    if survey.dataset.name not in DRAWN:
        for text in dict.fromkeys(survey.remarks(size, info.fit)):
            print(printable(text), file=sys.stderr)
    return found
