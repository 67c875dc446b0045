"""The engines of one session: each runs one frame at a time, for whichever thread comes first."""

import threading
from contextlib import contextmanager
from queue import LifoQueue
from typing import Callable, Iterator, List, Sequence

from fastseg_runtime.engines.frame_runner import FrameRunner


class EnginePool:
    """Lends engines to threads; who finds none free waits.

    Args:
        runners: the engines.
        close: frees them all.
    """

    def __init__(self, runners: Sequence[FrameRunner], close: Callable[[], None]) -> None:
        self._count, self._close = len(runners), close
        self._free: LifoQueue[FrameRunner] = LifoQueue()  # novm: not evaluated in a function
        for runner in runners:
            self._free.put(runner)
        self._closing, self._closed = threading.Lock(), False

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
            self._free.put(runner)

    def close(self) -> None:
        """Wait for the frames under way, then free the engines; may be called twice."""
        with self._closing:
            if self._closed:
                return
            runners: List[FrameRunner] = []
            try:
                while len(runners) < self._count:  # Ctrl-C may end the wait for one in use
                    runners.append(self._free.get())
                self._closed = True
                self._close()
            finally:
                for runner in runners:  # for threads that wait: they are told
                    self._free.put(runner)
