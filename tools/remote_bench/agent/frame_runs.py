"""The timed part of a run: warm-up, flat out, with and without the sampler in turn, paced."""

import os
import time
from typing import Any, Dict, List, Optional

from .channel import Channel
from .process import busy_cpu_seconds, cpu_seconds
from .sampler import Sampler
from .worker_client import Worker

_PATIENCE_S = 300.0  # beyond the time that was asked for
_LEAST_FRAMES = 3
_OVERHEAD_SHARE = 0.25  # of the run
_OVERHEAD_LEAST_S, _OVERHEAD_MOST_S = 1.0, 20.0  # shorter says nothing
_BLOCK_S, _BLOCK_FRAMES = 0.25, 5  # a block has at least that much: some samples, some frames
_LEAST_BLOCKS, _MOST_BLOCKS = 12, 80  # six pairs: the fewest whose median has an interval


class FrameRuns:
    """Has the worker run frames in slices, and keeps every frame in the result."""

    def __init__(
        self, worker: Worker, sampler: Sampler, channel: Channel, result: Dict[str, Any]
    ) -> None:
        self._worker, self._sampler = worker, sampler
        self._channel, self._result = channel, result

    def slice(self, name: str, seconds: float, fps: Optional[float] = None) -> None:
        """Run frames for some seconds, flat out or at a rate."""
        before, begin = self._cpu_now(), time.monotonic()

        def keep(columns: Dict[str, List[Any]]) -> None:
            self._keep(name, columns)
            done = round(time.monotonic() - begin, 1)
            rate = _rate(columns)
            self._channel.emit("progress", slice=name, done=done, total=seconds, fps=rate)

        answer = self._worker.ask(
            "run", seconds + _PATIENCE_S, keep, seconds=seconds, fps=fps, least=_LEAST_FRAMES
        )
        cpu = {key: [before[key], value] for key, value in self._cpu_now().items()}
        self._result["slices"].append(dict(answer, name=name, fps=fps, cpu_s=cpu))

    def measure_overhead(self, run_s: float) -> None:
        """Run many short blocks with and without the sampler in turn.

        The order of a pair changes from one to the next, so that a drift of the board cancels out.
        """
        seconds = min(_OVERHEAD_MOST_S, _OVERHEAD_SHARE * run_s)
        if seconds < _OVERHEAD_LEAST_S:
            return
        blocks = self._overhead_blocks(seconds)
        for number in range(blocks):
            sampled = number % 4 in (1, 2)
            if not sampled:
                self._sampler.pause()
            try:
                self.slice("with_sampler" if sampled else "without_sampler", seconds / blocks)
            finally:
                self._sampler.resume()

    def _overhead_blocks(self, seconds: float) -> int:
        flat_out = self._result["slices"][-1]
        frame_s = (flat_out["end"] - flat_out["begin"]) / flat_out["frames"]
        blocks = int(seconds / max(_BLOCK_S, _BLOCK_FRAMES * frame_s))
        return 2 * (min(_MOST_BLOCKS, max(_LEAST_BLOCKS, blocks)) // 2)

    def _keep(self, name: str, columns: Dict[str, List[Any]]) -> None:
        frames = self._result["frames"].setdefault(name, {})
        for field, values in columns.items():
            frames.setdefault(field, []).extend(values)
        self._channel.note(slice=name, frames=columns)

    def _cpu_now(self) -> Dict[str, Optional[float]]:
        return {
            "busy": busy_cpu_seconds(),
            "worker": cpu_seconds(self._worker.pid),
            "supervisor": cpu_seconds(os.getpid()),
        }


def _rate(columns: Dict[str, List[Any]]) -> Optional[float]:
    span = columns["t"][-1] - columns["t"][0] + columns["total_ms"][-1] / 1e3
    return round(len(columns["t"]) / span, 3) if span > 0 else None
