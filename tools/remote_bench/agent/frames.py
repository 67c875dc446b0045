"""The frames of a run: in memory before the clock starts, timed one by one, judged afterwards.

Without a folder they are the bundle's own self-test images, so that what is timed is also checked.
A folder holds NAME.npy (uint8, (H, W, 3), RGB) and, where there are labels, NAME.label.npy (uint8,
(H, W)), as the workstation prepares them: a bare board need not read PNG or video.

All times are CLOCK_MONOTONIC in s, the clock of the sampler, so power and frames share an axis.
"""

import glob
import os
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

_MOST_BYTES = 256 * 1024 * 1024  # they lie in the board's memory, beside the network
_REPORT_S = 0.5  # as often as somebody looks at a progress bar
_REPORT_FRAMES = 10_000  # some 40 bytes each: well below the longest message
FIELDS = ("t", "total_ms", "pre_ms", "infer_ms", "post_ms")


class Frame(NamedTuple):
    """One image with what is expected of it."""

    image_HW3: Any
    reference_HW: Optional[Any]  # PyTorch's class map, of a self-test image
    label_HW: Optional[Any]  # the truth


def folder_frames(folder: str) -> List[Frame]:
    """Return the frames of a prepared folder in the order of their names, 256 MB at most.

    Raises:
        ValueError: the folder holds no frame, or a file is not of the described form.
    """
    import numpy as np

    frames: List[Frame] = []
    held = 0
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*.npy"))):
        if path.endswith(".label.npy"):
            continue
        image = _load(np, path, 3)
        label_path = path[: -len(".npy")] + ".label.npy"
        label = _load(np, label_path, 2) if os.path.exists(label_path) else None
        held += image.nbytes
        if held > _MOST_BYTES and frames:
            break
        frames.append(Frame(image, None, label))
    if not frames:
        raise ValueError(f"{folder} holds no frames; expected NAME.npy files")
    return frames


def _load(np: Any, path: str, dimensions: int) -> Any:
    array = np.load(path, allow_pickle=False)
    good = array.dtype == np.uint8 and array.ndim == dimensions
    if not good or (dimensions == 3 and array.shape[2] != 3):
        raise ValueError(f"{path}: expected uint8 with {dimensions} axes, got {array.dtype}")
    return array


class FrameLog:
    """Collects frames and hands them on twice a second, outside the timed part."""

    def __init__(self, send: Callable[[Dict[str, List[Any]]], None]) -> None:
        self._send = send
        self._rows: List[List[Any]] = []
        self._sent = time.monotonic()

    def add(self, begin: float, end: float, stages_s: Sequence[float]) -> None:
        """Keep one frame: when it began and what its parts took."""
        rounded = [round(1e3 * part, 4) for part in stages_s]
        self._rows.append([round(begin, 6), round(1e3 * (end - begin), 4), *rounded])
        if end - self._sent > _REPORT_S or len(self._rows) >= _REPORT_FRAMES:
            self.flush()

    def flush(self) -> None:
        """Hand on what is there."""
        if self._rows:
            columns = [list(column) for column in zip(*self._rows)]
            self._send(dict(zip(FIELDS, columns)))
        self._rows = []
        self._sent = time.monotonic()


def run_frames(
    infer: Callable[[int], Sequence[float]],
    seconds: float,
    fps: Optional[float],
    log: FrameLog,
    least: int,
) -> Dict[str, Any]:
    """Run frames for some seconds, flat out or paced.

    Args:
        infer: takes the number of the frame and returns the seconds in pre-processing, inference
            and post-processing.
        seconds: how long.
        fps: None for flat out; else frames start at this rate, and a frame that is late starts at
            once (late frames are counted, and none is dropped).
        log: gets every frame.
        least: run at least so many frames, however long that takes.

    Returns:
        {"begin", "end", "frames", "late"}; FPS is frames / (end - begin).
    """
    begin = time.monotonic()
    late = number = 0
    while number < least or _elapsed(begin, number, fps) < seconds:
        if fps is not None:
            late += _wait_until(begin + number / fps)
        start = time.monotonic()
        stages_s = infer(number)
        log.add(start, time.monotonic(), stages_s)
        number += 1
    if fps is not None:
        _wait_until(begin + number / fps)  # the last frame has its period like the others
    end = time.monotonic()
    log.flush()
    return {"begin": begin, "end": end, "frames": number, "late": late}


def _elapsed(begin: float, number: int, fps: Optional[float]) -> float:
    # A paced run is as long as its frames' periods, a flat-out one as its wall time.
    return time.monotonic() - begin if fps is None else number / fps


def _wait_until(due: float) -> int:
    # Return 1 if the time was over already, else sleep until it comes.
    delay = due - time.monotonic()
    if delay > 0:
        time.sleep(delay)
        return 0
    return int(delay < -1e-3)
