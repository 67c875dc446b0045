"""`remote_bench compare`: two sides, of reports or measured in turns now."""

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from fastseg_runtime.arrays.command import DONE
from fastseg_runtime.arrays.strict_tables import TableError

from remote_bench.analysis.comparison import compare as compare_reports
from remote_bench.analysis.report import Report, read_report, to_table
from remote_bench.cli import beforehand
from remote_bench.cli.options import AllowBusyOption, DeviceOption, FolderOption, JsonOption, Login
from remote_bench.host.errors import INVALID, UNTRUSTED, BenchError, UsageError
from remote_bench.host.live import out
from remote_bench.report.figures import render_comparison
from remote_bench.run.benchmark import Benchmark
from remote_bench.run.fleet import on_hosts
from remote_bench.run.measurement import measure_in_turns


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
