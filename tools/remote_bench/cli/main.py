"""remote_bench: a number you can believe, from a board with nothing installed on it."""

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from fastseg_runtime.arrays.command import DONE, complain, exit_code_help, run_command
from fastseg_runtime.arrays.strict_tables import TableError
from fastseg_runtime.arrays.terminal import TextTable
from fastseg_runtime.engines.own_onnx import OwnFile
from fastseg_targets.device import recognise
from typer.core import TyperGroup

from remote_bench.analysis.comparison import compare as compare_reports
from remote_bench.analysis.report import Report, read_report, to_table
from remote_bench.analysis.requirements import Requirements
from remote_bench.cli import beforehand
from remote_bench.cli.evidence import EVIDENCE, gather_evidence
from remote_bench.host.connect import Connector
from remote_bench.host.errors import (
    COMPARED,
    EXIT_CODES,
    INVALID,
    OF_DOCTOR,
    OF_EVIDENCE,
    UNTRUSTED,
    VALID,
    BenchError,
    UsageError,
)
from remote_bench.host.host import Interrupted
from remote_bench.host.live import out, plain
from remote_bench.report.figures import render_comparison
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
from remote_bench.run.bundles import is_onnx
from remote_bench.run.fleet import on_hosts
from remote_bench.run.measurement import measure, measure_in_turns
from remote_bench.run.preparation import Preparation
from remote_bench.run.sweep import parse_sweep, summarise_sweep, sweep_table

