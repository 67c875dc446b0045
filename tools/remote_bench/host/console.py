"""The two consoles, and how an error ends a command."""

import functools
import signal
from collections.abc import Callable
from typing import NoReturn, ParamSpec

import typer
from rich.console import Console

from remote_bench.host.errors import EXIT_CODES, INTERRUPTED, BenchError
from remote_bench.host.plain import plain

P = ParamSpec("P")
log = Console(stderr=True, highlight=False)
out = Console(highlight=False)
EXIT_CODE_HELP = "Exit codes: " + "; ".join(f"{code} {what}" for code, what in EXIT_CODES.items())


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Make every error of a command one line and an exit code.

    SIGTERM and SIGHUP end it as Ctrl-C does: the boards are cleaned up.
    """

    @functools.wraps(command)
    def wrapped(*arguments: P.args, **options: P.kwargs) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        try:
            command(*arguments, **options)
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error
        except BenchError as error:
            complain(error)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:  # of this machine: a full disk, a folder that cannot be written
            complain(BenchError(error))
            raise typer.Exit(BenchError.exit_code) from error

    return wrapped


def complain(error: BenchError) -> None:
    """Print an error in one line."""
    log.print(f"remote_bench: {plain(error)}", markup=False, soft_wrap=True)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
