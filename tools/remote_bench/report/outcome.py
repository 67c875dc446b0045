"""What a command prints, records and exits with, from what came of each board."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

from fastseg_runtime.arrays.command import complain
from fastseg_runtime.bundle.writer import read_members, write_bundle

from remote_bench.analysis.report import Deployment, Reason, Report, Table, to_table
from remote_bench.analysis.requirements import Requirements
from remote_bench.host.errors import (
    INVALID,
    UNTRUSTED,
    VALID,
    BenchError,
    DeviceFailure,
    failure_of,
)
from remote_bench.host.live import log, out, plain
from remote_bench.report.figures import render
from remote_bench.report.page import write_html

Outcome = Report | BenchError  # a report, or why there is none


def check_requirements(
    outcome: Outcome, requirements: Requirements | None, strict: bool = False
) -> Outcome:
    """Return the outcome; a report then has the limits that it misses, in words.

    Args:
        outcome: of one board.
        requirements: limits.
        strict: a run with notes is invalid.
    """
    if isinstance(outcome, BenchError):
        return outcome
    return check_report(outcome, requirements, strict)


def check_report(report: Report, requirements: Requirements | None, strict: bool) -> Report:
    """Return a report with the limits that it misses; the same, however often it is called."""
    if strict and report.verdict == "valid_with_notes":
        why = Reason("strict", "invalid", "--strict: a run with notes counts as invalid")
        report = dataclasses.replace(report, verdict="invalid", reasons=(why, *report.reasons))
    if requirements is None:
        return report
    return dataclasses.replace(report, requirements=requirements.check(report))


def exit_code(outcome: Outcome) -> int:
    """Return the exit code of one board's outcome."""
    if isinstance(outcome, BenchError):
        return outcome.exit_code
    if outcome.error:
        return failure_of(outcome.error.kind).exit_code
    if outcome.verdict == "invalid":  # before any limit: a wrong number neither keeps nor misses it
        return UNTRUSTED
    if outcome.requirements and not outcome.requirements.trusted:
        return UNTRUSTED
    if outcome.requirements and outcome.requirements.missed:
        return INVALID
    return DeviceFailure.exit_code if outcome.deployed and outcome.deployed.error else VALID


def document(outcomes: dict[str, Outcome]) -> Table:
    """Return the one JSON document: a report, or {"reports": [...]} of several boards."""
    tables = [_table(host, outcome) for host, outcome in outcomes.items()]
    return tables[0] if len(tables) == 1 else {"schema": 1, "reports": tables}


def _table(host: str, outcome: Outcome) -> Table:
    if not isinstance(outcome, BenchError):
        return outcome.to_table()
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
    reports = [outcome for outcome in outcomes.values() if isinstance(outcome, Report)]
    for outcome in outcomes.values():
        if isinstance(outcome, BenchError):
            complain("remote_bench", outcome)
        elif not as_json:
            out.print(render(outcome))
    if as_json:
        print(json.dumps(document(outcomes), indent=1))
    for report in reports:
        for missed in report.requirements.missed if report.requirements else ():
            _say(f"{report.host}: requirement missed: {missed}")
        if report.deployed:
            _say(f"{report.host}: {describe_deployment(report.deployed, report.bundle.target)}")
    if html is not None and reports:
        failures = {h: str(e) for h, e in outcomes.items() if isinstance(e, BenchError)}
        write_html(reports, html, failures)
        _say(f"report: {html}")


def _say(text: str) -> None:
    log.print(plain(text), markup=False, soft_wrap=True)


def describe_deployment(deployed: Deployment, target: str | None) -> str:
    """Return how an app opens what was measured, or why it was not deployed."""
    if deployed.error:
        return f"not deployed: {deployed.error}"
    folder = deployed.folder
    tops = {file.partition("/")[0] for file in deployed.files}
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
        if outcome.verdict == "invalid":
            _say(f"{outcome.host}: not recorded: an invalid run is no evidence")
            continue
        bundle = Path(outcome.bundle.path or "")
        try:
            record(bundle, outcome)
        except ValueError as error:
            raise BenchError(f"{bundle}: not recorded: {error}") from error
        _say(f"recorded in {bundle}")


def record(bundle: Path, report: Report) -> None:
    """Add a report's figures to the manifest, at the artifact that ran.

    Raises:
        ValueError: the bundle has no artifact of the report's target, or another one by now.
    """
    (manifest, members), target = read_members(bundle), report.bundle.target
    for artifact in manifest.artifacts:
        entry = {file.path: file.sha256 for file in artifact.files}.get(artifact.entry)
        if artifact.target == target and entry != report.bundle.artifact_sha256:
            raise ValueError("it holds another network than the one measured; measure again")
    artifacts = tuple(
        dataclasses.replace(artifact, benchmarks=(*artifact.benchmarks, figures(report)))
        if artifact.target == target
        else artifact
        for artifact in manifest.artifacts
    )
    if artifacts == manifest.artifacts:
        raise ValueError(f"it has no target {target!r}")
    write_bundle(bundle, dataclasses.replace(manifest, artifacts=artifacts), members)


def figures(report: Report) -> Table:
    """Return the few figures that a manifest holds of a measurement."""
    latency, power, device = report.latency_ms, report.power, report.device
    return {
        "run_id": report.run_id,
        "created": report.created,
        "tool": report.tool,
        "verdict": report.verdict,
        "fps": report.fps,
        "reasons": [reason.code for reason in report.reasons],
        "device": {key: getattr(device, key) for key in ("name", "model", "module", "jetpack")},
        "engine": report.engine,
        "latency_ms": {key: getattr(latency, key, None) for key in ("p50", "p90", "p99", "count")},
        "memory_mb": report.memory.peak_mb,
        "power_w": power.flat_out.mean_w if power else None,
        "power_scope": power.scope if power else None,
        "accuracy": to_table(report.accuracy),
    }
