"""Flicker before and after steadying, the mIoU that it costs, and its time.

python tools/runtime_figures/measure_steadiness.py BUNDLE camvid:PATH [VIDEO...]

The bundle is made with --confidence. CamVid's val split is a clip of 15 Hz, in order and with
labels. Flicker is the share of pixels that go A, B, A in three frames. The time is CPU time of one
thread, on the clip's maps brought to 1024x512.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from time import process_time

import cv2
import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.image import resize_nearest
from fastseg_runtime.arrays.metrics import Array, confusion_matrix, mean_iou
from fastseg_runtime.frames.steady import Steadier, flicker
from fastseg_runtime.frames.video import FrameSource

from fastseg.data import open_dataset

TIMED = (1024, 512)  # width, height


def main(bundle: str, data: str, *videos: str) -> None:
    """Print a line for each clip, and one for the time."""
    dataset = open_dataset(data, "val")
    clip = [dataset[index] for index in range(len(dataset))]
    labels = [sample.label_HW for sample in clip]
    with RealtimeSegmentation(bundle) as session:
        maps = infer(session, (np.ascontiguousarray(sample.image_HW3) for sample in clip))
        classes, count = len(session.classes), len(clip)
        steadied = steady(maps)
        raw, after = (
            mean_iou(sum_up(x, labels, classes)) for x in ([m for m, _ in maps], steadied)
        )
        told = f", mIoU {100 * raw:.2f} -> {100 * after:.2f}"
        print(f"{dataset.name} val, {count} frames: {describe(maps, steadied)}{told}")
        for video in videos:
            found = infer(session, FrameSource(video))
            told = describe(found, steady(found))
            print(f"{Path(video).name}, {len(found)} frames: {told}")
    print(f"time at {TIMED[0]}x{TIMED[1]}: {time_ms(maps):.2f} ms")


def infer(session: RealtimeSegmentation, frames: Iterable[Array]) -> list[tuple[Array, Array]]:
    """Return the class map and the confidence of each frame."""
    found = []
    for frame_HW3 in frames:
        confidence_HW = np.empty(frame_HW3.shape[:2], np.uint8)
        found.append((session.infer(frame_HW3, confidence=confidence_HW), confidence_HW))
    return found


def steady(maps: list[tuple[Array, Array]]) -> list[Array]:
    """Return the steadied class maps."""
    steadier = Steadier()
    return [steadier(*pair).copy() for pair in maps]


def sum_up(maps: list[Array], labels: list[Array], classes: int) -> Array:
    """Return the confusion matrix of a clip."""
    each = [confusion_matrix(*pair, classes) for pair in zip(maps, labels, strict=True)]
    total_KK: Array = np.sum(each, axis=0)
    return total_KK


def describe(maps: list[tuple[Array, Array]], steadied: list[Array]) -> str:
    """Return the flicker of both in words."""
    raw, after = (mean_flicker(x) for x in ([ids for ids, _ in maps], steadied))
    return f"flicker {100 * raw:.3f} % -> {100 * after:.3f} %, {after / raw:.2f}x"


def mean_flicker(maps: list[Array]) -> float:
    """Return the mean over all three frames in a row."""
    return float(
        np.mean([flicker(*three) for three in zip(maps, maps[1:], maps[2:], strict=False)])
    )


def time_ms(maps: list[tuple[Array, Array]]) -> float:
    """Return the median time of a frame."""
    large = [(resize_nearest(ids, *TIMED), cv2.resize(sure, TIMED)) for ids, sure in maps[:50]]
    steadier, times_s = Steadier(), []
    for pair in large:
        start = process_time()
        steadier(*pair)
        times_s.append(process_time() - start)
    return float(np.median(times_s[1:])) * 1e3


if __name__ == "__main__":
    main(*sys.argv[1:])
