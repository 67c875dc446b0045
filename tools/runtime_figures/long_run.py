"""Many frames in a row: memory, late frames, and what a frame allocates."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.stats import quantiles

Array = np.ndarray[Any, Any]


def soak(bundle: Path, frames: int, now: Callable[[], float]) -> dict[str, float]:
    """Run many frames of a bundle of small size and look whether memory or time grow."""
    times_ms, rss_mb = np.empty(frames), []
    with RealtimeSegmentation(bundle) as session:
        frame, out = frame_and_out(session)
        for index in range(frames):
            start = now()
            session.infer(frame, out)
            times_ms[index] = 1e3 * (now() - start)
            if (index + 1) % (frames // 10) == 0:  # the first tenth allocates everything once
                rss_mb.append(resident_mb())
    halves = [float(quantiles(half, [0.99])[0]) for half in np.split(times_ms, 2)]
    return {
        "soak, frames": frames,
        "soak, largest RSS / RSS after a tenth": round(max(rss_mb) / rss_mb[0], 4),
        "soak, p99 of first half, ms": round(halves[0], 3),
        "soak, p99 of second half, ms": round(halves[1], 3),
    }


def bytes_within_a_frame(bundle: Path, target: str, frames: int = 20) -> int:
    """Return the most that memory rises within one infer() with `out`, by tracemalloc.

    numpy reports its arrays to tracemalloc: what is far below the size of a class map is Python's
    numbers, tuples and views.
    """
    with RealtimeSegmentation(bundle, target=target) as session:
        frame, out = frame_and_out(session)
        for _ in range(3):
            session.infer(frame, out)
        tracemalloc.start()
        most = 0
        for _ in range(frames):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            session.infer(frame, out)
            most = max(most, tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
    return most


def frame_and_out(session: RealtimeSegmentation) -> tuple[Array, Array]:
    """Return a noise frame of the input's size and an array for its class ids."""
    size = (session.input.height, session.input.width)
    frame_HW3 = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return frame_HW3, np.empty(size, np.uint8)


def resident_mb() -> float:
    """Return this process's resident memory (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
