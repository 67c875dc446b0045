"""Segmentation metrics from one confusion matrix, in numpy alone.

Shape letters: H, W pixels, K classes. Rows of a confusion matrix are the truth, columns the
prediction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]
else:
    Array = np.ndarray  # numpy for Python 3.8 cannot be subscripted


def confusion_matrix(pred: Array, label: Array, num_classes: int, ignore_index: int = 255) -> Array:
    """Count pixels by (truth, prediction).

    Args:
        pred: class ids of any shape.
        label: class ids of the same shape; pixels with ignore_index do not count.
        num_classes: K.
        ignore_index: the label of pixels that nobody judged.

    Returns:
        (K, K) int64. Add up the matrices of all images before taking an IoU.

    Raises:
        ValueError: shapes differ, or an id is neither below K nor the ignored label.
    """
    if pred.shape != label.shape:
        raise ValueError(f"prediction {pred.shape} and label {label.shape} differ in shape")
    judged = label != ignore_index
    truth, guess = label[judged].astype(np.int64), pred[judged].astype(np.int64)
    for name, ids in (("label", truth), ("prediction", guess)):
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < num_classes:
            wrong = ids.min() if ids.min() < 0 else ids.max()
            raise ValueError(
                f"{name} holds class id {int(wrong)}; expected 0 to {num_classes - 1} "
                f"or {ignore_index} (ignore)"
            )
    counts = np.bincount(truth * num_classes + guess, minlength=num_classes * num_classes)
    matrix: Array = counts.reshape(num_classes, num_classes)
    return matrix


def iou_per_class(confusion: Array) -> Array:
    """Return the intersection over union of each class, (K,) float64; NaN where it is absent."""
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    iou: Array = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)
    return iou


def occurring_classes(confusion: Array) -> int:
    """Return how many classes occur in truth or prediction: what a mean IoU is the mean of.

    With one alone nothing was told apart: its IoU is 1, and says nothing.
    """
    return int(np.count_nonzero(confusion.sum(axis=0) + confusion.sum(axis=1)))


def mean_iou(confusion: Array) -> float:
    """Return the mean IoU over the classes that occur in truth or prediction; NaN if none does."""
    ious = iou_per_class(confusion)
    return float(np.nanmean(ious)) if np.isfinite(ious).any() else float("nan")


def labelled_miou(confusion: Array) -> float:
    """Return the mean IoU over the classes that the truth has; NaN if it has none.

    To hold two networks against each other on few pictures: a mean over the classes that occur in
    truth or prediction has another class for one of them where it gives a single stray pixel.
    """
    labelled = confusion.sum(axis=1) > 0
    return float(np.mean(iou_per_class(confusion)[labelled])) if labelled.any() else float("nan")


def agreement(a: Array, b: Array) -> float:
    """Return the fraction of pixels that two class maps give the same id."""
    if a.shape != b.shape:
        raise ValueError(f"class maps differ in shape: {a.shape} and {b.shape}")
    return float(np.mean(a == b))
