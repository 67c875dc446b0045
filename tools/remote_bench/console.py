"""The two consoles, and how an error ends a command."""

import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from rich.console import Console

from remote_bench.errors import EXIT_CODES, INTERRUPTED, BenchError
from remote_bench.plain import plain

log = Console(stderr=True, highlight=False)
out = Console(highlight=False)
EXIT_CODE_HELP = "Exit codes: " + "; ".join(f"{code} {what}" for code, what in EXIT_CODES.items())


def run_command(command: Callable[[], Any]) -> NoReturn:
    """Run a command; every error is one line and an exit code.

    SIGTERM and SIGHUP end it as Ctrl-C does: the boards are cleaned up.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BenchError as error:
        complain(error)
        sys.exit(error.exit_code)
    sys.exit(0)


def complain(error: BenchError) -> None:
    """Print an error in one line."""
    log.print(f"remote_bench: {plain(error)}", markup=False, soft_wrap=True)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
