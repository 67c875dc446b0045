"""`remote_bench doctor`: what can be measured on a board, and how to get the rest."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from fastseg_runtime.arrays.command import DONE
from fastseg_runtime.arrays.terminal import TextTable
from fastseg_targets.device import recognise

from remote_bench.cli import beforehand
from remote_bench.cli.options import DeviceOption, FolderOption, JsonOption, Login
from remote_bench.host.errors import BenchError
from remote_bench.host.live import out, plain
from remote_bench.run.benchmark import Benchmark, Measurement
from remote_bench.run.fleet import on_hosts
from remote_bench.run.preparation import Preparation


@dataclass(frozen=True)
class Doctor(Login):
    """Say what can be measured on a board, with and without root, and how to get the rest.

    Changes nothing there and leaves nothing.
    """

    name: Annotated[str, typer.Argument(metavar="HOST", help="As ssh knows it, or localhost.")]
    device: DeviceOption = None
    folder: FolderOption = None
    as_json: JsonOption = False

    def carry_out(self) -> int:
        """Look at the board and return the exit code."""
        beforehand.check_host(self.name)
        connector = self.connector()
        benchmark = Benchmark(base=self.folder, device=beforehand.named_device(self.device))
        findings = on_hosts([self.name], connector, benchmark, examine)[self.name]
        if isinstance(findings, BenchError):
            raise findings
        if self.as_json:
            print(json.dumps(findings, indent=1))
        else:
            out.print(findings_table(findings), soft_wrap=True)
        return DONE


def examine(measurement: Measurement) -> dict[str, Any]:
    """Look at a board, change nothing, leave nothing.

    Returns:
        {"host", "address", "device", "product", "description", "notes", "not_measured", "root",
        "checks": [{"what", "ok", "detail", "fix"}], "probe"}.
    """
    host = measurement.host
    with measurement.connect() as board:
        probe = Preparation(board, measurement).probe()
        board.finish()
    device = recognise(probe, measurement.benchmark.device)
    for check in probe["readable"]:
        if not check["ok"] and not check["fix"]:  # root, and nothing there
            absent = device.power.missing if check["what"] == "power rails" else ""
            check["detail"] = absent or "Linux shows none here"
    return {
        "host": host.name,
        "address": host.address,
        "device": device.name,
        "product": device.is_sku,
        "description": device.description,
        "notes": device.notes,
        "not_measured": device.not_measured,
        "root": probe["system"]["euid"] == 0,
        "checks": probe["readable"],
        "probe": probe,
    }


def findings_table(findings: dict[str, Any]) -> TextTable:
    """Return the checks for the terminal."""
    who = "as root" if findings["root"] else "without root"
    title = f"{findings['host']}: {findings['description']} ({findings['device']}), {who}"
    rows = [
        (plain(check["what"]), "yes" if check["ok"] else "no",
         plain(check["detail"]), plain(check["fix"]))
        for check in findings["checks"]
    ]  # fmt: skip
    for what, texts in (("not measured", findings["not_measured"]), ("note", findings["notes"])):
        rows += [(what, "no" if what != "note" else "", plain(text), "") for text in texts]
    return TextTable(("what", "here", "found", "fix"), rows, plain(title))
