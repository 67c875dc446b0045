"""What a confidence costs: infer() with one over infer() of the plain artifact, in one run.

python tools/runtime_figures/confidence_cost.py PLAIN.fastseg CONFIDENT.fastseg PICTURES [FRAMES]

Both bundles are of the same network and size, the second made with --confidence. CPU time; the
two take turns on the same frame, of the input's size, so that whatever else the machine does falls
on both.
"""

import sys
from pathlib import Path
from time import process_time

import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.image import SUFFIXES, read_image, resize_bilinear

WARM_UP = 5


def main(plain: str, confident: str, pictures: str, frames: str = "200") -> None:
    """Print the medians of both, and the median of the ratios of neighbouring calls."""
    files = sorted(f for f in Path(pictures).iterdir() if f.suffix.lower() in SUFFIXES)
    chosen = [files[index * len(files) // 10] for index in range(10)]
    with (
        RealtimeSegmentation(plain, threads=1) as without,
        RealtimeSegmentation(confident, threads=1) as with_it,
    ):
        size = (without.input.width, without.input.height)
        images = [resize_bilinear(read_image(file), *size) for file in chosen]
        ids_HW, confidence_HW = np.empty((2, *images[0].shape[:2]), np.uint8)
        times_s = []
        for index in range(WARM_UP + int(frames)):
            frame_HW3 = images[index % len(images)]
            start = process_time()
            without.infer(frame_HW3, ids_HW)
            middle = process_time()
            with_it.infer(frame_HW3, ids_HW, confidence_HW)
            times_s.append((middle - start, process_time() - middle))
        plain_ms, confident_ms = np.median(times_s[WARM_UP:], axis=0) * 1e3
        ratios = [b / a for a, b in times_s[WARM_UP:]]
        print(
            f"{without.info.target} at {size[0]}x{size[1]}, {frames} frames, one thread, CPU time"
        )
        print(f"without {plain_ms:.2f} ms, with {confident_ms:.2f} ms, {np.median(ratios):.3f}x")


if __name__ == "__main__":
    main(*sys.argv[1:])
