"""`remote_bench doctor` and `remote_bench compare`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from remote_bench.analysis import schema
from remote_bench.analysis.comparison import compare as compare_reports
from remote_bench.cli import doctor as doctoring
from remote_bench.cli import options
from remote_bench.host.connect import Connector
from remote_bench.host.console import EXIT_CODE_HELP, log, one_line_errors, out
from remote_bench.host.errors import INVALID, UsageError
from remote_bench.host.live import LiveView
from remote_bench.host.watch import Cancel
from remote_bench.report.figures import render_comparison
from remote_bench.run.plan import Plan

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXIT_CODE_HELP)
@one_line_errors
def doctor(
    name: Annotated[str, typer.Argument(metavar="HOST", help="As ssh knows it, or localhost.")],
    folder: options.Folder = None,
    accept_host_key: options.AcceptHostKey = None,
    password_fd: options.PasswordFd = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what can be measured on a board, with and without root, and how to get the rest.

    Changes nothing there and leaves nothing.
    """
    with LiveView(log, [name]) as view:
        row = view.rows[name]
        host = Connector(accept_host_key, password_fd).connect(name, row)
        try:
            findings = doctoring.examine(host, Plan(base=folder), row, Cancel())
        finally:
            host.close()
    if as_json:
        print(json.dumps(findings, indent=1))
    else:
        out.print(doctoring.table(findings), soft_wrap=True)


@app.command(epilog="Exit codes: 0 comparable; 2 no such report; 3 not comparable")
@one_line_errors
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="A report, from --json.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another.")],
    as_json: options.AsJson = False,
) -> None:
    """Give the difference of two reports with its confidence interval, or why there is none."""
    result = compare_reports(_read(a), _read(b))
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        out.print(render_comparison(result), soft_wrap=True)
    raise typer.Exit(0 if result["comparable"] else INVALID)


def _read(file: Path) -> dict[str, Any]:
    try:
        return schema.parse(file.read_bytes(), "report")
    except (OSError, schema.SchemaError) as error:
        raise UsageError(f"{file}: {error}") from error
