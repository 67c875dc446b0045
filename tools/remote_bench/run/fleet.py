"""Several boards side by side, a thread each; Ctrl-C once cleans up, twice leaves at once."""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

from fastseg_runtime.arrays.command import INTERRUPTED

from remote_bench.host.connect import Connector
from remote_bench.host.errors import BenchError
from remote_bench.host.host import Cancel
from remote_bench.host.live import LiveView, log
from remote_bench.run.benchmark import Benchmark, Measurement

T = TypeVar("T")
_LOOK_S = 0.2  # how late a Ctrl-C is noticed


class BoardThread(threading.Thread, Generic[T]):
    """One board's work, and what came of it: `value` or `error`."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.value: T | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """Do it."""
        try:
            self.value = self._work()
        except BaseException as error:  # told in the main thread
            self.error = error
        finally:
            self.done.set()

    def outcome(self) -> T | BenchError:
        """Return what came of it; what is no BenchError is a mistake of ours, and raised."""
        if isinstance(self.error, BenchError):
            return self.error
        if self.error is not None:
            raise self.error
        assert self.value is not None
        return self.value


def run_side_by_side(
    work: Mapping[str, Callable[[], T]],
    cancel: Cancel,
    say: Callable[[str], None],
) -> dict[str, T | BenchError]:
    """Do all work at once and return what came of each, by name.

    Raises:
        KeyboardInterrupt: a second Ctrl-C; the boards clean up by themselves.
        Exception: what is no BenchError is a mistake of ours.
    """
    threads = {name: BoardThread(one) for name, one in work.items()}
    for thread in threads.values():
        thread.start()
    try:
        _wait(threads)
    except KeyboardInterrupt as stop:
        say("stopping, and cleaning the boards up; Ctrl-C again leaves that to them")
        cancel.set(getattr(stop, "exit_code", INTERRUPTED))
        _wait(threads)
    return {name: thread.outcome() for name, thread in threads.items()}


def _wait(threads: Mapping[str, BoardThread[T]]) -> None:
    # Not join(): a Ctrl-C in it makes Python 3.11 believe that the thread has ended.
    for thread in threads.values():
        while not thread.done.wait(_LOOK_S):
            continue


def on_hosts(
    names: Sequence[str],
    connector: Connector,
    benchmark: Benchmark,
    work: Callable[[Measurement], T],
) -> dict[str, T | BenchError]:
    """Connect to hosts one by one (somebody may type passwords), then work on all at once."""
    view, cancel = LiveView(log, list(names)), Cancel()
    outcomes: dict[str, T | BenchError] = {}
    with contextlib.ExitStack() as stack:
        each: dict[str, Callable[[], T]] = {}
        for name in names:
            try:
                host = connector.connect(name, view.rows[name])
            except BenchError as error:
                outcomes[name] = error
                continue
            stack.callback(host.close)
            each[name] = partial(work, Measurement(host, benchmark, view.rows[name], cancel))
        with view:
            outcomes.update(run_side_by_side(each, cancel, view.say))
    return {name: outcomes[name] for name in names}
