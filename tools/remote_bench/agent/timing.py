"""Runs frames through a network and keeps every frame's times.

All times are CLOCK_MONOTONIC in s, the clock of the sampler, so power and frames share an axis.
"""

import time
from typing import Any, Callable, Dict, List, Optional, Sequence

_REPORT_S = 0.5
FIELDS = ("t", "total_ms", "pre_ms", "infer_ms", "post_ms")


class FrameLog:
    """Collects frames and hands them on twice a second, outside the timed part."""

    def __init__(self, send: Callable[[Dict[str, List[Any]]], None]) -> None:
        self._send = send
        self._rows: List[List[Any]] = []
        self._sent = time.monotonic()
        self.count = 0

    def add(self, begin: float, end: float, stages_s: Sequence[float]) -> None:
        """Keep one frame: when it began and what its parts took."""
        rounded = [round(1e3 * part, 4) for part in stages_s]
        self._rows.append([round(begin, 6), round(1e3 * (end - begin), 4), *rounded])
        self.count += 1
        if end - self._sent > _REPORT_S:
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
    least: int = 1,
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
