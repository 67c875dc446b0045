"""`remote_bench HOST... [BUNDLE]`: measures a bundle, or a sweep of networks, on boards."""

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from fastseg_runtime.arrays.command import DONE, complain
from fastseg_runtime.arrays.terminal import TextTable
from fastseg_runtime.engines.own_onnx import OwnFile

from remote_bench.analysis.report import Report
from remote_bench.analysis.requirements import Requirements
from remote_bench.cli import beforehand
from remote_bench.cli.options import AllowBusyOption, DeviceOption, FolderOption, JsonOption, Login
from remote_bench.host.connect import Connector
from remote_bench.host.errors import INVALID, VALID, BenchError, UsageError
from remote_bench.host.host import Interrupted
from remote_bench.host.live import out, plain
from remote_bench.report.outcome import (
    Outcome,
    check_report,
    check_requirements,
    exit_code,
    publish,
    record_all,
)
from remote_bench.run import detach
from remote_bench.run.benchmark import TOOL, Benchmark, Measurement, Untrained
from remote_bench.run.fleet import on_hosts
from remote_bench.run.measurement import measure
from remote_bench.run.sweep import parse_sweep

T = TypeVar("T")


@dataclass(frozen=True)
class Bench(Login):
    """Measure a bundle on boards: what is done where no command is named."""

    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="HOST... [BUNDLE|ONNX]",
            help="Hosts as ssh knows them, or localhost; and a NAME.fastseg, or a NAME.onnx of "
            "yours. Default: the newest bundle here, else one exported from our own network.",
        ),
    ] = None
    target: Annotated[str | None, typer.Option(help="Run this artifact of the bundle.")] = None
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Of the timed run.")] = (
        Benchmark.seconds
    )
    repeats: Annotated[
        int, typer.Option(min=1, max=100, help="Blocks of the timed run, each opened anew.")
    ] = Benchmark.repeats
    lengthen: Annotated[
        bool, typer.Option("--lengthen", help="Run on until p99, or what --require has, is told.")
    ] = False
    soak: Annotated[
        str | None,
        typer.Option(metavar="MINUTES|steady", help="Run on: what is kept up, after the cold run."),
    ] = None
    idle: Annotated[float, typer.Option(min=0, max=600, help="Idle seconds, twice.")] = (
        Benchmark.idle_s
    )
    allow_busy: AllowBusyOption = False
    strict: Annotated[
        bool, typer.Option("--strict", help="A run with notes is invalid (code 9).")
    ] = False
    frames: Annotated[
        Path | None, typer.Option(help="Folder of pictures (labels/ beside images/) or a video.")
    ] = None
    fps: Annotated[float | None, typer.Option(min=0.1, max=10_000, help="A paced run as well.")] = (
        None
    )
    power_mode: Annotated[str | None, typer.Option(help="Of nvpmodel; given back.")] = None
    size: Annotated[str | None, typer.Option(help="WxH, of an ONNX file for any size.")] = None
    fit: Annotated[str | None, typer.Option(help="stretch or letterbox, of an ONNX file.")] = None
    normalization: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|TOML",
            help="Of an ONNX file that takes floats; this and the next as in fastseg-export.",
        ),
    ] = None
    color: Annotated[str | None, typer.Option(help="rgb or bgr, of an ONNX file.")] = None
    output_name: Annotated[str | None, typer.Option(help="Of an ONNX file: the logits.")] = None
    threshold: Annotated[float | None, typer.Option(help="Of an ONNX file with one logit.")] = None
    require: Annotated[
        str | None, typer.Option(help="Limits: fps>=30,p99<=33ms,memory<=500MB,power<=10W,valid.")
    ] = None
    require_usage: Annotated[
        str | None,
        typer.Option(help="commercial: refuse weights that are not known to allow it (code 1)."),
    ] = None
    sweep: Annotated[
        str | None, typer.Option(help="Untrained networks instead: nano,small,base,large.")
    ] = None
    sizes: Annotated[str, typer.Option(help="Of --sweep, WxH.")] = "512x256,1024x512"
    deploy: Annotated[
        str | None, typer.Option(help="Leave runtime, bundle and engine in this board folder.")
    ] = None
    record: Annotated[bool, typer.Option("--record", help="Write the figures into the bundle.")] = (
        False
    )
    detach: Annotated[
        bool, typer.Option("--detach", help="Start, print the run's name, and leave.")
    ] = False
    resume: Annotated[str | None, typer.Option(help="Fetch a detached run by name.")] = None
    binary: Annotated[
        str | None,
        typer.Option(
            metavar="'FILE ARGUMENTS'",
            help="Of adb:SERIAL: LiteRT's benchmark_model for the phone, or onnxruntime_perf_test.",
        ),
    ] = None
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave uploads and engine there for the next run.")
    ] = False
    device: DeviceOption = None
    folder: FolderOption = None
    as_json: JsonOption = False
    report: Annotated[
        Path | None, typer.Option("--report", help="Write a page with plots here.")
    ] = None
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False

    def benchmark(self, bundle: Path | None, wanted: Requirements | None) -> Benchmark:
        """Return what to measure on each board."""
        return Benchmark(
            percentiles=(wanted and wanted.percentiles) or Benchmark.percentiles,
            lengthen=self.lengthen, soak=self.soak, allow_busy=self.allow_busy,
            bundle=bundle, target=self.target, seconds=self.seconds, repeats=self.repeats,
            idle_s=self.idle, frames=self.frames, fps=self.fps, power_mode=self.power_mode,
            deploy=self.deploy, keep=self.keep, base=self.folder, require_usage=self.require_usage,
            device=beforehand.named_device(self.device), binary=beforehand.words(self.binary),
            own_file=OwnFile(
                self.size, self.normalization, self.color, self.output_name, self.threshold,
                self.fit,
            ),
        )  # fmt: skip

    def carry_out(self) -> int:
        """Measure, and return the exit code."""
        if self.version:
            print(f"remote_bench ({TOOL})")
            return DONE
        hosts, bundle = beforehand.split_names(self.names or [])
        wanted = beforehand.requirements(self.require)
        beforehand.check_soak(self.soak)
        benchmark = self.benchmark(bundle, wanted)
        connector = self.connector()
        given = {f"--{name.replace('_', '-')}": value for name, value in vars(self).items()}
        phones = [host for host in hosts if host.startswith("adb:")]
        beforehand.check_together(given | {"a host": hosts, "a bundle": bundle, "adb:": phones})
        if self.binary and len(phones) < len(hosts):
            raise UsageError(f"--binary is for adb:SERIAL alone, got {hosts}")
        if self.resume is None and not hosts:
            raise UsageError("expected a host, such as jetson.local or localhost")
        beforehand.check(hosts, benchmark, self.report)
        if self.detach:
            return _detach(hosts, benchmark, connector, self.as_json)
        if self.sweep is not None:
            networks = parse_sweep(self.sweep, self.sizes)
            return _sweep(hosts, benchmark, networks, connector, wanted, self.as_json)
        outcomes: dict[str, Outcome]
        check = partial(check_report, requirements=wanted, strict=self.strict)
        if self.resume:
            run = detach.load_run(self.resume)
            outcomes = on_hosts(
                [run.host], connector, run.benchmark, partial(detach.resume, run, check=check)
            )
        else:
            outcomes = on_hosts(hosts, connector, benchmark, partial(measure, check=check))
        outcomes = {
            host: check_requirements(found, wanted, self.strict) for host, found in outcomes.items()
        }
        publish(outcomes, self.as_json, self.report)
        if self.record:
            record_all(outcomes)
        return max(map(exit_code, outcomes.values()))


