"""Engines that threads share: who has one, who waits, and which frames that made late."""

import logging
import threading
from contextlib import contextmanager, suppress
from queue import Empty, LifoQueue
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
    """Lends engines to threads, one frame each at a time; who finds none free waits."""

    def __init__(self, runners: Sequence[FrameRunner], close: Callable[[], None]) -> None:
        self._runners, self._close = tuple(runners), close
        self._free: LifoQueue[FrameRunner] = LifoQueue()  # novm: not evaluated in a function
        for runner in runners:
            self._free.put(runner)
        self._closing, self._closed = threading.Lock(), False
        self._moving = threading.Lock()  # held while engines come and go
        self._retired: Dict[FrameRunner, threading.Event] = {}

    @contextmanager
    def engine(self) -> Iterator[FrameRunner]:
        """Hold an engine.

        Raises:
            RuntimeError: the session is closed.
        """
        runner = self._free.get()
        try:
            if self._closed:
                raise RuntimeError("this session is closed; open the model again")
            yield runner
        finally:
            with self._moving:
                done = self._retired.pop(runner, None)
                if done is None:
                    self._free.put(runner)
                else:
                    done.set()

    def exchange(
        self, runners: Sequence[FrameRunner], close: Callable[[], None]
    ) -> Callable[[], None]:
        """Lend other engines from now on.

        Returns:
            What waits for the frames in the old ones, and frees them.

        Raises:
            RuntimeError: the session is closed.
        """
        with self._closing:
            if self._closed:
                raise RuntimeError("this session is closed; open the model again")
            with self._moving:
                free, close_old = set(), self._close
                with suppress(Empty):
                    while True:
                        free.add(self._free.get_nowait())
                busy = {old: threading.Event() for old in self._runners if old not in free}
                self._retired.update(busy)
                self._runners, self._close = tuple(runners), close
                for runner in runners:
                    self._free.put(runner)

        def free_old() -> None:
            for done in busy.values():
                done.wait()
            close_old()

        return free_old

    def close(self) -> None:
        """Wait for the frames under way, then free the engines; may be called twice."""
        with self._closing:
            if self._closed:
                return
            runners: List[FrameRunner] = []
            try:
                while len(runners) < len(self._runners):  # Ctrl-C may end the wait for one in use
                    runners.append(self._free.get())
                self._closed = True
                self._close()
            finally:
                for runner in runners:  # for threads that wait: they are told
                    self._free.put(runner)
