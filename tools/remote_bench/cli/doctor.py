"""`remote_bench doctor HOST`: what can be measured on a board, what is missing, and the fix."""

from typing import Any

from fastseg_runtime.arrays.text_table import TextTable
from fastseg_targets.device import recognise

from remote_bench.host.host import Host
from remote_bench.host.plain import plain
from remote_bench.host.watch import Cancel, Watch
from remote_bench.run.bench import open_session
from remote_bench.run.follow import probe_board
from remote_bench.run.plan import Plan
from remote_bench.run.prepare import Preparation


def examine(host: Host, plan: Plan, watch: Watch, cancel: Cancel) -> dict[str, Any]:
    """Look at a board, change nothing, leave nothing.

    Returns:
        {"host", "address", "device", "description", "root", "checks": [{"what", "ok", "detail",
        "fix"}], "probe"}.
    """
    with open_session(host, plan, watch) as session:
        Preparation(session, plan, watch, cancel).send_code()
        watch.phase("probe")
        probe = probe_board(session, cancel)
        session.finish()
    device = recognise(probe)
    for check in probe["readable"]:
        if not check["ok"] and not check["fix"]:  # root, and nothing there
            absent = device.power.missing if check["what"] == "power rails" else ""
            check["detail"] = absent or "Linux shows none here"
    return {
        "host": host.name,
        "address": host.address,
        "device": device.name,
        "description": device.description,
        "root": probe["system"]["euid"] == 0,
        "checks": probe["readable"],
        "probe": probe,
    }


def table(findings: dict[str, Any]) -> TextTable:
    """Return the checks for the terminal."""
    who = "as root" if findings["root"] else "without root"
    title = f"{findings['host']}: {findings['description']} ({findings['device']}), {who}"
    rows = [
        (plain(check["what"]), "yes" if check["ok"] else "no",
         plain(check["detail"]), plain(check["fix"]))
        for check in findings["checks"]
    ]  # fmt: skip
    return TextTable(("what", "here", "found", "fix"), rows, plain(title))
