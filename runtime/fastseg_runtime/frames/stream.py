"""Frames through a pipeline that overlaps reading, inference and drawing.

Each stage is one thread, inference one per engine; the order is kept, and the engines, numpy and
OpenCV release the GIL. Between stages are short queues: a slow stage holds the fast ones back
instead of filling the memory.
"""

import copy as copying
import math
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import (
    Any,
    Callable,
    Generator,
    Iterable,
    Iterator,
    List,
    Optional,
    Protocol,
    Tuple,
    runtime_checkable,
)

import numpy as np

from fastseg_runtime.arrays.image import as_frame
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.strict_tables import check_above_0, checked_count
from fastseg_runtime.engines.backend import on_gpu
from fastseg_runtime.frames.steady import Steadier

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_END = object()
_POLL_S = 0.1  # how soon a waiting stage notices that the stream was closed


class VideoError(OSError):
    """A video or camera cannot be read, gives nothing more, or cannot be written."""


@runtime_checkable
class Source(Protocol):
    """Frames that say more of themselves, each an array of its own."""

    is_live: bool
    stall_s: Optional[float]

    def __iter__(self) -> Iterator[Any]:
        """Yield frames."""

    def time_s(self) -> float:
        """Return when the newest frame was taken."""

    def close(self) -> None:
        """Free the source; may come from another thread."""


@dataclass(frozen=True)
class StreamFrame:
    """One frame that came through."""

    index: int  # among all frames, dropped ones included
    frame: Array  # (H, W, 3) uint8
    classes: Array  # (H, W) uint8
    picture: Any  # what draw() made; None without
    dropped: int  # frames dropped so far, in latest mode
    late: int  # frames so far whose map came later after reading than the session's deadline_ms
    time_s: float  # of capture: in a file from its start, else on the clock time.monotonic()
    confidence: Optional[Array] = None  # (H, W) uint8, of infer(), where it was asked for


def stream(
    session: Any,
    frames: Iterable[Any],
    draw: Optional[Callable[[Array, Array], Any]] = None,
    latest: Optional[bool] = None,
    depth: int = 2,
    copy: bool = True,
    stall_s: Optional[float] = None,
    stop: Optional[threading.Event] = None,
    confidence: bool = False,
    steady: bool = False,
) -> Generator[StreamFrame, None, None]:
    """Yield every frame with its class map, in order.

    Args:
        session: has infer(frame), which as many threads call as its `engines` says.
        frames: uint8 (H, W, 3), read in a thread of its own; or a Source, which is closed then.
        draw: (frame, classes) to a picture, in a thread of its own.
        latest: for live cameras: the one frame that waits while the engine is busy is replaced
            by a newer one and counted as dropped. Else a slow consumer slows the source down.
            None: True for a Source that is live.
        depth: frames that may wait between two stages, 1 or more.
        copy: copy frames, and arrays that `draw` gives, so that the next one may be written to the
            same memory, as rings of cameras do. False where each is an array of its own.
        stall_s: seconds without a frame after which the source is given up; None: a Source's own
            limit, else none.
        stop: ends the stream once it is set, also while the source blocks.
        confidence: also give how sure the network is, of an artifact exported with --confidence.
        steady: damp flicker by that: a pixel keeps its class until the new one is believed.

    Raises:
        Whatever `frames`, the session or `draw` raise, in the caller. Closing the iterator, or
        leaving the loop, ends all threads; one in which the source blocks ends after that.
        ValueError: a depth below 1, which is no bound to a queue, or a stall_s of 0 or below.
        VideoError: no frame came for `stall_s`.
    """
    depth = checked_count("depth", depth)
    check_above_0("stall_s", stall_s, "seconds")
    source = frames if isinstance(frames, Source) else None
    if source is not None:
        latest = source.is_live if latest is None else latest
        stall_s = source.stall_s if stall_s is None else stall_s
    clock = time.monotonic if source is None else source.time_s
    keeps = copy and source is None  # a source of ours gives new arrays, as overlay() does
    copies_pictures = copy and draw != getattr(session, "overlay", None)

    deadline_ms = getattr(session, "deadline_ms", None) or math.inf
    color = getattr(session, "color", "rgb")

    def stamp(frame: Any) -> Tuple[Any, float, float]:
        read_s = time.monotonic()
        is_ours = not keeps and isinstance(frame, np.ndarray)  # a batch, it may be
        array = frame if is_ours else _as_array(frame, color)
        return (_owned(array) if keeps else array), clock(), read_s

    def infer(item: Any) -> Any:
        frame, _, read_s = item[1]
        wanted = {"confidence": np.empty(frame.shape[:2], np.uint8)} if confidence or steady else {}
        classes = session.infer(frame, **wanted)
        is_late = 1e3 * (time.monotonic() - read_s) > deadline_ms
        return (*item, (classes, is_late, wanted.get("confidence")))

    steadier = Steadier()

    def settle(item: Any) -> Any:
        classes, is_late, sure = item[2]
        return (*item[:2], (steadier(classes, sure).copy(), is_late, sure))

    def paint(frame: Any, classes: Array) -> Any:
        picture = draw(frame, classes) if draw else None
        return _owned(picture) if copies_pictures else picture

    def results() -> Generator[StreamFrame, None, None]:  # not begun, it holds no thread
        late = 0
        pipeline = _Pipeline(depth, waiting=1 if latest else depth)
        pipeline.read(map(stamp, frames), bool(latest))
        pipeline.add_map(infer, session.engines)
        if steady:
            pipeline.add_map(settle)
        if draw is not None:
            pipeline.add_map(lambda item: (*item, paint(item[1][0], item[2][0])))
        try:
            for index, frame, maps, *drawn in pipeline.results(stall_s, stop):
                late += maps[1]
                picture = drawn[0] if drawn else None
                yield StreamFrame(
                    index, frame[0], maps[0], picture, pipeline.dropped, late, frame[1], maps[2]
                )
        finally:
            pipeline.close()
            if source is not None:
                source.close()

    return results()


