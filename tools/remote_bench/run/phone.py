"""One measurement on an Android phone: a benchmark tool of the user's is pushed, run and removed.

Its figures stand in our report with what they leave out.
"""

import dataclasses
import hashlib
import re
import secrets
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastseg_runtime.arrays.stats import PERCENTILES, frames_needed
from fastseg_runtime.bundle.manifest import Artifact
from fastseg_runtime.bundle.reader import inner_name, open_bundle
from fastseg_targets.device import recognise

from remote_bench.analysis.bench_tools import LEFT_OUT, Tool, ToolTimes, tool_of
from remote_bench.analysis.conditions import Conditions, Memory, Throttling, ZoneCelsius
from remote_bench.analysis.frame_times import Latency, StageMedians
from remote_bench.analysis.report import Block, Report
from remote_bench.analysis.result import (
    BoardProbe,
    CpuProbe,
    Failure,
    Load,
    MemoryProbe,
    Probe,
    PythonProbe,
    Result,
    SystemProbe,
)
from remote_bench.analysis.stats import ratio_ci95
from remote_bench.analysis.summary import summarise
from remote_bench.analysis.verdict import judge
from remote_bench.host.adb import AdbHost, quoted
from remote_bench.host.errors import DeviceFailure, MissingRequirement, UsageError
from remote_bench.host.live import plain
from remote_bench.run.benchmark import TOOL, Measurement
from remote_bench.run.bundles import choose_bundle, describe, is_onnx, read_manifest

_FOLDER = "/data/local/tmp/fastseg-"  # the one place where adb's user may run a program
_PATIENCE_S = 180.0  # beyond the seconds: loading, a GPU's shaders, a slow network's few runs
_SAID_CHARACTERS = 300
_DEFAULTS = {"tflite": "android-fp16", "onnx": "cpu-fp32"}  # of a bundle that is made here
_PROPERTY = re.compile(r"^\[([\w.]+)\]: \[(.*)\]", re.MULTILINE)
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def measure_phone(host: AdbHost, measurement: Measurement) -> Report:
    """Measure and return the report; a tool that fails gives one too.

    Raises:
        BenchError: it did not come to a run, or was called off. The phone is clean in any case,
            unless it is gone.
    """
    wanted, watch = measurement.benchmark, measurement.watch
    if not wanted.binary:
        raise UsageError(
            f"{host.name}: expected --binary FILE, LiteRT's benchmark_model for Android, or "
            "onnxruntime_perf_test"
        )
    if not Path(wanted.binary[0]).is_file():
        raise UsageError(
            f"--binary {wanted.binary[0]}: no such file; expected a tool for the phone"
        )
    watch.phase("probe")
    phone, tool = Phone(host), tool_of(Path(wanted.binary[0]).name)
    device = recognise(dataclasses.asdict(phone.probe), wanted.device)
    is_made_here = wanted.bundle is None or is_onnx(wanted.bundle)
    target = wanted.target or (_DEFAULTS[tool.format] if is_made_here else None)
    bundle = choose_bundle(wanted.bundle, target, device, watch, wanted.own_file)
    manifest = read_manifest(bundle, wanted.target)
    artifact = _artifact_for(tool, manifest.artifacts, wanted.target, str(bundle))
    watch.note(f"{artifact.target}, by {tool.name}: {LEFT_OUT}")
    sha256 = hashlib.sha256(bundle.read_bytes()).hexdigest()
    runs, failure = _runs(phone, measurement, tool, bundle, artifact)
    facts = describe(manifest, sha256, artifact.target)
    request = {"seconds": wanted.seconds, "repeats": wanted.repeats, "warmup_s": wanted.warmup_s,
               "sampler_hz": 0, "binary": Path(wanted.binary[0]).name,
               "arguments": list(wanted.binary[1:])}  # fmt: skip
    report = summarise(
        Result(1, request, phone.probe, (), {}, (), {}, failure),
        device=device,
        bundle=dataclasses.replace(facts, path=str(bundle)),
        host=host.name,
        address=host.address,
        tool=TOOL,
    )
    report = _with_times(report, runs, tool, artifact, phone) if runs else report
    verdict, reasons = judge(report)
    return dataclasses.replace(report, verdict=verdict, reasons=reasons)


