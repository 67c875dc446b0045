"""One measurement on one board, from the lock to the report.

connect, lock, send the agent, probe (read-only), choose and send the bundle, build, self-test,
settle, idle, run, idle, restore, fetch, deploy, clean up, report. Leaving it anywhere leaves the
board as it was: the keeper at the other end sees to that.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastseg_runtime.arrays.strict_tables import TableError

from remote_bench.analysis.comparison import LEAST
from remote_bench.analysis.report import Deployment, Report
from remote_bench.analysis.result import MOST_BYTES, Result, failed_result, read_result
from remote_bench.analysis.summary import summarise
from remote_bench.host.adb import AdbHost
from remote_bench.host.errors import (
    BenchError,
    BoardBusy,
    DeviceFailure,
    MissingRequirement,
    Unreachable,
    UsageError,
    failure_of,
)
from remote_bench.link.connection import Connection
from remote_bench.run.benchmark import BUNDLE, TOOL, Measurement, Prepared
from remote_bench.run.bundles import describe
from remote_bench.run.meter import Meter
from remote_bench.run.phone import measure_phone
from remote_bench.run.preparation import DEPLOYED, Preparation

_KILLED = (-9, 137)  # by SIGKILL: as the parent sees it, and as a shell between them does
_SAID_CHARACTERS = 500  # of the agent's stderr: the end of a trace
_PAUSE_S = 2.0  # between two looks for a lost board
Check = Callable[[Report], Report]  # holds a report against --require and --strict
REBOOTED = (
    "the board rebooted during the run; nothing was measured. See that its power supply is strong "
    "enough, and measure again"
)


def unchecked(report: Report) -> Report:
    """Return a report as it is, where nothing is required."""
    return report


def measure(measurement: Measurement, check: Check = unchecked) -> Report:
    """Measure and return the report; a run that failed on the board gives one too.

    Args:
        measurement: of one host.
        check: says what is required, before anything is deployed.

    Raises:
        BenchError: it did not come to a run, or was called off.
    """
    if isinstance(measurement.host, AdbHost):
        return measure_phone(measurement.host, measurement)
    with measurement.connect() as board:
        prepared = Preparation(board, measurement).prepare()
        request = prepared.request(measurement.benchmark)
        try:
            board.request("agent", mode="run", request=request)
            return finish(board, measurement, prepared, check)
        except Unreachable as error:
            result = lost_result(board, measurement, prepared, error)
            return report_of(board, measurement, prepared, result)


def finish(
    board: Connection,
    measurement: Measurement,
    prepared: Prepared,
    check: Check = unchecked,
    silent_s: float | None = None,
) -> Report:
    """Follow a run to its end, fetch, deploy if it is good, clean up; return the report."""
    ended = follow(board, measurement, prepared, silent_s)
    measurement.watch.phase("fetch")
    result = fetch_result(board, measurement, prepared, ended)
    report = check(report_of(board, measurement, prepared, result))
    if measurement.benchmark.deploy and report.error is None:
        deployed = _deploy(board, measurement.benchmark.deploy, report)
        report = dataclasses.replace(report, deployed=deployed)
    measurement.watch.phase("clean up")
    try:
        return dataclasses.replace(report, board=board.finish())
    except (DeviceFailure, Unreachable) as error:  # what is measured and fetched stays so
        measurement.watch.note(
            f"measured and fetched; not cleaned up, which the next run there does: {error}"
        )
        return report


def measure_in_turns(
    measurement: Measurement, bundles: tuple[Path, Path], rounds: int
) -> tuple[list[Report], list[Report], str]:
    """Measure two bundles on one locked board in the order A B, B A, A B ...; one run a turn.

    A run that fails ends it; the whole rounds before it are returned where they tell something.

    Returns:
        The reports of each, and what failed; "": nothing.

    Raises:
        BenchError: it did not come to a run, or one failed too early.
    """
    sides = [dataclasses.replace(measurement.benchmark, bundle=bundle) for bundle in bundles]
    each = [dataclasses.replace(measurement, benchmark=side) for side in sides]
    reports: tuple[list[Report], list[Report]] = ([], [])
    with measurement.connect() as board:
        preparation = Preparation(board, each[0])
        first = preparation.prepare()
        both = (first, preparation.bring(first.probe, sides[1], f"b.{BUNDLE}"))
        for turn in range(2 * rounds):
            side = (0, 1, 1, 0)[turn % 4]
            measurement.watch.note(f"run {turn + 1} of {2 * rounds}: {bundles[side].name}")
            try:
                reports[side].append(_turn(board, each[side], both[side]))
            except (BoardBusy, DeviceFailure, MissingRequirement, Unreachable) as error:
                whole = min(map(len, reports))
                if whole < LEAST:
                    raise
                failed = f"a run failed, and compared are the {whole} a side before it: {error}"
                return reports[0][:whole], reports[1][:whole], failed
    return *reports, ""


def _turn(board: Connection, measurement: Measurement, prepared: Prepared) -> Report:
    board.request("agent", mode="run", request=prepared.request(measurement.benchmark))
    ended = follow(board, measurement, prepared)
    result = fetch_result(board, measurement, prepared, ended)
    report = report_of(board, measurement, prepared, result)
    if report.error:
        failure = failure_of(report.error.kind)
        raise failure(f"{measurement.benchmark.bundle}: {report.error.message}")
    return report


def follow(
    board: Connection,
    measurement: Measurement,
    prepared: Prepared | None = None,
    silent_s: float | None = None,
) -> dict[str, Any]:
    """Show the run's events until it ends, and read the user's meter beside it.

    Returns:
        "ended": its "status" and "stderr", the last "error", and the "meter".
    """
    with Meter(prepared.device.power.command if prepared else ()) as meter:
        ended = _follow(board, measurement, meter, silent_s)
    return {**ended, "meter": meter}


def _follow(
    board: Connection, measurement: Measurement, meter: Meter, silent_s: float | None
) -> dict[str, Any]:
    watch, error = measurement.watch, None
    for event in board.agent_events(silent_s):
        measurement.cancel.check()
        if event is None:
            continue
        if event["event"] == "phase":
            meter.phase(str(event.get("name")))
            watch.phase(str(event.get("name")))
        elif event["event"] == "progress":
            watch.progress(*(_number(event.get(key)) for key in ("done", "total", "fps")))
        elif event["event"] == "note":
            watch.note(str(event.get("text"))[:_SAID_CHARACTERS])
        elif event["event"] == "error":
            error = event
        elif event["event"] == "ended":
            return {**event, "error": error}
    raise AssertionError("agent_events() ends with ended")


def _number(value: object) -> float:
    """Return a number that a board sent, 0 for anything else."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def fetch_result(
    board: Connection, measurement: Measurement, prepared: Prepared, ended: dict[str, Any]
) -> Result:
    """Return the run's result, or one that says how the agent died."""
    status = ended["status"]
    if status in (0, 1):
        content = board.get("result.json", MOST_BYTES)
        try:
            result = read_result(content)
            return dataclasses.replace(result, meter=ended["meter"].readings(result.phases))
        except TableError as error:
            raise DeviceFailure(
                f"{board.host.name}: not a result: {error}. Measure again, --folder on another disk"
            ) from error
    said = str(ended["stderr"]).strip()[-_SAID_CHARACTERS:]
    kind, message = "agent_died", f"the agent on the board ended with status {status}: {said}"
    if failed := ended.get("error"):  # it failed first, and then had no place for its result
        kind, message = str(failed.get("kind")), f"{failed.get('message')}; then: {said}"
    elif status in _KILLED:
        kind = "oom"
        message = (
            "the agent on the board was killed, probably because memory ran out; free some, add "
            "swap, or take a smaller network"
        )
    request = prepared.request(measurement.benchmark)
    return failed_result(request, prepared.probe, kind, message)


