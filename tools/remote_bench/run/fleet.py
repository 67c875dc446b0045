"""Several boards side by side, a thread each; Ctrl-C once cleans up, twice leaves at once."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import TypeVar

from fastseg_runtime.arrays.command import INTERRUPTED

from remote_bench.host.connect import Connector
from remote_bench.host.errors import BenchError
from remote_bench.host.host import Cancel
from remote_bench.host.live import LiveView, log
from remote_bench.run.benchmark import Benchmark, Measurement

T = TypeVar("T")
_LOOK_S = 0.2  # how late a Ctrl-C is noticed


def _started(work: Callable[[], T]) -> Future[T | BenchError]:
    """Return what will come of some work; its thread is a daemon, which no exit waits for."""
    future: Future[T | BenchError] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BenchError as error:
            future.set_result(error)
        except BaseException as error:  # a mistake of ours, raised in the main thread
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _wait(futures: Iterable[Future[T | BenchError]]) -> None:
    # Not join(): a Ctrl-C in it makes Python 3.11 believe that the thread has ended.
    while wait(futures, _LOOK_S).not_done:
        continue


def on_hosts(
    names: Sequence[str],
    connector: Connector,
    benchmark: Benchmark,
    work: Callable[[Measurement], T],
) -> dict[str, T | BenchError]:
    """Connect to hosts one by one (somebody may type passwords), then work on all at once.

    Raises:
        KeyboardInterrupt: a second Ctrl-C; the boards clean up by themselves.
        Exception: what is no BenchError is a mistake of ours.
    """
    view, cancel = LiveView(log, list(names)), Cancel()
    outcomes: dict[str, T | BenchError] = {}
    with contextlib.ExitStack() as stack:
        each: dict[str, Measurement] = {}
        for name in names:
            try:
                host = connector.connect(name, view.rows[name])
            except BenchError as error:
                outcomes[name] = error
                continue
            stack.callback(host.close)
            each[name] = Measurement(host, benchmark, view.rows[name], cancel)
        with view:
            futures = {name: _started(partial(work, one)) for name, one in each.items()}
            try:
                _wait(futures.values())
            except KeyboardInterrupt as stop:
                view.say("stopping, and cleaning the boards up; Ctrl-C again leaves that to them")
                cancel.set(getattr(stop, "exit_code", INTERRUPTED))
                _wait(futures.values())
            outcomes.update({name: future.result() for name, future in futures.items()})
    return {name: outcomes[name] for name in names}
