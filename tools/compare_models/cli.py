"""compare_models: networks of any origin beside FastSegNet, on this machine, in one run."""

import dataclasses
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import typer
from fastseg_runtime.arrays.command import (
    DONE,
    FAILED,
    UsageError,
    exit_code_help,
    run_command,
)
from fastseg_runtime.arrays.shared_files import write_file
from rich.console import Console

import fastseg
from compare_models.report import html_page, pictures_of, tables_of
from compare_models.run import ComparisonPlan, Results, carry_out

SCORING = ("networks", "threads", "rounds", "out", "int8", "data", "score", "as_json", "version")

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.command(epilog=exit_code_help({}))(ComparisonPlan)


def compare(plan: ComparisonPlan) -> int:
    """Do what was asked, print and write the results, and return the exit code."""
    if plan.version:
        print(f"compare_models {fastseg.__version__}")
        return DONE
    if plan.data is not None and not (plan.minutes or plan.train_speed or plan.score):
        raise UsageError("--data needs --score, --minutes or --train-speed")
    if plan.minutes and plan.data is None:
        raise UsageError("--minutes needs --data KIND:PATH, which is trained on")
    if plan.score and plan.data is None:
        raise UsageError("--score needs --data KIND:PATH, whose test split is scored on")
    if plan.score and (unused := unused_by_score(plan)):
        raise UsageError(
            f"--score does not take {', '.join(unused)}: each network is scored as it was trained, "
            "and how one of others is used stands in a .toml (docs/speed.md)"
        )
    if plan.out is not None:  # one that cannot be is told before hours of measuring
        plan.out.mkdir(parents=True, exist_ok=True)
    with redirect_stdout(sys.stderr):  # networks may print
        results, ours = carry_out(plan, lambda line: print(line, file=sys.stderr))
    if plan.out is not None:
        write_report(results, ours, plan.out)
    if plan.as_json:
        print(results.to_json())
    else:
        console = Console()
        for table in tables_of(results):
            console.print(table, soft_wrap=True)
    return FAILED if results.failed else DONE


def unused_by_score(plan: ComparisonPlan) -> list[str]:
    """Return the options that were given and that --score would leave without effect."""
    return [
        f"--{field.name.replace('_', '-')}"
        for field in dataclasses.fields(plan)
        if field.name not in SCORING and getattr(plan, field.name) != field.default
    ]


def write_report(results: Results, ours: set[str], folder: Path) -> None:
    """Write report.html, results.json and the pictures, each whole or not at all."""
    pictures = pictures_of(results, ours)
    files = {
        "report.html": html_page(results, pictures).encode(),
        "results.json": results.to_json().encode(),
        **pictures,
    }
    for name, content in files.items():
        write_file(folder / name, content)
    print(f"wrote {folder / 'report.html'}", file=sys.stderr)


def main() -> None:
    """Run the command and exit."""
    run_command(
        "compare_models", partial(app, prog_name="compare_models", standalone_mode=False), compare
    )
