"""Pictures of a run: curves.png, predictions.png, confusion.png."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from fastseg_runtime.arrays.image import encode_rgb, resize_nearest
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec, palette
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastseg import CheckpointInfo
from fastseg.data import Array
from fastseg.fitting import covered
from fastseg.outputs import Reading
from fastseg_training.evaluate import predict, spec_of

ROWS = 4  # of predictions.png
MOST_NAMED = 40  # classes whose shares are written into the confusion matrix
GAP = 4  # pixels between its pictures


def draw_curves(metrics: Sequence[dict[str, Any]], path: Path | IO[bytes]) -> None:
    """Draw losses and mIoU over epochs from the lines of metrics.jsonl."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="epoch", ylabel="loss")
    axes.plot(
        [e["epoch"] for e in metrics], [e["loss"] for e in metrics], color="tab:blue", label="loss"
    )
    scored = [entry for entry in metrics if entry.get("miou") is not None]
    judged = [entry for entry in scored if entry.get("val_loss") is not None]
    axes.plot(
        [e["epoch"] for e in judged],
        [e["val_loss"] for e in judged],
        "--",
        color="tab:blue",
        label="validation loss, main head",
    )
    right = axes.twinx()
    right.set(ylabel="mIoU on the validation split", ylim=(0, 1))
    right.plot([e["epoch"] for e in scored], [e["miou"] for e in scored], "o-", color="tab:orange")
    axes.plot([], [], "o-", color="tab:orange", label="mIoU")
    axes.legend(loc="center right")
    figure.savefig(path, dpi=100)


def draw_predictions(
    model: nn.Module,
    batches: Iterable[Any],
    info: CheckpointInfo,
    path: Path,
    reading: Reading | None = None,
) -> None:
    """Write image, truth and prediction side by side for a few images spread over a set.

    Of each batch of normalised images and labels the first is looked at.
    """
    chosen: list[Any] = []
    stride = 1  # doubled when there are too many: no more than ROWS of a set are kept in memory
    for number, batch in enumerate(batches):
        if number % stride == 0:
            chosen.append(batch)
        if len(chosen) > ROWS:
            chosen, stride = chosen[::2], 2 * stride
    spec = spec_of(batches)
    rows = [_row(model, batch[0][:1], batch[1][0], info, reading, spec) for batch in chosen]
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(r, ((0, GAP), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows
    ]
    path.write_bytes(encode_rgb(np.concatenate(padded)[:-GAP]))


def _row(
    model: nn.Module,
    image_13HW: Tensor,
    label_HW: Tensor,
    info: CheckpointInfo,
    reading: Reading | None,
    spec: InputSpec | None,
) -> Array:
    classes_HW = predict(model, image_13HW, reading=reading)[0].cpu().numpy()
    image_13HW, classes_HW = (covered(x, label_HW.shape, spec) for x in (image_13HW, classes_HW))
    return side_by_side(image_13HW, label_HW.cpu().numpy(), classes_HW, info)


def side_by_side(
    image_13HW: Tensor, label_HW: Array, classes_HW: Array, info: CheckpointInfo
) -> Array:
    """Return a normalised image, its labels and its predicted class ids in a row, (h, w, 3)."""
    image_HW3 = info.input_normalization().restore(image_13HW)[0].cpu().numpy()
    height, width = image_HW3.shape[:2]
    truth_HW = resize_nearest(label_HW.astype(np.uint8), width, height)
    classes_HW = resize_nearest(classes_HW, width, height)
    color_256_3 = palette(info.classes)  # ignored pixels are black
    gap = np.full((height, GAP, 3), 255, np.uint8)
    parts = [image_HW3, gap, color_256_3[truth_HW], gap, color_256_3[classes_HW]]
    return np.concatenate(parts, 1)


def draw_confusion(
    confusion_KK: Array, classes: tuple[ClassInfo, ...], path: Path | IO[bytes]
) -> None:
    """Draw which share of each true class (rows) went to which prediction (columns)."""
    share_KK = confusion_KK / np.maximum(confusion_KK.sum(1, keepdims=True), 1)
    # Beyond MOST_NAMED the figure grows no more: 150 classes took 19 s and 3 GB.
    names, many = [info.name for info in classes], len(classes) > MOST_NAMED
    inches = 2.5 + 0.5 * min(len(classes), MOST_NAMED)
    figure = Figure(figsize=(inches, inches), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1)
    size = min(10.0, 10 * MOST_NAMED / len(names))
    axes.set_xticks(range(len(names)), names, rotation=90, size=size, parse_math=False)
    axes.set_yticks(range(len(names)), names, size=size, parse_math=False)
    axes.set(xlabel="prediction", ylabel="truth")
    for (row, column), share in np.ndenumerate(share_KK):
        if share >= 0.005 and not many:
            color = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=color, size=7)
    figure.savefig(path, dpi=100)
