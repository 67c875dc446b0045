"""What a report says, as titled rows of text: the terminal and the page show the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastseg_runtime.arrays.text_table import TextTable
from rich.console import Group, RenderableType
from rich.text import Text

from remote_bench.host.plain import plain

Report = dict[str, Any]
_STYLES = {"valid": "bold green", "valid_with_notes": "bold yellow", "invalid": "bold red"}
_SEVERITIES = {"invalid": "red", "note": "yellow", "info": "dim"}


@dataclass(frozen=True)
class Row:
    """A figure with its unit, and what has to be known of it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Rows under a title."""

    title: str
    rows: tuple[Row, ...]


def sections(report: Report) -> list[Section]:
    """Return everything that a reader wants to see, most wanted first.

    Of a run in which nothing was timed, only what is there: its gaps have one reason.
    """
    parts = (
        ("Speed", _speed),
        ("Power", _power),
        ("Memory", _memory),
        ("Output", _output),
        ("Start", _start),
        ("Conditions", _conditions),
        ("Network", _network),
        ("Board", _board),
    )
    whole = [Section(title, tuple(rows(report))) for title, rows in parts]
    return whole if report["fps"] is not None else _without_gaps(whole)


def _without_gaps(found: list[Section]) -> list[Section]:
    filled = (
        Section(part.title, tuple(row for row in part.rows if row.value.strip("-, ")))
        for part in found
    )
    return [part for part in filled if part.rows]


def headline(report: Report) -> str:
    """Return the run in one line."""
    if report["fps"] is None:
        return "nothing was timed"
    p50 = report["latency_ms"]["p50"]
    parts = [f"{report['fps']:.1f} FPS", f"p50 {_ms(p50)}"]
    if report["power"]:
        load = report["power"]["flat_out"]
        parts += [f"{load['mean_w']:.2f} W ({report['power']['scope']})"]
        parts += [f"{_joules(load['j_per_frame'])}/frame"]
    return ", ".join(parts)


def _speed(report: Report) -> Iterator[Row]:
    yield Row("frames a second", _with_interval(report["fps"], report["fps_ci95"], "{:.2f}"))
    latency = report["latency_ms"]
    if latency:
        yield from _latency(latency)
    paced = report["paced"]
    if paced:
        at = f"at {paced['wanted_fps']:g} FPS"
        note = f"{paced['late']} of {paced['frames']} frames late"
        yield Row(f"latency p50 {at}", _ms(paced["latency_ms"]["p50"]), note)
    if report["bound_ms"] is not None:
        note = "roofline of the device's table: no network this size is faster"
        yield Row("bound of inference", _ms(report["bound_ms"]), note)


def _latency(latency: dict[str, Any]) -> Iterator[Row]:
    for name in ("p50", "p90", "p95", "p99", "p99.9"):
        text = _with_interval(latency[name], latency["ci95"].get(name), "{:.2f}", " ms")
        yield Row(f"latency {name}", text, latency["reasons"].get(name, ""))
    note = f"of {latency['count']} frames; each is {latency['includes']}"
    yield Row("latency max", _ms(latency["max"]), note)
    parts = latency["parts"]
    for name in ("pre", "infer", "post"):
        yield Row(f"median {name}", _ms(parts[f"{name}_ms"]))


def _power(report: Report) -> Iterator[Row]:
    power = report["power"]
    if not power:
        yield Row("power", "-", report["power_reason"])
        return
    steps = ", ".join(f"{name} {_step(power, name)}" for name in power["rails"])
    scope = f"{power['scope']}: {' + '.join(power['rails'])} by {', '.join(power['source'])}"
    yield from _load("flat out", power["flat_out"], f"{scope}. {power['note']}".strip(". "))
    if power["paced"]:
        at = f"at {report['paced']['wanted_fps']:g} FPS"
        yield from _load(at, power["paced"], "")
    idle = power["idle"]
    yield Row("idle before, after", f"{_watts(idle['before_w'])}, {_watts(idle['after_w'])}")
    note = f"{power['rate_hz']:.1f} samples/s, {power['coverage']:.0%} of the run"
    yield Row("sensor step", steps, note)
    if power["not_added"]:
        note = "part of the others, or of unknown scope"
        yield Row("seen, not added", ", ".join(power["not_added"]), note)


def _step(power: dict[str, Any], rail: str) -> str:
    known, seen = power["step_mw"].get(rail), power["step_seen_mw"].get(rail)
    if known is not None:
        return f"{known:g} mW"
    return f"{seen:g} mW (seen)" if seen is not None else "unknown"


def _load(name: str, load: dict[str, Any], note: str) -> Iterator[Row]:
    power = _with_interval(load["mean_w"], load["mean_w_ci95"], "{:.3f}", " W")
    yield Row(f"mean power {name}", power, note)
    for key, label in (("j_per_frame", "energy a frame"), ("j_per_frame_above_idle", "above idle")):
        interval = load[f"{key}_ci95"]
        scaled = [1e3 * value for value in interval] if interval else None
        value = None if load[key] is None else 1e3 * load[key]
        yield Row(f"{label} {name}", _with_interval(value, scaled, "{:.2f}", " mJ"))


def _memory(report: Report) -> Iterator[Row]:
    memory = report["memory"]
    yield Row("peak", _mb(memory["peak_mb"]), memory["scope"])
    yield Row("PSS, baseline", f"{_mb(memory['pss_mb'])}, {_mb(memory['baseline_mb'])}")
    note = "CPU and GPU share it" if memory["unified"] else ""
    yield Row("whole board had less by", _mb(memory["system_delta_mb"]), note)


def _output(report: Report) -> Iterator[Row]:
    accuracy = report["accuracy"] or {}
    required = accuracy.get("required")
    note = f"{required:.1%} are needed" if required is not None else ""
    yield Row("agreement with PyTorch", _share(accuracy.get("agreement")), note)
    if accuracy.get("miou") is not None:
        yield Row("mIoU of the timed run", _share(accuracy["miou"]))


def _start(report: Report) -> Iterator[Row]:
    load = report["load"]
    if not load:
        return
    yield Row("load, new process", _ms(load["cold_ms"]), "the page cache is not dropped")
    yield Row("load again", _ms(load["warm_ms"]))
    if load["built"]:
        yield Row("first start, with the engine's build", _ms(load["first_ms"]))


def _conditions(report: Report) -> Iterator[Row]:
    conditions = report["conditions"]
    mode = conditions["power_mode"]
    yield Row("power mode", f"{mode['name']} ({mode['id']})" if mode else "-")
    for zone, celsius in (conditions["temperatures"] or {}).items():
        yield Row(f"temperature {zone}", f"{celsius['begin']:.1f} to {celsius['end']:.1f} C")
    for clock, mhz in (conditions["clocks"] or {}).items():
        values = [mhz.get(span) for span in ("idle_before", "flat_out", "idle_after")]
        text = ", ".join("-" if value is None else f"{value:.0f}" for value in values)
        yield Row(f"clock {clock}", f"{text} MHz", "idle, run, idle")
    load = conditions["foreign_load"] or {}
    yield Row("other processes", _share(load.get("cpu")), "of all CPU cores during the run")
    overhead = report["sampler"]["overhead"]
    if overhead:
        text = _with_interval(
            100 * overhead["fraction"], _scaled(overhead["ci95"], 100), "{:+.2f}", " %"
        )
        note = (
            f"of the frame rate, by turns; it used {_share(report['sampler']['cpu'])} of all cores"
        )
        yield Row("sampler's cost", text, note)


def _network(report: Report) -> Iterator[Row]:
    bundle, engine = report["bundle"], report["engine"] or {}
    yield Row("bundle", str(bundle.get("name", "-")), str(bundle.get("sha256", "")))
    runs = [engine.get(key) for key in ("target", "precision", "backend", "version", "device")]
    yield Row("runs as", " ".join(str(part) for part in runs if part) or "-")
    for rejected in engine.get("rejected") or []:
        yield Row("rejected", str(rejected.get("target")), str(rejected.get("reason")))


def _board(report: Report) -> Iterator[Row]:
    device = report["device"]
    yield Row("device", device["description"], device["model"] or "")
    for label, key in (("module", "module"), ("JetPack", "jetpack"), ("L4T", "l4t")):
        if device[key]:
            yield Row(label, device[key])
    yield Row("system", f"{device['distribution'] or '-'}, Linux {device['kernel']}")
    yield Row("Python", device["python"])
    for package, version in sorted(device["packages"].items()):
        yield Row(package, version)


def _with_interval(
    value: float | None, interval: Sequence[float] | None, form: str, unit: str = ""
) -> str:
    if value is None:
        return "-"
    text = form.format(value) + unit
    if interval is None:
        return text
    return f"{text} ({form.format(interval[0])} to {form.format(interval[1])})"


def _scaled(interval: Sequence[float] | None, factor: float) -> list[float] | None:
    return [factor * value for value in interval] if interval else None


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ms"


def _mb(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} MB"


def _watts(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} W"


def _joules(value: float | None) -> str:
    return "-" if value is None else f"{1e3 * value:.1f} mJ"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def render(report: dict[str, Any]) -> RenderableType:
    """Return the report for rich.print: the verdict and its reasons, then every figure."""
    # Text, never markup: a board may be called "[red]".
    verdict = Text(report["verdict"].replace("_", " "), _STYLES[report["verdict"]])
    verdict.append(f"   {plain(headline(report))}", style="bold")
    reasons = [
        Text(f"  {plain(reason['message'])}", _SEVERITIES[reason["severity"]])
        for reason in report["reasons"]
    ]
    board = report["host"] or report["device"]["model"] or "board"
    return Group(Text(plain(board), "bold"), verdict, *reasons, _figures(report))


def _figures(report: dict[str, Any]) -> TextTable:
    rows = []
    for section in sections(report):
        rows.append((section.title, "", ""))
        rows += [(f"  {plain(r.label)}", plain(r.value), plain(r.note)) for r in section.rows]
    return TextTable((), rows)


def render_comparison(comparison: dict[str, Any]) -> RenderableType:
    """Return a comparison for the terminal."""
    if not comparison["comparable"]:
        lines = [Text("not comparable:", style="bold red")]
        return Group(*lines, *(Text(f"  {plain(reason)}") for reason in comparison["reasons"]))
    rows = [
        (
            f"{row['metric']} ({row['unit']})",
            f"{row['a']:.4g}",
            f"{row['b']:.4g}",
            f"{row['change']:+.1%}" if row["sure"] else f"{row['change']:+.1%} (noise)",
            f"{interval[0]:+.1%} to {interval[1]:+.1%}"
            if (interval := row["change_ci95"])
            else "too few frames",
        )
        for row in comparison["differences"]
    ]
    table = TextTable(("metric", "A", "B", "change", "95 % interval"), rows)
    texts = [text for texts in comparison["differs"].values() for text in texts]
    return Group(Text(f"what differs: {plain('; '.join(texts)) or 'nothing'}"), table)
