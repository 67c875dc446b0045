"""`remote_bench evidence`: gathers on one host, and leaves a folder whatever ends it."""

import contextlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from fastseg_runtime.arrays.command import DONE, complain

from remote_bench.analysis.evidence import Evidence
from remote_bench.analysis.report import Report
from remote_bench.cli import beforehand
from remote_bench.cli.options import DeviceOption, FolderOption, JsonOption, Login
from remote_bench.host.connect import Connector
from remote_bench.host.errors import INVALID, BenchError, MissingRequirement, UsageError
from remote_bench.host.live import log, out, plain
from remote_bench.report.anonymous import Cleaner
from remote_bench.report.evidence import REPORT, tables, write_folder
from remote_bench.report.outcome import exit_code
from remote_bench.run.benchmark import Benchmark
from remote_bench.run.bundles import is_onnx
from remote_bench.run.evidence import Gathering
from remote_bench.run.fleet import on_hosts

# Of each artifact: a median and its interval, within half a minute with all that is around it.
# What runs, and is right, does so whoever else is there; of the speed the verdict says that.
EVIDENCE: dict[str, Any] = {"every_target": True, "seconds": 10.0, "idle_s": 2.0, "warmup_s": 1.0,
                            "allow_busy": True}  # fmt: skip


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


def gather_evidence(
    host: str,
    benchmark: Benchmark,
    connector: Connector,
    folder: Path,
    minutes: float,
    as_json: bool,
) -> int:
    """Run every artifact on a host, write the folder, print the report; return the exit code.

    Raises:
        BenchError: nothing could be begun there; then there is no folder.
    """

    def keep(evidence: Evidence, report: Report | None) -> None:
        write_folder(folder, evidence, Cleaner(gathering.names, gathering.versions), report)

    gathering = Gathering(keep)
    outcome: BenchError | None = BenchError("left at once")  # by a second Ctrl-C
    try:
        outcome = on_hosts([host], connector, benchmark, gathering.on, 60 * minutes)[host]
    finally:
        evidence = gathering.end("" if outcome is None else str(outcome))
    if evidence is None:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise outcome or BenchError(f"{host}: nothing came of it")
    _tell(evidence, folder, as_json)
    codes = [complain("remote_bench", outcome)] if outcome else []
    codes += [exit_code(report) for report in gathering.reports]
    cut_off = plain(outcome) if outcome else ""
    codes += [INVALID for run in evidence.runs if run.failed and run.problem != cut_off]
    codes += [] if outcome or evidence.ran else [MissingRequirement.exit_code]
    return max(codes, default=DONE)


def _tell(evidence: Evidence, folder: Path, as_json: bool) -> None:
    if as_json:
        print((folder / REPORT).read_text("utf-8"), end="")
        return
    for table in tables(evidence):
        out.print(table, soft_wrap=True)
    text = f"evidence: {folder / 'report.md'}; no name, address or path is in it: look, and send it"
    log.print(text, markup=False, soft_wrap=True)
