"""What a command prints and the code it exits with, from what came of each board."""

import json
import shlex
from pathlib import Path
from typing import Any

from remote_bench.analysis.requirements import Requirements
from remote_bench.host.console import complain, log, out
from remote_bench.host.errors import (
    INVALID,
    VALID,
    BenchError,
    DeviceFailure,
    MissingRequirement,
    Unreachable,
)
from remote_bench.host.plain import plain
from remote_bench.report.record import record
from remote_bench.report.report import write_html
from remote_bench.report.summary import render

Outcome = dict[str, Any] | BenchError  # a report, or why there is none
# Kind of a report's error -> the exception with its exit code; all others are a DeviceFailure.
_CODES: dict[str, type[BenchError]] = {
    "connection_lost": Unreachable,
    "disk_full": MissingRequirement,
    "no_engine": MissingRequirement,
    "no_numpy": MissingRequirement,
    "no_runtime": MissingRequirement,
    "power_mode": MissingRequirement,
}


def check_requirements(outcome: Outcome, requirements: Requirements | None) -> None:
    """Add "requirements" to a report: each limit that it misses, in words."""
    if requirements is not None and isinstance(outcome, dict):
        outcome["requirements"] = {
            "wanted": [term.text for term in requirements.terms],
            "missed": [miss.message for miss in requirements.check(outcome)],
        }


def exit_code(outcome: Outcome) -> int:
    """Return the exit code of one board's outcome."""
    if isinstance(outcome, BenchError):
        return outcome.exit_code
    if outcome["error"]:
        return _CODES.get(outcome["error"]["kind"], DeviceFailure).exit_code
    if outcome.get("deployed", {}).get("error"):
        return DeviceFailure.exit_code
    missed = outcome.get("requirements", {}).get("missed")
    return INVALID if missed or outcome["verdict"] == "invalid" else VALID


def document(outcomes: dict[str, Outcome]) -> dict[str, Any]:
    """Return the one JSON document: a report, or {"reports": [...]} of several boards."""
    tables = [_table(host, outcome) for host, outcome in outcomes.items()]
    return tables[0] if len(tables) == 1 else {"schema": 1, "reports": tables}


def _table(host: str, outcome: Outcome) -> dict[str, Any]:
    if not isinstance(outcome, BenchError):
        return outcome
    kind = type(outcome).__name__
    return {
        "schema": 1,
        "host": host,
        "verdict": "invalid",
        "reasons": [{"code": kind, "severity": "invalid", "message": str(outcome)}],
        "error": {"kind": kind, "message": str(outcome)},
        "fps": None,
    }


def publish(outcomes: dict[str, Outcome], as_json: bool, html: Path | None) -> None:
    """Print the outcomes, and write the page."""
    reports = [outcome for outcome in outcomes.values() if isinstance(outcome, dict)]
    for outcome in outcomes.values():
        if isinstance(outcome, BenchError):
            complain(outcome)
        elif not as_json:
            out.print(render(outcome))
    if as_json:
        print(json.dumps(document(outcomes), indent=1))
    for report in reports:
        for missed in report.get("requirements", {}).get("missed", []):
            _say(f"{report['host']}: requirement missed: {missed}")
        if deployed := report.get("deployed"):
            _say(f"{report['host']}: {deployment(report, deployed)}")
    if html is not None and reports:
        failures = {h: str(e) for h, e in outcomes.items() if isinstance(e, BenchError)}
        write_html(reports, html, failures)
        _say(f"report: {html}")


def _say(text: str) -> None:
    log.print(plain(text), markup=False, soft_wrap=True)


def deployment(report: dict[str, Any], deployed: dict[str, Any]) -> str:
    """Return how an app opens what was measured, or why it was not deployed."""
    if deployed["error"]:
        return f"not deployed: {deployed['error']}"
    folder, target = deployed["folder"], report["bundle"]["target"]
    tops = {file.partition("/")[0] for file in deployed["files"]}
    paths = [folder, f"{folder}/site"] if "site" in tops else [folder]
    variables = [f"PYTHONPATH={shlex.quote(':'.join(paths))}"]
    if "cache" in tops:
        variables.append(f"FASTSEG_CACHE={shlex.quote(f'{folder}/cache')}")
    return (
        f"deployed; an app started with {' '.join(variables)} opens what was measured: "
        f"RealtimeSegmentation({f'{folder}/bundle.fastseg'!r}, target={target!r})"
    )


def record_all(outcomes: dict[str, Outcome]) -> None:
    """Write the figures of every run that is not invalid into its bundle."""
    for outcome in outcomes.values():
        if isinstance(outcome, BenchError):
            continue
        if outcome["verdict"] == "invalid":
            _say(f"{outcome['host']}: not recorded: an invalid run is no evidence")
            continue
        bundle = Path(outcome["bundle"]["path"])
        try:
            record(bundle, outcome)
        except ValueError as error:
            raise BenchError(f"{bundle}: not recorded: {error}") from error
        _say(f"recorded in {bundle}")