class Phone:
    """What Android's own commands tell of a phone."""

    def __init__(self, host: AdbHost) -> None:
        self.host = host
        self.began_s, self.celsius = time.monotonic(), self.battery_celsius()
        properties = dict(_PROPERTY.findall(self._said("getprop")))
        model = " ".join(
            filter(None, map(properties.get, ("ro.product.manufacturer", "ro.product.model")))
        )
        names = ("ro.soc.manufacturer", "ro.soc.model", "ro.board.platform")
        soc = " ".join(filter(None, map(properties.get, names)))
        memory = dict(re.findall(r"^(\w+): +([0-9]+) kB", self._said("cat /proc/meminfo"), re.M))
        total, free = (memory.get(name) for name in ("MemTotal", "MemAvailable"))
        cores, machine = self._said("nproc"), self._said("uname -m")
        self.probe = Probe(
            board=BoardProbe(
                plain(model) or None, (), None,
                hashlib.sha256(host.address.encode()).hexdigest(), dmi=("android",),
            ),
            system=SystemProbe(
                plain(machine), plain(self._said("uname -r")),
                f"Android {plain(properties.get('ro.build.version.release', '?'))}", None, 2000,
            ),
            cpu=CpuProbe(plain(soc) or None, int(cores) if cores.isdigit() else None),
            memory=MemoryProbe(int(total) if total else None, int(free) if free else None),
            jetson=None, python=PythonProbe("none", {}), packages={}, power_mode=None,
            settings={}, tools={}, readable=(),
        )  # fmt: skip

    def _said(self, line: str) -> str:
        status, said = self.host.shell(line)
        return said.strip() if status == 0 else ""

    def battery_celsius(self) -> float | None:
        """Return the battery's temperature, the one that every phone tells."""
        found = re.search(r"^ *temperature: *(-?[0-9]{1,4})", self._said("dumpsys battery"), re.M)
        return int(found.group(1)) / 10 if found else None

    def thermal_status(self) -> int | None:
        """Return Android's thermal status, 0 for none; None before Android 10."""
        found = re.search(r"Thermal Status: *([0-6])", self._said("dumpsys thermalservice"))
        return int(found.group(1)) if found else None


def _artifact_for(
    tool: Tool, artifacts: Sequence[Artifact], target: str | None, bundle: str
) -> Artifact:
    fitting = [one for one in artifacts if one.format == tool.format]
    named = [one for one in fitting if one.target == target] if target else fitting
    if not named:
        has = ", ".join(f"{one.target} ({one.format})" for one in artifacts)
        what = f"target {target}" if target else "artifact"
        raise MissingRequirement(
            f"{bundle}: no {what} of the format {tool.format}, which {tool.name} runs; it has "
            f"{has}; fastseg-export --target {_DEFAULTS[tool.format]} adds one"
        )
    return named[0]


def _runs(
    phone: Phone, measurement: Measurement, tool: Tool, bundle: Path, artifact: Artifact
) -> tuple[list[tuple[ToolTimes, int | None]], Failure | None]:
    """Return the times of each block, with Android's thermal status after it, and what failed."""
    wanted, watch, host = measurement.benchmark, measurement.watch, phone.host
    folder = _FOLDER + secrets.token_hex(6)
    runs: list[tuple[ToolTimes, int | None]] = []
    stop = ""
    try:
        watch.phase("upload")
        with tempfile.TemporaryDirectory() as here, open_bundle(bundle) as opened:
            opened.extract(artifact.target, Path(here, "model"))
            host.shell(f"mkdir -p {folder}")
            host.push(str(Path(here, "model")), f"{folder}/model")
        host.push(wanted.binary[0], f"{folder}/tool")
        host.shell(f"chmod 755 {folder}/tool")
        model = f"{folder}/model/{inner_name(artifact.entry)}"
        seconds = wanted.seconds / wanted.repeats
        arguments = [*wanted.binary[1:], *tool.arguments(model, seconds, wanted.warmup_s)]
        line = f"cd {folder} && echo $$ > pid && exec ./tool {quoted(arguments)}"
        watch.phase("run")
        for number in range(wanted.repeats):
            limit_s = seconds + wanted.warmup_s + _PATIENCE_S
            stop = f"kill -9 $(cat {folder}/pid) 2>/dev/null; "  # whatever ends the line below
            status, said = host.shell(line, limit_s, measurement.cancel.check)
            stop = stop if status is None else ""
            try:
                runs.append((_times(tool, status, said), phone.thermal_status()))
            except DeviceFailure as error:
                return [], Failure("tool_failed", str(error))
            watch.progress(number + 1, wanted.repeats, 1e3 / runs[-1][0].mean_ms)
        return runs, None
    finally:
        watch.phase("clean up")
        status, said = host.shell(f"{stop}rm -rf {folder}")
        if status != 0:
            why = plain(said)[:_SAID_CHARACTERS] if status else "adb gave no answer"
            watch.note(f"{host.name}: {folder} is left there: {why}")