def _detach(hosts: list[str], benchmark: Benchmark, connector: Connector, as_json: bool) -> int:
    started, code = _told(on_hosts(hosts, connector, benchmark, detach.start))
    runs = {host: one.run for host, one in started.items()}
    if as_json:
        print(json.dumps({"runs": runs}))
    else:
        for host, run in runs.items():
            print(f"{host}: {run} goes on without you; fetch it: remote_bench --resume {run}")
    return code


def _sweep(
    hosts: list[str],
    benchmark: Benchmark,
    networks: list[Untrained],
    connector: Connector,
    wanted: Requirements | None,
    as_json: bool,
) -> int:
    def work(measurement: Measurement) -> tuple[dict[str, Any], int]:
        reports: list[Report] = []
        for network in networks:
            one = dataclasses.replace(benchmark, untrained=network)
            try:
                reports.append(measure(dataclasses.replace(measurement, benchmark=one)))
            except BenchError as error:  # what was measured stays
                if not reports or isinstance(error, Interrupted):
                    raise
                return summarise_sweep(reports, wanted), complain("remote_bench", error)
        found = summarise_sweep(reports, wanted)
        failed = [exit_code(report) for report in reports if report.error]
        return found, VALID if found["largest"] else max(failed, default=INVALID)

    done, code = _told(on_hosts(hosts, connector, benchmark, work))
    sweeps = {host: found for host, (found, _) in done.items()}
    if as_json:
        print(json.dumps({"schema": 1, "sweeps": sweeps}, indent=1))
    else:
        for host, found in sweeps.items():
            out.print(sweep_table(host, found), soft_wrap=True)
            print(f"{host}: the largest that does: {found['largest'] or 'none'}")
    return max([code, *(own for _, own in done.values())])


