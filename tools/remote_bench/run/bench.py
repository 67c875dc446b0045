"""One measurement on one board, from the lock to the report.

connect, lock, send the agent, probe (read-only), choose and send the bundle, build, self-test,
settle, idle, run, idle, restore, fetch, deploy, clean up, report. Leaving it anywhere leaves the
board as it was: the keeper at the other end sees to that.
"""

from typing import Any

from remote_bench.analysis.summary import failed_result, summarise
from remote_bench.host.errors import DeviceFailure, MissingRequirement, Unreachable, UsageError
from remote_bench.host.host import Host
from remote_bench.host.watch import Cancel, Watch
from remote_bench.link.connection import Connection
from remote_bench.link.payload import RUNTIME_PATH
from remote_bench.run import aftermath
from remote_bench.run.bundle_facts import describe
from remote_bench.run.follow import fetch_result, follow
from remote_bench.run.plan import BUNDLE, TOOL, Plan, Prepared
from remote_bench.run.prepare import Preparation

_DEPLOYED = (f"{RUNTIME_PATH}/fastseg_runtime", BUNDLE)


def measure(host: Host, plan: Plan, watch: Watch, cancel: Cancel) -> dict[str, Any]:
    """Measure on one board and return the report; a run that failed there gives one too.

    Raises:
        BenchError: it did not come to a run, or was called off.
    """
    with open_session(host, plan, watch) as session:
        prepared = prepare(session, plan, watch, cancel)
        try:
            request = prepared.request(plan)
            session.request("agent", mode="run", request=request)
            return finish(session, plan, prepared, watch, cancel)
        except Unreachable as error:
            watch.phase("lost")
            kind, message = aftermath.explain(host, plan, session.hello["boot_id"], error)
            raw = failed_result(prepared.request(plan), prepared.probe, kind, message)
            return report_of(session, plan, prepared, raw)


def open_session(host: Host, plan: Plan, watch: Watch) -> Connection:
    """Start a keeper with a plan's settings."""
    watch.phase("connect")
    session = Connection(host, base=plan.base, keep=plan.keep, root=plan.root)
    if swept := session.hello["swept"]:
        watch.note(f"removed what an earlier run had left: {', '.join(swept)}")
    return session


def prepare(session: Connection, plan: Plan, watch: Watch, cancel: Cancel) -> Prepared:
    """Lock the board and bring all that a run needs."""
    session.request("lock")
    if plan.deploy:
        session.request("may_deploy", folder=plan.deploy, names=_DEPLOYED)
    return Preparation(session, plan, watch, cancel).prepare()


def finish(
    session: Connection,
    plan: Plan,
    prepared: Prepared,
    watch: Watch,
    cancel: Cancel,
    silent_s: float | None = None,
) -> dict[str, Any]:
    """Follow a run to its end, fetch, deploy, clean up; return the report."""
    ended = follow(session, watch, cancel, silent_s)
    watch.phase("fetch")
    raw = fetch_result(session, ended, plan, prepared)
    report = report_of(session, plan, prepared, raw)
    if plan.deploy and report["error"] is None:
        report["deployed"] = _deploy(session, plan.deploy, report)
    watch.phase("clean up")
    report["board"] = session.finish()
    return report


def report_of(
    session: Connection, plan: Plan, prepared: Prepared, raw: dict[str, Any]
) -> dict[str, Any]:
    """Return the report of a result."""
    target = (raw.get("info") or {}).get("target") or plan.target
    context = {
        "run_id": session.hello["run"],
        "host": session.host.name,
        "address": session.host.address,
        "tool": TOOL,
        "device": prepared.device,
        "bundle": {
            **describe(prepared.manifest, prepared.bundle_sha256, target),
            "path": str(prepared.bundle),
        },
    }
    return summarise(raw, context)


def _deploy(session: Connection, folder: str, report: dict[str, Any]) -> dict[str, Any]:
    # Returns {"folder", "files", "error"}: a deployment that fails takes no measurement with it.
    summary = {key: value for key, value in report.items() if key != "series"}
    try:
        reply = session.request("deploy", folder=folder, names=_DEPLOYED, report=summary)
    except (DeviceFailure, MissingRequirement, UsageError) as error:
        return {"folder": folder, "files": {}, "error": str(error)}
    return {"folder": reply["folder"], "files": reply["files"], "error": None}