def _as_array(frame: Any, color: str) -> Any:
    return frame if on_gpu(frame) else as_frame(frame, color)


def _owned(array: Any) -> Any:
    """Return a copy of an array; what is none stays as it is."""
    if on_gpu(array):
        return copying.deepcopy(array)
    return array.copy() if isinstance(array, np.ndarray) else array


class _Pipeline:
    """Threads joined by queues, which hold values, or futures that are to give them or an error."""

    def __init__(self, depth: int, waiting: int) -> None:
        self.dropped = 0
        self._depth, self._stop = depth, threading.Event()
        self._asked_s: Optional[float] = None  # when the source was asked for what it has not given
        self._threads: List[threading.Thread] = []
        self._output: queue.Queue[Any] = queue.Queue(waiting)  # novm: not evaluated in a function

    def read(self, frames: Iterable[Any], latest: bool) -> None:
        """Start the first stage, which numbers the frames; a `latest` one takes a waiting place."""
        output = self._output

        def run() -> None:
            try:
                for item in enumerate(self._timed(frames)):
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

        self._reader = self._start(run)

    def _timed(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Yield the frames, and note since when the next one is waited for."""
        self._asked_s = time.monotonic()
        try:
            for frame in frames:
                self._asked_s = None
                yield frame
                self._asked_s = time.monotonic()
        finally:
            self._asked_s = None

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

    def results(self, stall_s: Optional[float], stop: Optional[threading.Event]) -> Iterator[Any]:
        """Yield what the last stage makes; raise what any stage raised."""

        while not (stop is not None and stop.is_set()):
            try:
                item = self._output.get(timeout=_POLL_S)
            except queue.Empty:
                asked_s = self._asked_s
                if stall_s is None or asked_s is None or time.monotonic() < asked_s + stall_s:
                    continue
                raise VideoError(f"the source gave no frame for {stall_s:g} s") from None
            if item is _END:
                return
            yield _value(item)

    def close(self) -> None:
        """End all threads; returns when they have ended, one in which the source blocks aside."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=2 * _POLL_S if thread is self._reader else 5)

    def _start(self, run: Callable[[], None]) -> threading.Thread:
        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()
        return self._threads[-1]

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