def _told(outcomes: dict[str, T | BenchError]) -> tuple[dict[str, T], int]:
    """Complain about the hosts that failed; return what came of the others, and the exit code."""
    done = {host: one for host, one in outcomes.items() if not isinstance(one, BenchError)}
    errors = [error for error in outcomes.values() if isinstance(error, BenchError)]
    return done, max([complain("remote_bench", error) for error in errors], default=VALID)


def summarise_sweep(reports: list[Report], requirements: Requirements | None) -> dict[str, Any]:
    """Return {"networks", "largest"}: a row a network, and the name of the largest that does.

    Largest is by multiply-adds; without requirements any valid run does.
    """
    rows = [_row(report, requirements) for report in reports]
    good = [row for row in rows if row["verdict"] != "invalid" and not row["missed"]]
    largest = max(good, key=lambda row: int(row["macs"]), default=None)
    return {"networks": rows, "largest": largest["network"] if largest else None}


def _row(report: Report, requirements: Requirements | None) -> dict[str, Any]:
    bundle, latency, power = report.bundle, report.latency_ms, report.power
    return {
        "network": f"{bundle.variant}-{bundle.width}x{bundle.height}",
        "macs": bundle.macs,
        "parameters": bundle.parameters,
        "verdict": report.verdict,
        "error": report.error.message if report.error else None,
        "fps": report.fps,
        "p50_ms": latency.p50 if latency else None,
        "p99_ms": latency.p99 if latency else None,
        "memory_mb": report.memory.peak_mb,
        "power_w": power.flat_out.mean_w if power else None,
        "missed": list(requirements.check(report).missed) if requirements else [],
    }


def sweep_table(host: str, sweep: dict[str, Any]) -> TextTable:
    """Return the rows of a sweep for the terminal."""
    names = (
        "network",
        "GMACs",
        "FPS",
        "p50 ms",
        "p99 ms",
        "MB",
        "W",
        "verdict",
        "why",
    )
    figures = ("fps", "p50_ms", "p99_ms", "memory_mb", "power_w")
    rows = [
        (
            row["network"],
            f"{row['macs'] / 1e9:.2f}",
            *("-" if row[key] is None else f"{row[key]:.1f}" for key in figures),
            row["verdict"].replace("_", " "),
            plain(row["error"] or "; ".join(row["missed"])),
        )
        for row in sweep["networks"]
    ]
    return TextTable(names, rows, plain(host), right=range(1, 7))
