"""Runs that go on without this machine, and how their results are fetched later."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.strict_tables import from_table

from remote_bench.analysis.summary import failed_result
from remote_bench.host.cache import cache_folder
from remote_bench.host.errors import UsageError
from remote_bench.host.host import Host
from remote_bench.host.watch import Cancel, Watch
from remote_bench.run.bench import finish, open_session, prepare, report_of
from remote_bench.run.plan import Plan, Prepared

_RUN = re.compile(r"run-[a-z0-9_]{1,32}")


@dataclasses.dataclass(frozen=True)
class DetachedRun:
    """What this machine must remember of a run to fetch it."""

    run: str
    host: str
    plan: Plan
    prepared: Prepared

    def save(self) -> None:
        """Write it into the user's cache."""
        text = json.dumps(dataclasses.asdict(self), default=str)
        write_file(_file(self.run), text.encode())

    def forget(self) -> None:
        """Delete the record; the run was fetched."""
        _file(self.run).unlink(missing_ok=True)


def load_run(run: str) -> DetachedRun:
    """Return what start() remembered.

    Raises:
        UsageError: no such run was started from here.
    """
    file = _file(run)
    try:
        return from_table(DetachedRun, json.loads(file.read_text("utf-8")), str(file))
    except FileNotFoundError as error:
        known = sorted(file.stem for file in cache_folder("runs").glob("run-*.json"))
        raise UsageError(f"no detached run {run} was started from here; known: {known}") from error
    except ValueError as error:
        raise UsageError(f"{error}; fetch the run with the version that started it") from error


def _file(run: str) -> Path:
    if not _RUN.fullmatch(run):
        raise UsageError(f"expected a run such as run-x3k9a_zt, got {run!r}")
    return cache_folder("runs") / f"{run}.json"


def start(host: Host, plan: Plan, watch: Watch, cancel: Cancel) -> DetachedRun:
    """Begin a run that needs this machine no more, and return once it has begun."""
    with open_session(host, plan, watch) as session:
        prepared = prepare(session, plan, watch, cancel)
        run = DetachedRun(session.hello["run"], host.name, plan, prepared)
        run.save()
        request = prepared.request(plan, detach=True)
        session.request("agent", mode="run", request=request)
        session.request("detach")
        session.close()
    return run


def resume(run: DetachedRun, host: Host, watch: Watch, cancel: Cancel) -> dict[str, Any]:
    """Wait for a detached run, fetch it, clean up and return its report."""
    plan, prepared = run.plan, run.prepared
    with open_session(host, plan, watch) as session:
        facts = session.request("attach", run=run.run)["facts"]
        if facts["boot_id"] != session.hello["boot_id"]:
            message = "the board rebooted during the run; nothing was measured"
            raw = failed_result(prepared.request(plan), prepared.probe, "rebooted", message)
            report = report_of(session, plan, prepared, raw)
            report["board"] = session.finish()
        else:
            report = finish(session, plan, prepared, watch, cancel, silent_s=math.inf)
    run.forget()
    return report | {"run_id": run.run}
