"""Draw docs/images/streets*.jpg: roads of another continent, and what shipped networks see there.

    git show 74fb543:fastseg/weights/small-camvid.safetensors > small-before.safetensors
    python tools/docs_pictures/draw_streets.py CLIPS small-before.safetensors [FOLDER]

CLIPS is a folder of dashcam frames. The small of that commit, 0.582 on CamVid, is the last that
knew CamVid alone.

The clips and stills are of udacity/CarND-LaneLines-P1, CarND-Vehicle-Detection and
CarND-Advanced-Lane-Lines (MIT, docs/images/LICENSE-UDACITY.txt). No network was chosen by them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.metrics import Array

FOLDER = Path(__file__).parents[2] / "docs/images"
NETWORKS = ("small-camvid", "lite-camvid", "lite-camvid-cs")
PAGES = {
    "streets.jpg": (
        ("solidWhiteRight_960x540.mp4", 100),
        ("vehicle_test_1280x720.mp4", 20),
        ("stills/straight_lines1.jpg", 0),
        ("stills/test2.jpg", 0),
        ("stills/test5.jpg", 0),
    ),
    "streets-stills.jpg": (
        ("stills/straight_lines2.jpg", 0),
        ("stills/test1.jpg", 0),
        ("stills/test3.jpg", 0),
        ("stills/test4.jpg", 0),
        ("stills/test6.jpg", 0),
    ),
}
SIZE = (288, 162)  # of each picture; five beside another are read at some 1500 pixels
QUALITY = 62  # pages keep pictures below 150 kB


def read_frame(file: Path, index: int) -> Array:
    """Return one frame of a video, or a picture, BGR."""
    capture = cv2.VideoCapture(str(file))
    capture.set(cv2.CAP_PROP_POS_FRAMES, index)
    there, frame_HW3 = capture.read()
    if not there:
        raise SystemExit(f"{file}: no frame {index}; expected the clips that the docstring names")
    return frame_HW3


def main(clips: str, before: str, folder: str = str(FOLDER)) -> None:
    """Write the pages."""
    for page, rows in PAGES.items():
        frames = [read_frame(Path(clips) / name, index) for name, index in rows]
        draw_page(frames, before, Path(folder) / page)


def draw_page(frames: Sequence[Array], before: str, file: Path) -> None:
    """Write a row a frame: the frame, then the overlay of a network of before and of each now."""
    columns, names = [frames], ["frame"]
    for network in (before, *NETWORKS):
        with RealtimeSegmentation(network, color="bgr") as seg:
            columns.append([seg.overlay(frame, seg.infer(frame)) for frame in frames])
            legend_HW3 = seg.legend()[..., ::-1]
        names.append(Path(network).stem)
    drawn = [np.concatenate([_titled(name, SIZE[0]), *map(_shrunk, column)])
             for name, column in zip(names, columns, strict=True)]  # fmt: skip
    page_HW3 = np.concatenate(drawn, axis=1)
    legend_HW3 = cv2.copyMakeBorder(
        legend_HW3, 0, max(page_HW3.shape[0] - legend_HW3.shape[0], 0), 0, 0,
        cv2.BORDER_CONSTANT, value=(255, 255, 255),
    )[: page_HW3.shape[0]]  # fmt: skip
    page_HW3 = np.concatenate([page_HW3, legend_HW3], axis=1)
    cv2.imwrite(str(file), page_HW3, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))


def _shrunk(picture_HW3: Array) -> Array:
    return cv2.resize(picture_HW3, SIZE, interpolation=cv2.INTER_AREA)


def _titled(name: str, width: int) -> Array:
    strip_HW3 = np.full((24, width, 3), 255, np.uint8)
    cv2.putText(strip_HW3, name, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return strip_HW3


if __name__ == "__main__":
    main(*sys.argv[1:])
