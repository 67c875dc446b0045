"""Draw README's picture: a frame, and what a network that ships makes of it.

python tools/docs_pictures/draw_result.py CLIP [FILE]      default: docs/images/result.jpg

The clip is vehicle_test_1280x720.mp4, which is test_video.mp4 of udacity/CarND-Vehicle-Detection
(MIT, docs/images/LICENSE-UDACITY.txt): a road that no labelled picture shows; it is
among the frames that networks labelled for the training.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from fastseg_runtime import RealtimeSegmentation

FILE = Path(__file__).parents[2] / "docs/images/result.jpg"
NETWORK = "lite-camvid"
WIDTH = 480  # of each half; README is read at some 900 pixels
QUALITY = 85  # below it the class map's edges fray


def main(clip: str, file: Path = FILE) -> None:
    """Write the first frame of a clip, its overlay and the legend as one JPEG."""
    there, frame_HW3 = cv2.VideoCapture(clip).read()
    if not there:
        raise SystemExit(f"{clip}: no frame; expected a video that OpenCV reads")
    with RealtimeSegmentation(NETWORK, color="bgr") as seg:
        drawn_HW3 = seg.overlay(frame_HW3, seg.infer(frame_HW3))
        legend_HW3 = seg.legend()[..., ::-1]
    height = frame_HW3.shape[0] * WIDTH // frame_HW3.shape[1]
    halves = [
        cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)
        for picture in (frame_HW3, drawn_HW3)
    ]
    below = height - legend_HW3.shape[0]
    legend_HW3 = np.pad(legend_HW3, ((0, below), (0, 0), (0, 0)), constant_values=255)
    picture_HW3 = np.concatenate([*halves, legend_HW3], axis=1)
    cv2.imwrite(str(file), picture_HW3, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