def report_of(
    board: Connection, measurement: Measurement, prepared: Prepared, result: Result
) -> Report:
    """Return the report of a result."""
    target = (result.info or {}).get("target") or measurement.benchmark.target
    facts = describe(prepared.manifest, prepared.bundle_sha256, target)
    return summarise(
        result,
        device=prepared.device,
        bundle=dataclasses.replace(facts, path=str(prepared.bundle)),
        run_id=board.hello["run"],
        host=board.host.name,
        address=board.host.address,
        tool=TOOL,
        weakened=tuple(board.host.weakened),
    )


def lost_result(
    board: Connection, measurement: Measurement, prepared: Prepared, why: Unreachable
) -> Result:
    """Return the result of a run whose board was lost, after a look for it."""
    measurement.watch.phase("lost")
    kind, message = _what_became_of_it(board, measurement, why)
    request = prepared.request(measurement.benchmark)
    return failed_result(request, prepared.probe, kind, message)


def _deploy(board: Connection, folder: str, report: Report) -> Deployment:
    if report.verdict == "invalid":
        return Deployment(folder, {}, f"the run is invalid: {report.reasons[0].message}")
    if report.requirements and report.requirements.missed:
        missed = "; ".join(report.requirements.missed)
        return Deployment(folder, {}, f"requirement missed: {missed}")
    # A deployment that fails takes no measurement with it.
    summary = {key: value for key, value in report.to_table().items() if key != "series"}
    try:
        reply = board.request("deploy", folder=folder, names=DEPLOYED, report=summary)
    except (DeviceFailure, MissingRequirement, Unreachable, UsageError) as error:
        return Deployment(folder, {}, str(error))
    return Deployment(reply["folder"], reply["files"], None)


def _what_became_of_it(
    board: Connection, measurement: Measurement, why: Unreachable
) -> tuple[str, str]:
    # The kind and the message of the error, after a look for the board. A new connection also
    # removes what a run left that had no time to clean up.
    end = time.monotonic() + measurement.limits.search_s
    while True:
        try:
            boot_id = measurement.look_for_it()
            if boot_id != board.hello["boot_id"]:
                return "rebooted", REBOOTED
            return "connection_lost", f"{why}; the board is there and stops the run by itself"
        except BenchError as error:
            last = error
        if time.monotonic() > end:
            return "connection_lost", f"{why}; the board does not answer any more ({last})"
        time.sleep(_PAUSE_S)
