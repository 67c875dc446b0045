"""`remote_bench doctor HOST`: what can be measured on a board, what is missing, and the fix."""

from typing import Any

from fastseg_targets.device import recognise
from rich.table import Table
from rich.text import Text

from remote_bench.bench import open_session
from remote_bench.follow import probe_board
from remote_bench.host import Host
from remote_bench.plain import plain
from remote_bench.plan import Plan
from remote_bench.prepare import Preparation
from remote_bench.watch import Cancel, Watch


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


def table(findings: dict[str, Any]) -> Table:
    """Return the checks for the terminal."""
    who = "as root" if findings["root"] else "without root"
    title = f"{findings['host']}: {findings['description']} ({findings['device']}), {who}"
    rows = Table("", "what", "found", "fix", title=Text(plain(title)), title_justify="left")
    for check in findings["checks"]:
        mark = Text("yes", style="green") if check["ok"] else Text("no", style="yellow")
        # Text, never markup: a rail may be called "[red]".
        rows.add_row(mark, *(Text(plain(str(check[key]))) for key in ("what", "detail", "fix")))
    return rows