T = TypeVar("T")
FolderOption = Annotated[
    str | None,
    typer.Option(help="Where the work folder goes on the board. Default: /var/tmp, /tmp or home."),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.toml|NAME",
        help="The board's record. Default: recognised, yours in ~/.config/fastseg/boards first.",
    ),
]
AcceptHostKeyOption = Annotated[
    str | None,
    typer.Option(
        help="SHA256:... of an unknown host key that you compared; adds it to known_hosts."
    ),
]
PasswordFdOption = Annotated[
    int | None, typer.Option(min=0, help="Read the board's password from this file descriptor.")
]
PassphraseFdOption = Annotated[
    int | None,
    typer.Option(min=0, help="The same for the passphrase of a key here; no board sees it."),
]
ViaSshOption = Annotated[
    bool,
    typer.Option(
        "--via-ssh",
        help="By your own ssh: certificates, hardware keys, GSSAPI, whatever it can.",
    ),
]
AllowBusyOption = Annotated[
    bool, typer.Option("--allow-busy", help="Measure though others use the board, and say so.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@dataclass(frozen=True, kw_only=True)
class Login:
    """How to log in: of every command that measures."""

    accept_host_key: AcceptHostKeyOption = None
    password_fd: PasswordFdOption = None
    passphrase_fd: PassphraseFdOption = None
    via_ssh: ViaSshOption = False

    def connector(self) -> Connector:
        """Return what connects so."""
        return Connector(self.accept_host_key, self.password_fd, self.passphrase_fd, self.via_ssh)


class BenchByDefault(TyperGroup):
    """Commands of which `bench` need not be named; options may stand before any name.

    The first word that is no option, nor an option's value, names the command or is a host.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name first."""
        ends = range(len(args))
        word = next((at for at in ends if self._hosts(ctx, args[: at + 1])), None)
        if word is None and "--help" in args:
            args = ["--help"]
        elif word is not None and args[word] in self.commands:
            args = [args[word], *args[:word], *args[word + 1 :]]
        else:
            args = ["bench", *args]
        return super().parse_args(ctx, args)

    def _hosts(self, ctx: Any, args: list[str]) -> object:
        bench = self.commands["bench"]
        return bench.make_context("bench", args, ctx, resilient_parsing=True).params["names"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Teach the options of `bench`, and the other commands."""
        self.commands["bench"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


app = typer.Typer(
    cls=BenchByDefault,
    subcommand_metavar="HOST... [BUNDLE|ONNX] | COMMAND ...",
    help="""Measure a bundle on boards over SSH: FPS, latency, memory, power, and a verdict.

    \b
    remote_bench jetson.local street.fastseg
    remote_bench pi@10.0.0.7 orin --require 'fps>=30,p99<=33ms' --report both.html
    remote_bench jetson.local yours.onnx --normalization imagenet
    remote_bench adb:SERIAL street.fastseg --binary ./benchmark_model     an Android phone
    remote_bench localhost --sweep nano,small --require 'fps>=30'
    remote_bench doctor jetson.local         what can be measured there, and what is missing
    remote_bench compare before.json after.json
    remote_bench evidence jetson.local       all artifacts, into a folder that you may send
    remote_bench compare --on jetson.local before.fastseg after.fastseg
    remote_bench bench doctor                measure a host that is called doctor

    Nothing is installed on a board and nothing stays, unless --keep or --deploy says so.
    """,
    epilog=exit_code_help(EXIT_CODES),
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command("bench", epilog=exit_code_help(EXIT_CODES))
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
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Of the timed run.")] = 20.0
    repeats: Annotated[
        int, typer.Option(min=1, max=100, help="Blocks of the timed run, each opened anew.")
    ] = 3
    lengthen: Annotated[
        bool, typer.Option("--lengthen", help="Run on until p99, or what --require has, is told.")
    ] = False
    soak: Annotated[
        str | None,
        typer.Option(metavar="MINUTES|steady", help="Run on: what is kept up, after the cold run."),
    ] = None
    idle: Annotated[float, typer.Option(min=0, max=600, help="Idle seconds, twice.")] = 5.0
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


@app.command("doctor", epilog=exit_code_help(OF_DOCTOR))
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


@app.command("evidence", epilog=exit_code_help(OF_EVIDENCE))
@dataclass(frozen=True)
class EvidenceOf(Login):
    """Run every artifact of a bundle on a machine, and say what nobody had run before.

    Within 15 minutes: probe, build, self-test, labelled frames, figures, and what TensorRT's layers
    are in. All that comes of it is in one folder; report.md there says which rows of README's
    "What was not run" it closes. No name, path, address, serial or key is in it: look, and send it.
    """

    names: Annotated[
        list[str],
        typer.Argument(
            metavar="HOST [BUNDLE]",
            help="A host as ssh knows it, or localhost; and a NAME.fastseg. Default: a network of "
            "ours for all targets of that board.",
        ),
    ]
    frames: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures, labels/ beside images/. Default: drawn streets."),
    ] = None
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The folder. Default: evidence-DATE-TIME.")
    ] = None
    minutes: Annotated[
        float, typer.Option(min=0.05, max=15, help="The longest that it may take.")
    ] = 15.0
    device: DeviceOption = None
    folder: FolderOption = None
    as_json: JsonOption = False

    def carry_out(self) -> int:
        """Gather, write the folder, and return the exit code."""
        hosts, bundle = beforehand.split_names(self.names)
        if len(hosts) != 1 or (bundle and is_onnx(bundle)):
            raise UsageError(f"expected one host, and one NAME.fastseg at most, got {self.names}")
        benchmark = Benchmark(
            bundle=bundle, frames=self.frames, base=self.folder,
            device=beforehand.named_device(self.device), **EVIDENCE,
        )  # fmt: skip
        beforehand.check(hosts, benchmark, None)
        folder = self.out or Path(f"evidence-{datetime.now():%Y%m%d-%H%M}")
        beforehand.check_folder(folder)
        connector = self.connector()
        return gather_evidence(hosts[0], benchmark, connector, folder, self.minutes, self.as_json)


@app.command("compare", epilog=exit_code_help(COMPARED))
@dataclass(frozen=True)
class Compare(Login):
    """Say whether two sides differ, with an interval between runs, or why nobody can tell.

    Reports of one side stand in one argument: A1.json,A2.json,A3.json. With --on the two are
    bundles, and both are measured now, in turns on that board.
    """

    a: Annotated[str, typer.Argument(metavar="A.json[,...]|A.fastseg", help="One side.")]
    b: Annotated[str, typer.Argument(metavar="B.json[,...]|B.fastseg", help="The other.")]
    on: Annotated[str | None, typer.Option(metavar="HOST", help="Measure here, in turns.")] = None
    repeats: Annotated[int, typer.Option(min=3, max=100, help="Of --on: runs of each bundle.")] = (
        Benchmark.turns
    )
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="Of --on: all runs of one bundle together.")
    ] = Benchmark.seconds
    idle: Annotated[float, typer.Option(min=0, max=600, help="Of --on: before each run.")] = 1.0
    target: Annotated[str | None, typer.Option(help="Of --on: run this artifact.")] = None
    allow_busy: AllowBusyOption = False
    device: DeviceOption = None
    folder: FolderOption = None
    as_json: JsonOption = False

    def carry_out(self) -> int:
        """Compare, and return the exit code."""
        if not self.on and (useless := self._given() - {"--as-json"}):
            raise UsageError(f"{', '.join(sorted(useless))}: only with --on HOST; reports are read")
        sides = self._measured(self.on) if self.on else (_read_all(self.a), _read_all(self.b), "")
        a, b, failed = sides
        result = compare_reports(a, b, self.on is not None, failed)
        if self.as_json:
            print(json.dumps(to_table(result), indent=1))
        else:
            out.print(render_comparison(result), soft_wrap=True)
        codes = {"not_comparable": INVALID, "cannot_tell": UNTRUSTED}
        return codes.get(result.answer, UNTRUSTED if failed else DONE)

    def _given(self) -> set[str]:
        """Return the options that are not as they are by default."""
        options = [f for f in dataclasses.fields(self) if f.default is not dataclasses.MISSING]
        return {f"--{f.name.replace('_', '-')}" for f in options
                if getattr(self, f.name) != f.default}  # fmt: skip

    def _measured(self, host: str) -> tuple[list[Report], list[Report], str]:
        benchmark = Benchmark(
            bundle=Path(self.a), target=self.target, seconds=self.seconds / self.repeats,
            repeats=1, idle_s=self.idle, base=self.folder, allow_busy=self.allow_busy,
            device=beforehand.named_device(self.device),
        )  # fmt: skip
        for bundle in (self.a, self.b):
            beforehand.check([host], dataclasses.replace(benchmark, bundle=Path(bundle)), html=None)
        connector = self.connector()
        work = partial(measure_in_turns, bundles=(Path(self.a), Path(self.b)), rounds=self.repeats)
        outcome = on_hosts([host], connector, benchmark, work)[host]
        if isinstance(outcome, BenchError):
            raise outcome
        return outcome


def _read_all(names: str) -> list[Report]:
    return [_read(Path(name)) for name in names.split(",")]


def _read(file: Path) -> Report:
    try:
        return read_report(file.read_bytes())
    except OSError as error:
        expected = "expected a report that --json printed"
        raise UsageError(f"{file}: {error.strerror}; {expected}") from error
    except TableError as error:
        raise UsageError(f"{file}: {error}") from error


def main() -> None:
    """Run the command and exit."""
    run_command(
        "remote_bench",
        partial(app, prog_name="remote_bench", standalone_mode=False),
        lambda command: command.carry_out(),
    )
