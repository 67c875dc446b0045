"""Several boards side by side, a thread each; Ctrl-C once cleans up, twice leaves at once."""

import contextlib
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import TypeVar

from fastseg_runtime.arrays.command import FAILED, INTERRUPTED
from fastseg_runtime.arrays.terminal import printable

from remote_bench.host.connect import Connector
from remote_bench.host.errors import BenchError, DeviceFailure, Unreachable
from remote_bench.host.host import Cancel
from remote_bench.host.live import LiveView, log, plain
from remote_bench.run.benchmark import Benchmark, Measurement

T = TypeVar("T")
_LOOK_S = 0.2  # how late a Ctrl-C is noticed
_CLEAN_SHARE = 0.1  # of a limit: of 15 minutes 90 s, and a board cleans up within 45 s


def _started(work: Callable[[], T]) -> Future[T | BenchError]:
    """Return what will come of some work; its thread is a daemon, which no exit waits for."""
    future: Future[T | BenchError] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BenchError as error:
            future.set_result(error)
        except BaseException as error:  # a mistake of ours, for the main thread
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _wait(futures: Iterable[Future[T | BenchError]], end: float = math.inf) -> bool:
    # Not join(): a Ctrl-C in it makes Python 3.11 believe that the thread has ended.
    while running := wait(futures, _LOOK_S).not_done:
        if time.monotonic() > end:
            break
    return not running


def _outcome(name: str, future: Future[T | BenchError], alone: bool) -> T | BenchError:
    if not future.done():
        return BenchError("the time is over; the board was left to clean up by itself")
    error = future.exception()
    if error is None or alone:
        return future.result()
    # What others measured took hours, and one board's answers may be anything.
    log.print(printable("".join(traceback.format_exception(error))), markup=False)
    return DeviceFailure(f"{name}: its work broke off: {plain(f'{type(error).__name__}: {error}')}")


def on_hosts(
    names: Sequence[str],
    connector: Connector,
    benchmark: Benchmark,
    work: Callable[[Measurement], T],
    limit_s: float = math.inf,
) -> dict[str, T | BenchError]:
    """Connect to hosts one by one (somebody may type passwords), then work on all at once.

    Args:
        names: of the hosts.
        connector: connects to them.
        benchmark: what is measured.
        work: what is done on each.
        limit_s: the longest that the work may take; called off a little earlier, so that it can
            clean up, and left alone then: boards clean up by themselves.

    Raises:
        KeyboardInterrupt: a second Ctrl-C; the boards clean up by themselves.
        Exception: what is no BenchError is a mistake of ours, raised where one host is alone; of
            several it is shown, and a DeviceFailure is that host's outcome.
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
            except OSError as error:  # a file of the user's that is not theirs to read, say
                outcomes[name] = Unreachable(f"{name}: no connection: {error}")
                continue
            stack.callback(host.close)
            each[name] = Measurement(host, benchmark, view.rows[name], cancel)
        with view:
            futures = {name: _started(partial(work, one)) for name, one in each.items()}
            begin = time.monotonic()
            try:
                if not _wait(futures.values(), begin + limit_s * (1 - _CLEAN_SHARE)):
                    cancel.set(FAILED, f"the {limit_s / 60:g} minutes are over")
                    _wait(futures.values(), begin + limit_s)
            except KeyboardInterrupt as stop:
                view.say("stopping, and cleaning the boards up; Ctrl-C again leaves that to them")
                cancel.set(getattr(stop, "exit_code", INTERRUPTED))
                _wait(futures.values())
            alone = len(names) == 1
            outcomes.update({n: _outcome(n, future, alone) for n, future in futures.items()})
    return {name: outcomes[name] for name in names}
