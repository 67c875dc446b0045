"""Frames through a pipeline that overlaps reading, inference and drawing.

Each stage is one thread, inference one per engine; the order is kept, and the engines, numpy and
OpenCV release the GIL. Between stages are short queues: a slow stage holds the fast ones back
instead of filling the memory.
"""

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Callable, Generator, Iterable, Iterator, List, Optional

from fastseg_runtime.arrays.metrics import Array

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
CAMERA = "camera:"  # begins the name of one, before its number
_END = object()
_POLL_S = 0.1  # how soon a waiting stage notices that the stream was closed


@dataclass(frozen=True)
class StreamFrame:
    """One frame that came through."""

    index: int  # among all frames, dropped ones included
    frame: Array  # (H, W, 3) uint8
    classes: Array  # (H, W) uint8
    picture: Any  # what draw() made; None without
    dropped: int  # frames dropped so far, in latest mode


def stream(
    session: Any,
    frames: Iterable[Any],
    draw: Optional[Callable[[Array, Array], Array]] = None,
    latest: bool = False,
    depth: int = 2,
) -> Generator[StreamFrame, None, None]:
    """Yield every frame with its class map, in order.

    Args:
        session: has infer(frame), which as many threads call as its `engines` says.
        frames: uint8 (H, W, 3); read in a thread of its own.
        draw: (frame, classes) to a picture, in a thread of its own.
        latest: for live cameras: the one frame that waits while the engine is busy is replaced
            by a newer one and counted as dropped. Else a slow consumer slows the source down.
        depth: frames that may wait between two stages.

    Raises:
        Whatever `frames`, the session or `draw` raise, in the caller. Closing the iterator, or
        leaving the loop, ends all threads.
    """
    pipeline = _Pipeline(depth, waiting=1 if latest else depth)
    pipeline.read(frames, latest)
    pipeline.add_map(lambda item: (*item, session.infer(item[1])), session.engines)
    if draw is not None:
        pipeline.add_map(lambda item: (*item, draw(item[1], item[2])))
    try:
        for item in pipeline.results():
            picture = item[3] if draw is not None else None
            yield StreamFrame(item[0], item[1], item[2], picture, pipeline.dropped)
    finally:
        pipeline.close()


class _Pipeline:
    """Threads joined by queues, which hold values, or futures that are to give them or an error."""

    def __init__(self, depth: int, waiting: int) -> None:
        self.dropped = 0
        self._depth, self._stop = depth, threading.Event()
        self._threads: List[threading.Thread] = []
        self._output: queue.Queue[Any] = queue.Queue(waiting)  # novm: not evaluated in a function

    def read(self, frames: Iterable[Any], latest: bool) -> None:
        """Start the first stage, which numbers the frames; a `latest` one takes a waiting place."""
        output = self._output

        def run() -> None:
            try:
                for item in enumerate(frames):
                    if self._stop.is_set():
                        return
                    if latest:
                        self._offer(output, item)
                    else:
                        self._put(output, item)
            except BaseException as error:  # raised again in the caller
                failed: Future[Any] = Future()  # novm: not evaluated in a function
                failed.set_exception(error)
                self._put(output, failed)
            self._put(output, _END)

        self._start(run)

    def add_map(self, apply: Callable[[Any], Any], threads: int = 1) -> None:
        """Start a stage that makes one item of each, in the same order."""
        items, turn = self._items(self._output), threading.Lock()
        output = self._output = queue.Queue(max(self._depth, threads))

        def run() -> None:
            while True:
                result: Future[Any] = Future()  # novm: not evaluated in a function
                with turn:  # who takes an item queues its result at once, before it is there
                    item = next(items, _END)
                    self._put(output, _END if item is _END else result)
                if item is _END:
                    return
                try:
                    result.set_result(apply(_value(item)))
                except BaseException as error:
                    result.set_exception(error)

        for _ in range(threads):
            self._start(run)

    def results(self) -> Iterator[Any]:
        """Yield what the last stage makes; raise what any stage raised."""
        return map(_value, self._items(self._output))

    def close(self) -> None:
        """End all threads; returns when they have ended, a blocking camera read aside."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _start(self, run: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def _put(self, output: "queue.Queue[Any]", item: Any) -> None:
        while not self._stop.is_set():
            try:
                output.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def _offer(self, output: "queue.Queue[Any]", item: Any) -> None:
        """Put an item into a queue in place of what waits there."""
        while not self._stop.is_set():
            try:
                output.put_nowait(item)
                return
            except queue.Full:
                try:
                    output.get_nowait()
                    self.dropped += 1
                except queue.Empty:
                    pass  # the engine took it meanwhile

    def _items(self, source: "queue.Queue[Any]") -> Iterator[Any]:
        while not self._stop.is_set():
            try:
                item = source.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if item is _END:
                return
            yield item


def _value(item: Any) -> Any:
    return item.result() if isinstance(item, Future) else item
