"""Engines that threads share: who has one, who waits, and which frames that made late."""

import logging
import threading
from contextlib import contextmanager
from queue import SimpleQueue
from time import perf_counter
from typing import Callable, Dict, Iterator, List, Optional, Sequence

from fastseg_runtime.engines.frame_runner import FrameRunner

log = logging.getLogger(__name__)
SAY_EVERY_S = 10.0  # of late frames


class LateFrames:
    """Counts frames that took longer than a deadline, in ms, and says so now and then."""

    def __init__(self, deadline_ms: Optional[float]) -> None:
        self._deadline_ms = deadline_ms
        self._lock, self._next_s = threading.Lock(), 0.0
        self.count = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time one frame, its wait for an engine included."""
        start_s = perf_counter()
        yield
        took_ms = 1e3 * (perf_counter() - start_s)
        if self._deadline_ms is None or took_ms <= self._deadline_ms:
            return
        with self._lock:
            self.count += 1
            says = perf_counter() > self._next_s
            self._next_s = perf_counter() + SAY_EVERY_S if says else self._next_s
        if says:
            text = "a frame took %.1f ms, more than deadline_ms=%g; late so far: %d"
            log.warning(text, took_ms, self._deadline_ms, self.count)


class EnginePool:
    """Lends engines to threads, one frame each at a time; who finds none free waits.

    Who has which stands in one place, written in one step: between two steps Ctrl-C may come, and
    an engine that stood nowhere would be lost, and waited for by close().
    """

    def __init__(self, runners: Sequence[FrameRunner], close: Callable[[], None]) -> None:
        self._runners, self._close = tuple(runners), close
        self._lent: Dict[object, FrameRunner] = {}  # by a mark of the frame that it works on
        self._lock = threading.RLock()
        self._bells: List[SimpleQueue[None]] = []  # novm: not evaluated in a function
        self._closing, self._closed = threading.Lock(), False

    @contextmanager
    def engine(self) -> Iterator[FrameRunner]:
        """Hold an engine.

        Raises:
            RuntimeError: the session is closed.
        """
        mark = object()
        try:
            self._wait_for(lambda: self._lend(mark))
            yield self._lent[mark]
        finally:
            try:
                self._take_back(mark)
            finally:  # which Ctrl-C may have ended
                self._take_back(mark)

    def _lend(self, mark: object) -> bool:
        self._refuse_if_closed()
        lent = set(self._lent.values())
        free = [runner for runner in self._runners if runner not in lent]
        if free:
            self._lent[mark] = free[0]
        return bool(free)

    def _take_back(self, mark: object) -> None:
        self._lent.pop(mark, None)
        self._ring()

    def _wait_for(self, is_done: Callable[[], bool]) -> None:
        """Ask again after each change; a threading.Condition, but Ctrl-C leaves no lock held."""
        while True:
            with self._lock:
                if is_done():
                    return
                bell: SimpleQueue[None] = SimpleQueue()  # novm: as above
                self._bells.append(bell)
            bell.get()

    def _ring(self) -> None:
        with self._lock:
            for bell in self._bells:
                bell.put(None)
            self._bells.clear()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise RuntimeError("this session is closed; open the model again")

    def exchange(
        self, runners: Sequence[FrameRunner], close: Callable[[], None]
    ) -> Callable[[], None]:
        """Lend other engines from now on.

        Returns:
            What waits for the frames in the old ones, and frees them.

        Raises:
            RuntimeError: the session is closed.
        """
        with self._closing, self._lock:
            self._refuse_if_closed()
            old, close_old = self._runners, self._close
            self._runners, self._close = tuple(runners), close
            self._ring()

        def free_old() -> None:
            self._wait_for(lambda: not set(old) & set(self._lent.values()))
            close_old()

        return free_old

    def close(self) -> None:
        """Wait for the frames under way, then free the engines; may be called twice."""
        with self._closing:
            if self._closed:
                return
            try:
                self._closed = True
                self._ring()  # for threads that wait: they are told
                self._wait_for(lambda: not self._lent)
            except BaseException:  # Ctrl-C may end the wait for one in use
                self._closed = False
                raise
            self._close()
