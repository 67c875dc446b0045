"""Time two ONNX graphs in turn in one run, and print a table in Markdown.

    python tools/export_figures/time_two_graphs.py before.onnx after.onnx camvid:PATH

For a change to what exporters write: export before and after it, and take both files out of their
bundles with fastseg-run --extract. The class map's time depends on the picture, so pictures of a
street, noise and a grey wall each have a row. One thread; the times are of its CPU, which counts
nothing of other processes but what they take from the caches.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from compare_models.timing import Floats, open_session, ratio_to
from fastseg_runtime.arrays.metrics import Array
from onnxruntime import InferenceSession
from scoring import pictures

ROUNDS, STREETS = 40, 4


def row(kind: str, images: list[Array], sessions: list[InferenceSession]) -> str:
    """Return a row of the table: all images of a kind, one after the other, count as one time."""
    before_ms, after_ms = times_in_turn(sessions, images)
    ratio = ratio_to(after_ms, before_ms)
    interval = f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
    times = f"{np.median(before_ms):.2f} | {np.median(after_ms):.2f}"
    return f"| {kind} | {times} | {interval} | {ratio.fastest:.3f} |"


def times_in_turn(sessions: list[InferenceSession], images: list[Array]) -> Floats:
    """Return the CPU ms of an image, by session and round; every second round runs backwards."""
    times_ms = np.empty((len(sessions), ROUNDS))
    for turn in range(ROUNDS):
        for index in range(len(sessions))[:: 1 - 2 * (turn % 2)]:
            sessions[index].run(None, {"image": images[0]})  # its weights are in the cache again
            start = time.process_time()
            for image_1HW3 in images:
                sessions[index].run(None, {"image": image_1HW3})
            times_ms[index, turn] = 1e3 * (time.process_time() - start) / len(images)
    return times_ms


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("data", help="a data set with a test split")
    arguments = parser.parse_args()
    paths = (arguments.before, arguments.after)
    sessions = [open_session(path.read_bytes(), threads=1) for path in paths]
    _, height, width, _ = sessions[0].get_inputs()[0].shape
    print(f"| {width}x{height} | before ms | after ms | after / before (95 %) | of the fastest |")
    print("|---|--:|--:|--:|--:|")
    noise_1HW3 = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    kinds = {
        "streets": pictures(arguments.data, "test", STREETS, (width, height)),
        "noise": [noise_1HW3],
        "grey": [np.full_like(noise_1HW3, 200)],
    }
    for kind, images in kinds.items():
        print(row(kind, images, sessions), flush=True)


if __name__ == "__main__":
    main()
