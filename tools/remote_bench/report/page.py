"""Reports as one self-contained HTML file: verdicts on top, figures, plots, the JSON's key parts.

No script and no outside file; the page's own policy forbids both. Every text is escaped, since
names and log lines of a board may hold anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from fastseg_runtime.arrays.shared_files import write_file

from remote_bench.analysis.report import Report
from remote_bench.analysis.stats import Floats
from remote_bench.report.figures import Section, headline, sections
from remote_bench.report.plots import Line, escaped, histogram, time_plot

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_MOST_LINES = 8  # in one plot
_TIMED = ("flat_out", "paced")
_NONE: Mapping[str, str] = {}


def write_html(reports: Sequence[Report], path: Path, failures: Mapping[str, str] = _NONE) -> None:
    """Write the reports as one page; the file is there whole or not at all.

    Args:
        reports: one a board.
        path: the file.
        failures: boards without a report, and why there is none.

    Raises:
        ValueError: there is no report.
        OSError: the file cannot be written.
    """
    if not reports:
        raise ValueError("no report to write; expected at least one")
    write_file(path, render_html(reports, failures).encode())


def render_html(reports: Sequence[Report], failures: Mapping[str, str] = _NONE) -> str:
    """Return the page."""
    style = resources.files("remote_bench").joinpath("report.css").read_text("utf-8")
    body = "".join(_report(report) for report in reports)
    overview = _overview(reports, failures) if len(reports) + len(failures) > 1 else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>remote_bench: {escaped(_title(reports[0]))}</title><style>{style}</style></head>"
        f"<body><h1>remote_bench</h1>{overview}{body}</body></html>\n"
    )


def _title(report: Report) -> str:
    host = report.host or report.device.model or report.device.name
    return f"{host} · {report.bundle.name or ''}".strip(" ·")


def _overview(reports: Sequence[Report], failures: Mapping[str, str]) -> str:
    lines = [(_title(r), r.verdict.replace("_", " "), headline(r)) for r in reports]
    lines += [(host, "no report", why) for host, why in failures.items()]
    return f"<table><tr><th>run</th><th>verdict</th><th>result</th></tr>{_rows(lines)}</table>"


def _report(report: Report) -> str:
    return "".join(
        [
            f"<h2>{escaped(_title(report))}</h2>",
            _verdict(report),
            _plots(report),
            *map(_section, sections(report)),
            _log(report.log),
            f"<p>{escaped(report.created)}, run {escaped(report.run_id or '-')}, "
            f"{escaped(report.tool or 'remote_bench')}</p>",
        ]
    )


def _verdict(report: Report) -> str:
    reasons = "".join(
        f'<li class="{escaped(reason.severity)}">{escaped(reason.message)}</li>'
        for reason in report.reasons
    )
    verdict = escaped(report.verdict)
    return (
        f'<div class="verdict {verdict}"><strong>{verdict.replace("_", " ")}</strong> '
        f"{escaped(headline(report))}{f'<ul>{reasons}</ul>' if reasons else ''}</div>"
    )


def _section(section: Section) -> str:
    rows = _rows((figure.label, figure.value, figure.note) for figure in section.figures)
    return f"<h3>{escaped(section.title)}</h3><table>{rows}</table>" if rows else ""


def _rows(lines: Iterable[Iterable[str]]) -> str:
    cells = ("".join(f"<td>{escaped(cell)}</td>" for cell in line) for line in lines)
    return "".join(f"<tr>{line}</tr>" for line in cells)


def _log(log: str) -> str:
    lines = "\n".join(escaped(line) for line in log.splitlines())
    return f"<details><summary>log</summary><pre>{lines}</pre></details>" if lines else ""


def _plots(report: Report) -> str:
    series = report.series
    frames = series.frames.get("flat_out")
    if frames is None:
        return ""
    bounds = series.spans.values()
    x_range = (min(begin for begin, _ in bounds), max(end for _, end in bounds))
    spans = {name: span for name, span in series.spans.items() if name in _TIMED}
    latencies = [
        Line(name.replace("_", " "), _array(columns.t), _array(columns.total_ms), points=True)
        for name, columns in series.frames.items()
        if name in _TIMED
    ]
    power = series.power
    watts = [Line("power", _array(power.t), _array(power.watts))] if power else []
    return "".join(
        [
            time_plot("Latency of each frame", "ms", latencies, x_range, spans, height=240),
            time_plot("Power", "W", watts, x_range, spans),
            time_plot("Temperature", "C", _lines(series.celsius), x_range, spans),
            time_plot("Clocks", "MHz", _lines(series.mhz), x_range, spans),
            histogram("Latency, frames by time (logarithmic)", "ms", _array(frames.total_ms)),
        ]
    )


def _lines(columns: Mapping[str, Sequence[float | None]]) -> list[Line]:
    names = [name for name in columns if name != "t"]
    lines = [Line(name, _array(columns["t"]), _array(columns[name])) for name in names]
    return [line for line in lines if np.isfinite(line.y).any()][:_MOST_LINES]


def _array(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
