"""remote_bench: a number you can believe, from a board with nothing installed on it."""

from functools import partial
from typing import Any

import typer
from fastseg_runtime.arrays.command import exit_code_help, run_command
from typer.core import TyperGroup

from remote_bench.cli.bench import Bench
from remote_bench.cli.compare import Compare
from remote_bench.cli.doctor import Doctor
from remote_bench.cli.evidence import EvidenceOf
from remote_bench.host.errors import COMPARED, EXIT_CODES, OF_DOCTOR, OF_EVIDENCE


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
app.command("bench", epilog=exit_code_help(EXIT_CODES))(Bench)
app.command("doctor", epilog=exit_code_help(OF_DOCTOR))(Doctor)
app.command("evidence", epilog=exit_code_help(OF_EVIDENCE))(EvidenceOf)
app.command("compare", epilog=exit_code_help(COMPARED))(Compare)


def main() -> None:
    """Run the command and exit."""
    run_command(
        "remote_bench",
        partial(app, prog_name="remote_bench", standalone_mode=False),
        lambda command: command.carry_out(),
    )
