"""What a report says, as titled rows of text: the terminal and the page show the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from fastseg_runtime.arrays.terminal import TextTable
from rich.console import Group, RenderableType
from rich.text import Text

from remote_bench.analysis.comparison import Comparison
from remote_bench.analysis.frame_times import Latency
from remote_bench.analysis.power import LoadPower, Power
from remote_bench.analysis.report import Fingerprint, Report
from remote_bench.analysis.stats import Interval
from remote_bench.host.live import plain

_INFER = {
    "tensorrt": "with the copies to and from the GPU; trtexec's GPU Compute Time is without them "
    "and lower: it is not measured here",
}
_STYLES = {"valid": "bold green", "valid_with_notes": "bold yellow", "invalid": "bold red"}
_SEVERITIES = {"invalid": "red", "note": "yellow", "info": "dim"}


@dataclass(frozen=True)
class Figure:
    """A figure with its unit, and what has to be known of it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Figures under a title."""

    title: str
    figures: tuple[Figure, ...]


def sections(report: Report) -> list[Section]:
    """Return everything that a reader wants to see, most wanted first.

    Of a run in which nothing was timed, only what is there: its gaps have one reason.
    """
    parts = (
        ("Requirements", _required),
        ("Speed", _speed),
        ("Kept up", _sustained),
        ("Power", _power),
        ("Power at the meter", _wall_power),
        ("Memory", _memory),
        ("Output", _output),
        ("Start", _start),
        ("Conditions", _conditions),
        ("Network", _network),
        ("Measured", _method),
        ("Board", _board),
    )
    whole = [Section(title, tuple(figures(report))) for title, figures in parts]
    whole = [section for section in whole if section.figures]
    if report.fps is not None:
        return whole
    filled = (Section(s.title, tuple(f for f in s.figures if f.value.strip("-, "))) for s in whole)
    return [section for section in filled if section.figures]


def headline(report: Report) -> str:
    """Return the run in one line."""
    if report.fps is None or report.latency_ms is None:
        return "nothing was timed"
    parts = [f"{report.fps:.1f} FPS", f"p50 {_ms(report.latency_ms.p50)}"]
    if power := report.power or report.wall_power:
        parts += [f"{_watts(power.flat_out.mean_w)} ({power.scope})"]
        energy = _with_interval(power.flat_out.j_per_frame, None, "{:.1f}", " mJ", 1e3)
        parts += [f"{energy}/frame"]
    return ", ".join(parts)


def _speed(report: Report) -> Iterator[Figure]:
    speed = _with_interval(report.fps, report.fps_ci95, "{:.2f}")
    yield Figure("frames a second", speed, f"interval {report.fps_ci95_basis}")
    if report.latency_ms:
        yield from _latency(report.latency_ms, str((report.engine or {}).get("backend")))
    if paced := report.paced:
        at = f"at {paced.wanted_fps:g} FPS"
        note = f"{paced.late} of {paced.frames} frames late"
        yield Figure(f"latency p50 {at}", _ms(paced.latency_ms.p50), note)
    if report.bound_ms is not None:
        note = f"roofline {report.bound_basis}: no network this size is faster"
        yield Figure("bound of inference", _ms(report.bound_ms), note)


def _latency(latency: Latency, backend: str) -> Iterator[Figure]:
    for name, value in latency.percentiles().items():
        text = _with_interval(value, latency.ci95.get(name), "{:.2f}", " ms")
        within = "interval within the run, of frames" if latency.ci95.get(name) else ""
        yield Figure(f"latency {name}", text, latency.reasons.get(name, within))
    note = f"of {latency.count} frames; each is {latency.includes}"
    yield Figure("latency max", _ms(latency.max), note)
    yield Figure("median pre", _ms(latency.parts.pre_ms))
    yield Figure("median infer", _ms(latency.parts.infer_ms), _INFER.get(backend, ""))
    yield Figure("median post", _ms(latency.parts.post_ms))


def _power(report: Report) -> Iterator[Figure]:
    if report.power is None:
        yield Figure("power", "-", report.power_reason)
    else:
        yield from _power_of(report, report.power)


def _wall_power(report: Report) -> Iterator[Figure]:
    if report.wall_power is not None:
        yield from _power_of(report, report.wall_power)
    elif report.wall_power_reason:
        yield Figure("power at the meter", "-", report.wall_power_reason)


def _power_of(report: Report, power: Power) -> Iterator[Figure]:
    scope = f"{power.scope}: {' + '.join(power.rails)} by {', '.join(power.source)}"
    wall = "at the meter, " if power.scope == "wall" else ""
    yield from _load(f"{wall}flat out", power.flat_out, f"{scope}. {power.note}".strip(". "))
    if power.paced and report.paced:
        yield from _load(f"{wall}at {report.paced.wanted_fps:g} FPS", power.paced, "")
    idle = power.idle
    yield Figure("idle before, after", f"{_watts(idle.before_w)}, {_watts(idle.after_w)}")
    steps = ", ".join(f"{name} {_step(power, name)}" for name in power.rails)
    note = f"{power.rate_hz:.1f} samples/s, {power.coverage:.0%} of the run"
    yield Figure("sensor step", steps, note)
    if power.not_added:
        note = "part of the others, or of unknown scope"
        yield Figure("seen, not added", ", ".join(power.not_added), note)


def _step(power: Power, rail: str) -> str:
    known, seen = power.step_mw.get(rail), power.step_seen_mw.get(rail)
    if known is not None:
        return f"{known:g} mW"
    return f"{seen:g} mW (seen)" if seen is not None else "unknown"


def _load(name: str, load: LoadPower, note: str) -> Iterator[Figure]:
    power = _with_interval(load.mean_w, load.mean_w_ci95, "{:.3f}", " W")
    yield Figure(f"mean power {name}", power, note or "interval of its half seconds")
    energy = _with_interval(load.j_per_frame, load.j_per_frame_ci95, "{:.2f}", " mJ", 1e3)
    yield Figure(f"energy a frame {name}", energy)
    above, above_ci95 = load.j_per_frame_above_idle, load.j_per_frame_above_idle_ci95
    yield Figure(f"above idle {name}", _with_interval(above, above_ci95, "{:.2f}", " mJ", 1e3))


def _memory(report: Report) -> Iterator[Figure]:
    memory = report.memory
    yield Figure("peak", _mb(memory.peak_mb), memory.scope)
    yield Figure("PSS, baseline", f"{_mb(memory.pss_mb)}, {_mb(memory.baseline_mb)}")
    note = "other programs count too" + ("; CPU and GPU share it" if memory.unified else "")
    yield Figure("whole board had less by", _mb(memory.system_delta_mb), note)


def _output(report: Report) -> Iterator[Figure]:
    accuracy = report.accuracy
    required = accuracy.required if accuracy else None
    note = f"{required:.1%} are needed" if required is not None else ""
    yield Figure("agreement with PyTorch", _share(accuracy.agreement if accuracy else None), note)
    if accuracy and accuracy.miou is not None:
        yield Figure("mIoU of the timed run", _share(accuracy.miou))


def _start(report: Report) -> Iterator[Figure]:
    load = report.load
    if not load:
        return
    yield Figure("load, new process", _ms(load.cold_ms), "the page cache is not dropped")
    yield Figure("load again", _ms(load.warm_ms))
    if load.built:
        yield Figure("first start, with the engine's build", _ms(load.first_ms))


def _conditions(report: Report) -> Iterator[Figure]:
    conditions = report.conditions
    mode = conditions.power_mode
    yield Figure("power mode", f"{mode.name} ({mode.id})" if mode else "-")
    for zone, celsius in (conditions.temperatures or {}).items():
        yield Figure(f"temperature {zone}", f"{celsius.begin:.1f} to {celsius.end:.1f} C")
    for clock, mhz in (conditions.clocks or {}).items():
        values = [mhz.get(span) for span in ("idle_before", "flat_out", "idle_after")]
        text = ", ".join(_shown("{:.0f}", value) for value in values)
        yield Figure(f"clock {clock}", f"{text} MHz", "idle, run, idle")
    load = conditions.foreign_load
    note = "of the usable CPU cores during the run"
    yield Figure("other processes", _share(load.cpu if load else None), note)
    if load and load.gpu is not None:
        yield Figure("others on the GPU", _share(load.gpu), "during this run on the CPU")
    if cost := report.sampler.overhead:
        text = _with_interval(cost.fraction, cost.ci95, "{:+.2f}", " %", 100)
        note = f"of the frame rate, by turns; it used {_share(report.sampler.cpu)} of all cores"
        yield Figure("sampler's cost", text, note)


def _network(report: Report) -> Iterator[Figure]:
    bundle, engine = report.bundle, report.engine or {}
    yield Figure("bundle", bundle.name or "-", bundle.sha256 or "")
    runs = [engine.get(key) for key in ("target", "precision", "backend", "version", "device")]
    artifact = f"artifact {bundle.artifact_sha256}" if bundle.artifact_sha256 else ""
    yield Figure("runs as", " ".join(str(part) for part in runs if part) or "-", artifact)
    size = f"{bundle.width}x{bundle.height}" if bundle.width else "-"
    yield Figure("input", size, str(report.flags.get("frames") or "the bundle's own scenes"))
    yield Figure("parameters", _shown("{:,}", bundle.parameters), bundle.variant or "")
    macs = None if bundle.macs is None else bundle.macs / 1e9
    yield Figure("multiply-adds", _shown("{:.2f} G", macs), "of one frame")
    for rejected in engine.get("rejected") or []:
        yield Figure("rejected", str(rejected.get("target")), str(rejected.get("reason")))


_FLAGS = {"seconds": "{} s timed", "repeats": "in {} blocks", "warmup_s": "{} s warm-up each",
          "idle_s": "{} s idle before and after", "fps": "paced at {} FPS", "soak": "soak {}",
          "sampler_hz": "sampled {} times a second", "power_mode": "power mode {} asked for",
          "allow_busy": "on a busy board, if need be"}  # fmt: skip


def _method(report: Report) -> Iterator[Figure]:
    flags = [text.format(report.flags[k]) for k, text in _FLAGS.items() if report.flags.get(k)]
    yield Figure("flags", ", ".join(flags) or "-")
    engine = report.engine or {}
    cores = engine.get("usable_cores")
    note = f"of the process; it may use {cores} cores" if cores else ""
    yield Figure("threads", str(engine.get("threads", "-")), note)
    yield Figure("host", report.host or "-", report.address or "")


def _board(report: Report) -> Iterator[Figure]:
    device = report.device
    known = filter(None, (device.model, *device.notes))
    yield Figure("device", device.description, "; ".join(known))
    if device.not_measured:
        yield Figure("not measured there", "; ".join(device.not_measured))
    yield Figure("CPU", device.cpu or device.machine, f"{device.cpu_count or '?'} cores")
    gigabytes = None if device.memory_mb is None else device.memory_mb / 1024
    chips = f", of {device.chips_mb / 1024:g} GB" if device.chips_mb else ""
    yield Figure("memory", _shown("{:.1f} GB", gigabytes), f"as Linux counts it{chips}")
    named = (("module", device.module), ("JetPack", device.jetpack), ("L4T", device.l4t))
    notes = {"JetPack": f"by {device.jetpack_by}"}
    yield from (Figure(label, value, notes.get(label, "")) for label, value in named if value)
    yield Figure("governor", _setting(device, "governor"))
    low, high = (_setting(device, f"scaling_{edge}_freq") for edge in ("min", "max"))
    if low != "-":
        locked = "locked, in kHz" if low == high else "free between these, in kHz"
        yield Figure("CPU clock limits", f"{low} to {high}", locked)
    yield Figure("system", f"{device.distribution or '-'}, Linux {device.kernel}")
    yield Figure("Python", device.python)
    yield from (Figure(package, version) for package, version in sorted(device.packages.items()))


def _setting(device: Fingerprint, ending: str) -> str:
    found = sorted(
        {text for path, text in device.settings.items() if path.endswith(ending) and text}
    )
    return ", ".join(found) or "-"


def _sustained(report: Report) -> Iterator[Figure]:
    if soak := report.soak:
        for name, point in (("cold", soak.cold), ("sustained", soak.sustained)):
            heat = _shown("{:.1f} C", point.celsius)
            yield Figure(name, f"{point.fps:.2f} FPS", f"{_watts(point.watts)}, {heat}")
        note = "" if soak.steady else "not steady yet"
        yield Figure("soak", f"{soak.minutes:.1f} minutes", note)


def _required(report: Report) -> Iterator[Figure]:
    check = report.requirements
    for wanted in check.wanted if check else ():
        missed = [text for text in check.missed if text.startswith(f"{wanted}:")] if check else []
        margin = check.margins.get(wanted) if check else None
        share = "" if margin is None else f" by {abs(margin):.1%} of the limit"
        said = missed[0].partition(": ")[2] if missed else ""
        if check and wanted in check.measured:
            said = f"measured {check.measured[wanted]}"
        yield Figure(wanted, f"{'missed' if missed else 'kept'}{share}", said)


def _with_interval(
    value: float | None, interval: Interval | None, form: str, unit: str = "", factor: float = 1
) -> str:
    if value is None:
        return "-"
    text = form.format(factor * value) + unit
    if interval is None:
        return text
    low, high = (form.format(factor * bound) for bound in interval)
    return f"{text} (95 %: {low} to {high})"


def _shown(form: str, value: float | None) -> str:
    return "-" if value is None else form.format(value)


_ms = partial(_shown, "{:.2f} ms")
_mb = partial(_shown, "{:.1f} MB")
_watts = partial(_shown, "{:.2f} W")
_share = partial(_shown, "{:.1%}")


def render(report: Report) -> RenderableType:
    """Return the report for rich.print: the verdict and its reasons, then every figure."""
    # Text, never markup: a board may be called "[red]".
    verdict = Text(report.verdict.replace("_", " "), _STYLES[report.verdict])
    verdict.append(f"   {plain(headline(report))}", style="bold")
    reasons = [
        Text(f"  {plain(reason.message)}", _SEVERITIES[reason.severity])
        for reason in report.reasons
    ]
    board = report.host or report.device.model or "board"
    return Group(Text(plain(board), "bold"), verdict, *reasons, _table(report))


def _table(report: Report) -> TextTable:
    rows = []
    for section in sections(report):
        rows.append((section.title, "", ""))
        rows += [(f"  {plain(f.label)}", plain(f.value), plain(f.note)) for f in section.figures]
    return TextTable((), rows)


def render_comparison(comparison: Comparison) -> RenderableType:
    """Return a comparison for the terminal: both verdicts and all notes, the answer, figures."""
    notes = [Text(plain(note)) for note in comparison.notes]
    reasons = [Text(f"  {plain(reason)}") for reason in comparison.reasons]
    if comparison.answer == "not_comparable":
        return Group(*notes, Text("not comparable:", style="bold red"), *reasons)
    texts = [text for texts in comparison.differs.values() for text in texts]
    rows = [
        (
            f"{found.metric} ({found.unit})",
            f"{found.a:.4g}",
            f"{found.b:.4g}",
            f"{found.change:+.1%}" if found.sure else f"{found.change:+.1%} (noise)",
            f"{interval[0]:+.1%} to {interval[1]:+.1%} ({found.level:.0%})"
            if (interval := found.interval)
            else "too few blocks",
        )
        for found in comparison.differences
    ]
    return Group(
        *notes,
        Text(f"what differs: {plain('; '.join(texts)) or 'nothing'}"),
        Text(comparison.headline, style="bold"),
        *reasons,
        TextTable(("metric", "A", "B", "change", "interval"), rows),
        Text(f"intervals: {comparison.basis}"),
    )
