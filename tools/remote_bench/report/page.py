"""Reports as one self-contained HTML file: verdicts on top, figures, plots, the JSON's key parts.

No script and no outside file; the page's own policy forbids both. Every text is escaped, since
names and log lines of a board may hold anything.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.stats import PERCENTILES

from remote_bench.analysis.report import Report
from remote_bench.analysis.requirements import parse
from remote_bench.analysis.stats import Floats
from remote_bench.host.live import plain
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
    body = "".join(_report(report, number) for number, report in enumerate(reports, start=1))
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
    runs_as = report.bundle.target or (report.engine or {}).get("target")
    mode = report.device.power_mode.name
    return " · ".join(str(part) for part in (host, report.bundle.name, runs_as, mode) if part)


# What stands beside what in the overview: a row a figure, by its title in sections().
_OVERVIEW = ("frames a second", "sustained", "latency p50", "latency p99", "mean power flat out",
             "energy a frame flat out", "peak", "runs as", "input", "device", "CPU", "governor",
             "power mode")  # fmt: skip


def _overview(reports: Sequence[Report], failures: Mapping[str, str]) -> str:
    """Return a table with a column a run."""
    figures = [{f.label: f.value for part in sections(r) for f in part.figures} for r in reports]
    rows = [
        ("verdict", *(_said(report) for report in reports)),
        *((label, *(found.get(label, "-") for found in figures)) for label in _OVERVIEW),
        ("measured", *(f"{r.created} {r.run_id or ''}" for r in reports)),
    ]
    heads = "".join(
        f'<th><a href="#run-{number}">{number}: {escaped(_title(report))}</a></th>'
        for number, report in enumerate(reports, start=1)
    )
    lines = [(host, "no report", why) for host, why in failures.items()]
    none = f"<table>{_rows(lines)}</table>" if lines else ""
    seen = [row for row in rows if any(cell != "-" for cell in row[1:])]
    table = f'<div class="wide"><table><tr><th></th>{heads}</tr>{_rows(seen)}</table></div>'
    return (table if reports else "") + none


def _said(report: Report) -> str:
    check = report.requirements
    limits = f", limits missed: {len(check.missed)}" if check else ""
    return report.verdict.replace("_", " ") + limits


def _report(report: Report, number: int) -> str:
    [required, *others] = sections(report)
    if required.title != "Requirements":
        required, others = Section("", ()), [required, *others]
    whole = _link(json.dumps(report.to_table()).encode(), "application/json", "report.json",
                  "all raw numbers (JSON)")  # fmt: skip
    return "".join(
        [
            f'<h2 id="run-{number}">{escaped(_title(report))}</h2>',
            _verdict(report, _table(required)),
            f"<p>{escaped(report.created)}, run {escaped(report.run_id or '-')}, "
            f"{escaped(report.tool or 'remote_bench')}; {whole}</p>",
            _plots(report),
            *map(_section, others),
            _log(report.log),
        ]
    )


def _verdict(report: Report, requirements: str) -> str:
    reasons = "".join(
        f'<li class="{escaped(reason.severity)}">{escaped(reason.message)}</li>'
        for reason in report.reasons
    )
    verdict = escaped(report.verdict)
    return (
        f'<div class="verdict {verdict}"><strong>{verdict.replace("_", " ")}</strong> '
        f"{escaped(headline(report))}{requirements}{f'<ul>{reasons}</ul>' if reasons else ''}</div>"
    )


def _section(section: Section) -> str:
    return f"<h3>{escaped(section.title)}</h3>{_table(section)}"


def _table(section: Section) -> str:
    rows = _rows((figure.label, figure.value, figure.note) for figure in section.figures)
    return f"<table>{rows}</table>" if rows else ""


def _rows(lines: Iterable[Iterable[str]]) -> str:
    cells = ("".join(f"<td>{escaped(cell)}</td>" for cell in line) for line in lines)
    return "".join(f"<tr>{line}</tr>" for line in cells)


def _log(log: str) -> str:
    lines = "\n".join(escaped(line) for line in log.splitlines())
    return f"<details><summary>log</summary><pre>{lines}</pre></details>" if lines else ""


def _link(content: bytes, kind: str, name: str, text: str) -> str:
    """Return a link to numbers that the page itself holds."""
    data = base64.b64encode(content).decode("ascii")
    return f'<a download="{name}" href="data:{kind};base64,{data}">{text}</a>'


def _numbers(name: str, columns: Mapping[str, Sequence[float | None]]) -> str:
    rows = zip(*columns.values(), strict=True)
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    head = ",".join('"' + plain(column).replace('"', "'") + '"' for column in columns)
    return _link("\n".join([head, *lines]).encode(), "text/csv", f"{name}.csv", "numbers (CSV)")


def _plots(report: Report) -> str:
    series, latency = report.series, report.latency_ms
    frames = series.frames.get("flat_out")
    if frames is None or latency is None:
        return ""
    bounds = series.spans.values()
    x_range = (min(begin for begin, _ in bounds), max(end for _, end in bounds))
    timed = [("timed", (block.begin, block.begin + block.seconds)) for block in report.blocks]
    spans = timed + [(n, series.spans[n]) for n in ("paced", "soak") if n in series.spans]
    marks = {f"p{n}": value for n in (50, 99) if (value := getattr(latency, f"p{n}")) is not None}
    marks |= _limits_ms(report)
    latencies = [
        Line(name.replace("_", " "), _array(columns.t), _array(columns.total_ms), points=True)
        for name, columns in series.frames.items()
        if name in _TIMED
    ]
    power, total = series.power, _array(frames.total_ms)
    watts = [Line("power", _array(power.t), _array(power.watts))] if power else []
    times = {"t_s": frames.t, "total_ms": frames.total_ms}
    parts = [
        time_plot("Latency of each frame", "ms", latencies, x_range, spans, marks, height=240),
        _caption(f"Each dot is a frame; {_CLIPPED}", _numbers("frames", times)),
        time_plot("Power", "W", watts, x_range, spans),
        _caption("", _numbers("power", {"t_s": power.t, "watts": power.watts})) if power else "",
    ]
    for title, unit, columns in (
        ("Temperature", "C", series.celsius),
        ("Clocks", "MHz", series.mhz),
    ):
        plot = time_plot(title, unit, _lines(columns), x_range, spans)
        parts += [plot, _caption("", _numbers(title.lower(), columns)) if plot else ""]
    parts += [histogram("Latency, frames by time (logarithmic)", "ms", total, marks), _soak(report)]
    return f'<p class="caption">{_LOAD}</p>' + "".join(parts)


_LOAD = (
    "Grey is timed, a block each. Around it the board works too, and that is in no figure: each "
    "block is opened anew and warmed up, and blocks with and without the sampler follow."
)
_CLIPPED = "the few far above the others are drawn at the edge."


def _caption(text: str, link: str) -> str:
    return f'<p class="caption">{escaped(text)} {link}</p>'


def _limits_ms(report: Report) -> dict[str, float]:
    """Return the limits on latencies that --require has."""
    wanted = ",".join(report.requirements.wanted) if report.requirements else ""
    terms = parse(wanted).terms if wanted else ()
    return {t.text: t.limit for t in terms if t.metric in PERCENTILES or t.metric == "max"}


def _soak(report: Report) -> str:
    soak = report.soak
    if soak is None:
        return ""
    t = [point.t / 60 for point in soak.curve]
    columns = {"t_min": t, **{name: [getattr(point, name) for point in soak.curve]
                              for name in ("fps", "watts", "celsius")}}  # fmt: skip
    units = {"fps": "FPS", "watts": "W", "celsius": "C"}
    plots = [
        time_plot(f"Soak: {unit}", unit, [Line(unit, _array(t), _array(columns[name]))],
                  (0.0, soak.minutes), x_unit="min")
        for name, unit in units.items()
    ]  # fmt: skip
    return "".join(plots) + _caption("A point a window.", _numbers("soak", columns))


def _lines(columns: Mapping[str, Sequence[float | None]]) -> list[Line]:
    names = [name for name in columns if name != "t"]
    lines = [Line(name, _array(columns["t"]), _array(columns[name])) for name in names]
    return [line for line in lines if np.isfinite(line.y).any()][:_MOST_LINES]


def _array(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
