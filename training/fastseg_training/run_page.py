"""report.html of a run: curves, scores, confusion and the worst pictures, in one file.

No script and no outside file; the page's own policy forbids both. Every text is escaped, since
names of classes and files may hold anything.
"""

import heapq
import html
import io
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from fastseg_runtime.arrays.metrics import confusion_matrix, mean_iou
from fastseg_runtime.arrays.shared_files import write_file
from torch import Tensor

from fastseg import CheckpointInfo
from fastseg.data import Array
from fastseg_training.evaluate import Evaluation
from fastseg_training.pictures import draw_confusion, draw_curves, side_by_side
from fastseg_training.run_folder import RunFolder

WORST = 8  # pictures that are shown
WIDEST = 1200  # pixels of a row of three: the file is to stay below some megabytes
JPEG_QUALITY = 85
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
_STYLE = (
    "body{font:15px sans-serif;max-width:75em;margin:2em auto;padding:0 1em}img{max-width:100%}"
    "td,th{padding:.2em .8em;text-align:left}td.n{text-align:right}figure{margin:1em 0}"
)


@dataclass
class WorstPictures:
    """Keeps the pictures of an evaluation with the lowest mIoU; an Observer of evaluate().

    Attributes:
        classes: K.
        kept: (-mIoU, number, image (3, H, W), labels, predicted ids), a heap.
    """

    classes: int
    kept: list[tuple[float, int, Tensor, Array, Array]] = field(default_factory=list)

    def __call__(self, number: int, image_3HW: Tensor, label_HW: Array, classes_HW: Array) -> None:
        """Look at one picture; one without a judged pixel is passed over."""
        miou = mean_iou(confusion_matrix(classes_HW, label_HW, self.classes))
        if np.isnan(miou):
            return
        heapq.heappush(self.kept, (-miou, number, image_3HW, label_HW, classes_HW))
        if len(self.kept) > WORST:
            heapq.heappop(self.kept)


def write_page(
    run: RunFolder,
    evaluation: Evaluation | None,
    worst: WorstPictures,
    name_of_picture: Callable[[int], str],
    note: str,
) -> None:
    """Write report.html; the file is there whole or not at all.

    Args:
        run: the folder, with its metrics.
        evaluation: on the validation split, None without one.
        worst: pictures of that.
        name_of_picture: says which a number is.
        note: how the weights came to be these ones.
    """
    facts = {
        "trained on": run.info.trained_on,
        "command": run.info.training.get("command", ""),
        "weights": note,
    }
    curves = _drawn(lambda file: draw_curves(run.metrics(), file))
    parts = [_table(facts.items()), f"<h2>Curves</h2>{curves}"]
    if evaluation is not None:
        parts += [*_scores(run.info, evaluation), *_worst(run.info, worst, name_of_picture)]
    title = html.escape(run.path.name)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1>{''.join(parts)}</body></html>\n"
    )
    write_file(run.path / "report.html", page.encode("utf-8", "replace"))


def _scores(info: CheckpointInfo, evaluation: Evaluation) -> Iterator[str]:
    scores = evaluation.scores(info.classes)
    rows = {
        "mean IoU": scores["miou"],
        "share of pixels right": scores["pixel_accuracy"],
        **{f"IoU of {name}": iou for name, iou in scores["iou"].items()},
    }
    yield f"<h2>Scores of {evaluation.images} validation pictures</h2>"
    yield _table((name, _shown(value)) for name, value in rows.items())
    yield "<h2>What was taken for what</h2>"
    yield _drawn(lambda file: draw_confusion(evaluation.confusion_KK, info.classes, file))


def _worst(
    info: CheckpointInfo, worst: WorstPictures, name_of_picture: Callable[[int], str]
) -> Iterator[str]:
    yield "<h2>Worst pictures</h2><p>Picture, labels, prediction; black is not labelled.</p>"
    pictures = sorted(worst.kept, key=lambda kept: kept[:2], reverse=True)
    for minus_miou, number, image_3HW, label_HW, classes_HW in pictures:
        row = _row(side_by_side(image_3HW[None], label_HW, classes_HW, info))
        name = html.escape(name_of_picture(number))
        yield f"<figure>{row}<figcaption>{name}: mIoU {-minus_miou:.3f}</figcaption></figure>"


def _shown(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.3f}"


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    cells = (
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f"<table>{''.join(cells)}</table>"


def _drawn(draw: Callable[[Any], None]) -> str:
    file = io.BytesIO()
    draw(file)
    return _image("png", file.getvalue())


def _row(row_hw3: Array) -> str:
    factor = min(1.0, WIDEST / row_hw3.shape[1])
    row_hw3 = cv2.resize(row_hw3, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    _, encoded = cv2.imencode(".jpg", row_hw3[..., ::-1], quality)
    return _image("jpeg", encoded.tobytes())


def _image(kind: str, content: bytes) -> str:
    return f'<img alt="" src="data:image/{kind};base64,{b64encode(content).decode()}">'
