"""compare_models: networks of any origin beside FastSegNet, on this machine, in one run."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import torch
import typer
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.text_table import TextTable
from rich.console import Console

import fastseg
from compare_models.candidate import OwnNetworks
from compare_models.report import Sheet, html_page, pictures_of, sheets_of
from compare_models.run import ComparisonPlan, Results, carry_out

log = Console(stderr=True, highlight=False)
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def command(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            help="nano, small, base, large, lite, a checkpoint, package.module:factory, or a .onnx "
            "file; the first is the reference. Default: the first four."
        ),
    ] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Of the input.")] = "1024x512",
    classes: Annotated[int, typer.Option(min=2, max=255, help="Number of classes.")] = 19,
    threads: Annotated[int, typer.Option(min=1, help="Of ONNX Runtime.")] = 2,
    rounds: Annotated[int, typer.Option(min=3, help="How often each network is timed.")] = 20,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="A folder for report.html and PNGs.")
    ] = None,
    fast_tail: Annotated[
        bool, typer.Option("--fast-tail", help="Give other networks our class map too.")
    ] = False,
    normalization: Annotated[
        str,
        typer.Option(
            metavar="NAME|TOML",
            help="Of factories' networks: imagenet, unit, centred or a file. [centred]",
        ),
    ] = "",
    color: Annotated[str, typer.Option(help="Of factories' networks: rgb or bgr.")] = "",
    output_name: Annotated[
        str, typer.Option(help="Of factories' networks: the output that is the logits.")
    ] = "",
    threshold: Annotated[
        float, typer.Option(help="Of factories' networks with one logit (--classes 2).")
    ] = 0.5,
    int8: Annotated[bool, typer.Option("--int8", help="int8 against fp32.")] = False,
    roofline: Annotated[
        bool, typer.Option("--roofline", help="Shares of this machine's peak.")
    ] = False,
    scale: Annotated[
        bool, typer.Option("--scale", help="128x256 to 2048x1024, batches, threads 1 and 2.")
    ] = False,
    torch_device: Annotated[
        str | None, typer.Option("--torch", help="Also by torch on cpu or cuda. [cuda if there]")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="KIND:PATH", help="Train each on this, --minutes long.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Of training, each network.")] = 0,
    train_speed: Annotated[
        bool, typer.Option("--train-speed", help="Images/s against a plain DataLoader loop.")
    ] = False,
    export_cost: Annotated[
        bool, typer.Option("--export-cost", help="Seconds and memory of every target's export.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Compare networks: same size, same export, class map out, timed in turn in one process.

    compare_models rivals.nets:ddrnet_23_slim nano small base --int8 --roofline -o comparison

    A factory is called with num_classes if it takes that; the current folder is searched for its
    module. FastSegNet is exported with its own class map, others with bilinear upsampling and
    argmax as their users do (--fast-tail: with ours).

    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    if version:
        print(f"compare_models {fastseg.__version__}")
        return
    if data is not None and not (minutes or train_speed):
        raise typer.BadParameter("--data needs --minutes or --train-speed")
    plan = ComparisonPlan(
        networks=networks or ["nano", "small", "base", "large"],
        size=parse_size(size),
        classes=classes,
        threads=threads,
        rounds=rounds,
        fast_tail=fast_tail,
        own=OwnNetworks(normalization, color, output_name, threshold),
        int8=int8,
        roofline=roofline,
        torch_device=torch_device or ("cuda" if torch.cuda.is_available() else ""),
        data=data,
        minutes=minutes,
        scale=scale,
        training=train_speed,
        exports=export_cost,
        command=" ".join(["compare_models", *sys.argv[1:]]),
    )
    with redirect_stdout(sys.stderr):  # networks may print
        results, ours = carry_out(plan, lambda line: log.print(line, markup=False, soft_wrap=True))
    if out is not None:
        write_report(results, ours, out)
    show(results, as_json)


def show(results: Results, as_json: bool) -> None:
    """Print the results."""
    if as_json:
        print(results.to_json())
        return
    console = Console()
    for sheet in sheets_of(results):
        console.print(table_of(sheet), soft_wrap=True)


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
    log.print(f"wrote {folder / 'report.html'}", markup=False, soft_wrap=True)


def table_of(sheet: Sheet) -> TextTable:
    """Return a sheet for the terminal."""
    figures = range(1, len(sheet.columns))
    return TextTable(sheet.columns, sheet.rows, sheet.title, sheet.note, figures)


def main() -> None:
    """Run the command; every error is one line and an exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, RuntimeError, OSError) as error:
        log.print(f"compare_models: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