def _times(tool: Tool, status: int | None, said: str) -> ToolTimes:
    if status == 0:
        try:
            return tool.read(said)
        except ValueError as error:
            raise DeviceFailure(f"{tool.name} printed what nobody knows: {error}") from error
    ended = "had no end in time" if status is None else f"ended with status {status}"
    told = plain(said.strip().rpartition("\n")[2])[:_SAID_CHARACTERS] or "nothing"
    advice = "expected a build for the phone's processor, which takes these arguments"
    raise DeviceFailure(f"{tool.name} {ended} and said {told!r}; {advice}")


def _with_times(
    report: Report,
    runs: Sequence[tuple[ToolTimes, int | None]],
    tool: Tool,
    artifact: Artifact,
    phone: Phone,
) -> Report:
    times = [one for one, _ in runs]
    count = sum(one.count for one in times)
    whole_ms = sum(one.count * one.mean_ms for one in times)
    rates = [1e3 / one.mean_ms for one in times]
    engine: dict[str, Any] = {
        "backend": tool.name,
        "target": artifact.target,
        "precision": artifact.precision,
        "delegates": list(times[-1].delegates),
        "left_out": LEFT_OUT,
    }
    first = times[0].init_ms
    peak_mb = max((one.memory_mb for one in times if one.memory_mb), default=None)
    return dataclasses.replace(
        report,
        fps=1e3 * count / whole_ms,
        fps_ci95=ratio_ci95(rates),
        fps_ci95_basis=f"between {len(runs)} calls of {tool.name}",
        blocks=_blocks(times),
        latency_ms=_latency(times, count, whole_ms, tool),
        engine=engine,
        load=None if first is None else Load(False, first, first, times[-1].init_ms or first),
        memory=Memory(f"{tool.name}'s own figure", None, None, peak_mb, None, None, False),
        power_reason="a phone's sensors show the battery's current, charged over USB",
        conditions=_conditions(phone, [status for _, status in runs]),
        not_watched={"throttling": "no Thermal Status in dumpsys thermalservice (Android 10)"}
        if runs[-1][1] is None
        else {},
    )


def _blocks(times: Sequence[ToolTimes]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for one in times:
        begin = blocks[-1].begin + blocks[-1].seconds if blocks else 0.0
        seconds = one.count * one.mean_ms / 1e3
        latency = {name: one.percentiles_ms.get(name) for name in PERCENTILES}
        blocks.append(Block(begin, seconds, one.count, 1e3 / one.mean_ms, latency, None, None))
    return tuple(blocks)


def _latency(times: Sequence[ToolTimes], count: int, whole_ms: float, tool: Tool) -> Latency:
    """Return percentiles, each the median of the calls' where all had the frames for it."""
    found: dict[str, float | None] = {}
    reasons = {}
    for name, fraction in PERCENTILES.items():
        known = [one.percentiles_ms.get(name) for one in times]
        values = [value for value in known if value is not None]
        least = min(one.count for one in times)
        enough = least >= frames_needed(fraction)
        found[name] = statistics.median(values) if enough and len(values) == len(times) else None
        if found[name] is None:
            needs = f"needs {frames_needed(fraction)} frames a call, has {least}"
            reasons[name] = f"{tool.name} does not print it" if enough else needs
    mean_ms = whole_ms / count
    return Latency(
        **{name.replace(".", "_"): value for name, value in found.items()},
        ci95={},
        reasons=reasons,
        min=min(one.min_ms for one in times),
        max=max(one.max_ms for one in times),
        mean=mean_ms,
        count=count,
        parts=StageMedians(None, found["p50"], None),
        includes=LEFT_OUT,
    )


def _conditions(phone: Phone, statuses: Sequence[int | None]) -> Conditions:
    begin, end = phone.celsius, phone.battery_celsius()
    zones = {}
    if begin is not None and end is not None:
        minutes = (time.monotonic() - phone.began_s) / 60
        zones["battery"] = ZoneCelsius(begin, end, max(begin, end), (end - begin) / minutes)
    worst = max((status for status in statuses if status is not None), default=0)
    alerts = (f"Android's thermal status was {worst} ({_THERMAL[worst]})",) if worst else ()
    return Conditions(None, zones, {}, Throttling(alerts, {}, {}), None)
