"""The agent's events while it works, and what it leaves when it ends."""

import math
from typing import Any

from remote_bench.analysis import schema
from remote_bench.analysis.summary import failed_result
from remote_bench.host.errors import DeviceFailure
from remote_bench.host.watch import Cancel, Watch
from remote_bench.link.connection import Connection
from remote_bench.run.plan import Plan, Prepared
from remote_bench.run.wheels import engine_modules

_PROBE_S = 60.0  # nvpmodel and tegrastats are slow on a busy board
_MOST_RESULT_BYTES = 256 << 20  # an hour of frames, some 50 bytes each, at 1000 FPS and more
_KILLED = (-9, 137)
_SAID_CHARACTERS = 500


def probe_board(session: Connection, cancel: Cancel) -> dict[str, Any]:
    """Have the agent look at the board, read-only, and return what it found.

    Raises:
        DeviceFailure: it gave no answer.
    """
    session.request("agent", mode="probe", request={"engines": engine_modules()})
    data: dict[str, Any] | None = None
    for event in session.agent_events(silent_s=_PROBE_S):
        cancel.check()
        if event is not None and event["event"] == "probe":
            data = event.get("data")
        if event is not None and event["event"] == "ended" and data is None:
            raise DeviceFailure(f"{session.host.name}: the probe failed: {event['stderr']}")
    assert data is not None
    try:
        schema.check(data, schema.load("result")["properties"]["probe"], "probe")
    except schema.SchemaError as error:
        raise DeviceFailure(f"{session.host.name}: the probe makes no sense: {error}") from error
    return data


def _number(value: object) -> float:
    """Return a number that a board sent, 0 for anything else."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def follow(
    session: Connection, watch: Watch, cancel: Cancel, silent_s: float | None = None
) -> dict[str, Any]:
    """Show the run's events until it ends; return "ended": "status", "stderr" and last "error"."""
    error: dict[str, Any] | None = None
    for event in session.agent_events(silent_s):
        cancel.check()
        if event is None:
            continue
        if event["event"] == "phase":
            watch.phase(str(event.get("name")))
        elif event["event"] == "progress":
            watch.progress(*(_number(event.get(key)) for key in ("done", "total", "fps")))
        elif event["event"] == "error":
            error = event
        elif event["event"] == "ended":
            return {**event, "error": error}
    raise AssertionError("agent_events() ends with ended")


def fetch_result(
    session: Connection, ended: dict[str, Any], plan: Plan, prepared: Prepared
) -> dict[str, Any]:
    """Return the run's result, or one that says how the agent died."""
    status = ended["status"]
    if status in (0, 1):
        content = session.get("result.json", _MOST_RESULT_BYTES)
        try:
            return schema.parse(content, "result")
        except schema.SchemaError as error:
            raise DeviceFailure(f"{session.host.name}: not a result: {error}") from error
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
    return failed_result(prepared.request(plan), prepared.probe, kind, message)
