"""What became of a board whose connection broke in the middle of a run."""

import time

from remote_bench.host.errors import BenchError, Unreachable
from remote_bench.host.host import Host
from remote_bench.link.connection import Connection, Limits
from remote_bench.run.plan import Plan

_SEARCH_S = 20.0
_PAUSE_S = 2.0


def explain(host: Host, plan: Plan, boot_id: str | None, why: Unreachable) -> tuple[str, str]:
    """Look for the board for a while; return the kind and the message of the error.

    A new connection also removes what a run left that had no time to clean up.
    """
    end = time.monotonic() + _SEARCH_S
    while True:
        try:
            with Connection(
                host, Limits(start_s=_SEARCH_S), base=plan.base, keep=plan.keep, root=plan.root
            ) as session:
                return _compare(session.hello["boot_id"], boot_id, why)
        except BenchError as error:
            last = error
        if time.monotonic() > end:
            return "connection_lost", f"{why}; the board does not answer any more ({last})"
        time.sleep(_PAUSE_S)


def _compare(now: str | None, before: str | None, why: Unreachable) -> tuple[str, str]:
    if now != before:
        return "rebooted", "the board rebooted during the run; nothing was measured"
    return "connection_lost", f"{why}; the board is there and stops the run by itself"
