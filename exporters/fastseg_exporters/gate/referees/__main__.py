"""`python -m fastseg_exporters.gate.referees`: list the referees, or install them."""

import sys
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer
from fastseg_runtime.arrays.command import DONE, FAILED, complain, run_command
from fastseg_runtime.arrays.terminal import TextTable
from rich.console import Console

from fastseg_exporters.gate.referees.install import install
from fastseg_exporters.gate.referees.referee import RefereeError, referees

NAME = "referees"
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("list")
@dataclass(frozen=True)
class List:
    """Show the referees: what each is, its size and licence, whether it is installed."""


@app.command("install")
@dataclass(frozen=True)
class Install:
    """Install referees into the cache, each in an environment of its own."""

    names: Annotated[list[str] | None, typer.Argument(help="Which. Default: all.")] = None


def carry_out(options: List | Install) -> int:
    """Do what was asked and return the exit code."""
    known = referees()
    if isinstance(options, List):
        headings = ("referee", "toolchain", "MB to fetch", "MB on disk", "licence", "installed")
        rows = [
            (r.name, r.title, str(r.download_mb), str(r.installed_mb), r.licence,
             "yes" if r.is_installed else "no")
            for r in known.values()
        ]  # fmt: skip
        Console().print(TextTable(headings, rows), soft_wrap=True)
        return DONE
    code = DONE
    for name in options.names or known:
        try:
            if name not in known:
                raise RefereeError(f"no referee {name!r}; choose of {', '.join(known)}")
            install(known[name], lambda line: print(line, file=sys.stderr, flush=True))
        except RefereeError as error:
            complain(NAME, error)
            code = FAILED
    return code


if __name__ == "__main__":
    run_command(NAME, partial(app, prog_name=NAME, standalone_mode=False), carry_out)
