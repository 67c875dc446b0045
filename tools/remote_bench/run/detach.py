"""Runs that go on without this machine, and how their results are fetched later."""

import dataclasses
import json
import math
import re
from pathlib import Path

from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.strict_tables import from_table

from remote_bench.analysis.report import Report
from remote_bench.analysis.result import failed_result
from remote_bench.host.errors import UsageError
from remote_bench.host.local import cache_folder
from remote_bench.run.benchmark import Benchmark, Measurement, Prepared
from remote_bench.run.measurement import REBOOTED, Check, finish, report_of, unchecked
from remote_bench.run.preparation import Preparation

_RUN = re.compile(r"run-[a-z0-9_]{1,32}")


@dataclasses.dataclass(frozen=True)
class DetachedRun:
    """What this machine must remember of a run to fetch it."""

    run: str
    host: str
    benchmark: Benchmark
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


def start(measurement: Measurement) -> DetachedRun:
    """Begin a run that needs this machine no more, and return once it has begun."""
    benchmark = measurement.benchmark
    with measurement.connect() as board:
        prepared = Preparation(board, measurement).prepare()
        found = dataclasses.replace(prepared, bundle=prepared.bundle.absolute())  # from any folder
        run = DetachedRun(board.hello["run"], board.host.name, benchmark, found)
        run.save()
        board.request("agent", mode="run", request=prepared.request(benchmark, detach=True))
        board.request("detach")
        board.close()
    return run


def resume(run: DetachedRun, measurement: Measurement, check: Check = unchecked) -> Report:
    """Wait for a detached run, fetch it, clean up and return its report."""
    prepared = run.prepared
    with measurement.connect() as board:
        facts = board.request("attach", run=run.run)["facts"]
        if facts["boot_id"] != board.hello["boot_id"]:
            request = prepared.request(run.benchmark)
            result = failed_result(request, prepared.probe, "rebooted", REBOOTED)
            report = report_of(board, measurement, prepared, result)
            report = dataclasses.replace(report, board=board.finish())
        else:
            report = finish(board, measurement, prepared, check, silent_s=math.inf)
    run.forget()
    return dataclasses.replace(report, run_id=run.run)
