"""The folder of `remote_bench evidence`: one report for people and programs, one a target.

    evidence-20261128-2315/
        report.md, report.json     what ran, and which rows of "not run" that closes
        jetson-fp16.json ...       the report of each measurement, as `compare` reads it

Nothing in it names a host, a user, a path, an address, a serial or a key.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.terminal import TextTable

from remote_bench.analysis.evidence import Evidence, Labelled, TargetRun
from remote_bench.analysis.report import Report
from remote_bench.host.live import plain
from remote_bench.report.anonymous import Cleaner, anonymous

REPORT = "report.json"


def write_folder(
    folder: Path, evidence: Evidence, cleaner: Cleaner, report: Report | None = None
) -> None:
    """Write the evidence as it is now, and the newest report of a target."""
    table = cleaner.clean(evidence.to_table())
    if report is not None:
        name = re.sub(r"[^\w-]", "_", str(report.bundle.target))  # a bundle says it
        _write_json(folder / f"{name}.json", cleaner.clean(anonymous(report).to_table()))
    _write_json(folder / REPORT, table)
    write_file(folder / "report.md", cleaner.clean(markdown(evidence)).encode())


def _write_json(file: Path, table: Any) -> None:
    write_file(file, (json.dumps(table, indent=1) + "\n").encode())


_ROWS = ('row of "not run"', "closed", "by, or why not")
_RUNS = ("target", "engine", "agrees", "mIoU", "reference", "FPS", "p50 ms", "W", "verdict")


def tables(evidence: Evidence) -> list[TextTable]:
    """Return what ran and what that closes, for the terminal."""
    runs = [tuple(map(plain, _run_cells(run))) for run in evidence.runs]
    rows = [tuple(map(plain, cells)) for cells in _row_cells(evidence)]
    return [TextTable(_RUNS, runs, plain(evidence.place.description)), TextTable(_ROWS, rows)]


def markdown(evidence: Evidence) -> str:
    """Return the report for people."""
    place = evidence.place
    lines = [
        f"# Evidence from {_cell(place.description)}",
        "",
        f"{evidence.tool}, {evidence.created}. Device: {place.device}, {_cell(place.machine)}, "
        f"{'over SSH' if place.over_ssh else 'on the machine itself'}.",
        f"Frames: {evidence.frames}. mIoU is held against {_cell(evidence.reference)}.",
    ]
    if place.rehearsal:
        lines += ["", f"**A rehearsal, which closes nothing:** {place.rehearsal}."]
    if evidence.unfinished:
        lines += ["", f"**It ended early:** {_cell(evidence.unfinished)}"]
    lines += ["", '## Which rows of README\'s "What was not run" this closes', ""]
    lines += _table(_ROWS, _row_cells(evidence))
    lines += ["", "## What ran", "", *_table(_RUNS, map(_run_cells, evidence.runs)), ""]
    for run in evidence.runs:
        lines += [f"- {run.target}: {_cell(run.problem)}"] if run.problem else []
        lines += [f"- {run.target}, its layers: {_cell(json.dumps(one))}" for one in run.audit]
    return "\n".join(lines) + "\n"


def _row_cells(evidence: Evidence) -> list[tuple[str, ...]]:
    return [(row.title, "yes" if row.closed else "no", row.why) for row in evidence.rows()]


def _run_cells(run: TargetRun) -> tuple[str, ...]:
    labelled = run.labelled or Labelled(0, float("nan"), None, 0.0)
    return (
        f"{run.target} ({run.precision})",
        f"{run.engine or 'none'} {run.version or ''}",
        _share(run.agreement),
        f"{_share(labelled.miou)} of {labelled.frames}" if labelled.frames else "-",
        _share(labelled.reference_miou),
        *("-" if value is None else f"{value:.2f}" for value in (run.fps, run.p50_ms, run.power_w)),
        (run.verdict or ("ran" if run.engine else "not run")).replace("_", " "),
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(map(_cell, row)) for row in rows]
    return [f"| {line} |" for line in lines]


def _cell(text: str) -> str:
    return plain(text).replace("|", "/").replace("<", "&lt;")
