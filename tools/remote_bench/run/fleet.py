"""Several boards side by side, a thread each; Ctrl-C once cleans up, twice leaves at once."""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Generic, TypeVar

from fastseg_runtime.arrays.command import INTERRUPTED

from remote_bench.host.connect import Connector
from remote_bench.host.errors import BenchError
from remote_bench.host.host import Host
from remote_bench.host.live import LiveView, log
from remote_bench.host.watch import Cancel, Watch

T = TypeVar("T")
_LOOK_S = 0.2


class Job(threading.Thread, Generic[T]):
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
    jobs = {name: Job(one) for name, one in work.items()}
    for job in jobs.values():
        job.start()
    try:
        _wait(jobs)
    except KeyboardInterrupt as stop:
        say("stopping, and cleaning the boards up; Ctrl-C again leaves that to them")
        cancel.set(getattr(stop, "exit_code", INTERRUPTED))
        _wait(jobs)
    return {name: job.outcome() for name, job in jobs.items()}


def _wait(jobs: Mapping[str, Job[T]]) -> None:
    # Not join(): a Ctrl-C in it makes Python 3.11 believe that the thread has ended.
    for job in jobs.values():
        while not job.done.wait(_LOOK_S):
            continue


def on_hosts(
    names: Sequence[str], connector: Connector, work: Callable[[Host, Watch, Cancel], T]
) -> dict[str, T | BenchError]:
    """Connect to hosts one by one (somebody may type passwords), then work on all at once."""
    view, cancel = LiveView(log, list(names)), Cancel()
    outcomes: dict[str, T | BenchError] = {}
    with contextlib.ExitStack() as stack:
        jobs: dict[str, Callable[[], T]] = {}
        for name in names:
            try:
                host = connector.connect(name, view.rows[name])
            except BenchError as error:
                outcomes[name] = error
                continue
            stack.callback(host.close)
            jobs[name] = partial(work, host, view.rows[name], cancel)
        with view:
            outcomes.update(run_side_by_side(jobs, cancel, view.say))
    return {name: outcomes[name] for name in names}
