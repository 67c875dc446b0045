"""How each of our commands ends: in order at a signal, with one line at an error, and a code.

An error that its user can mend is one line; a mistake of ours shows its trace.
"""

import contextlib
import io
import opcode
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Callable, Dict, Iterator, List, Mapping, NoReturn, Optional, Tuple, Type

from fastseg_runtime.arrays.terminal import printable

DONE, FAILED, USAGE, INVALID = 0, 1, 2, 3
INTERRUPTED = 130  # as shells have it: 128 and the number of the signal
_EXIT_CODES = {
    DONE: "done",
    FAILED: "failed",
    USAGE: "wrong usage",
    129: "stopped by SIGHUP",
    INTERRUPTED: "stopped by Ctrl-C",
    143: "stopped by SIGTERM",
}
# What Python raises at a mistake in the code itself, whatever that code was about.
BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)
# Packages whose own exceptions are sentences for users, of whatever class they are.
_OURS = ("fastseg", "remote_bench", "compare_models")
MOST_PIXELS = "OPENCV_IO_MAX_IMAGE_PIXELS"  # of a picture, for OpenCV
_RAISE = opcode.opmap["RAISE_VARARGS"]
_LONGEST = 2000  # characters of a message, which may be a device's
Handler = Callable[[int, Optional[FrameType]], None]


class UsageError(ValueError):
    """What was asked for cannot be done; the message says what was expected."""

    exit_code = USAGE


class Stopped(KeyboardInterrupt):
    """A signal: whatever ends in order at Ctrl-C does so at SIGTERM and SIGHUP too."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__("stopped")
        self.exit_code = 128 + number


def limit_pictures() -> None:
    """Let OpenCV read no more than 134 million pixels: a picture may say anything of its size.

    For commands, before OpenCV is loaded; in an app it is the app's own OpenCV.
    """
    os.environ.setdefault(MOST_PIXELS, str(1 << 27))


def exit_code_help(own: Mapping[int, str]) -> str:
    """Return the exit codes of a command, with its `own` words for some, for its --help."""
    codes = {**_EXIT_CODES, **own}
    return "Exit codes: " + "; ".join(f"{code} {codes[code]}" for code in sorted(codes)) + "."


def run_command(
    name: str,
    parse: Callable[[], Any],
    carry_out: Callable[[Any], Optional[int]],
    mistakes: Tuple[Type[Exception], ...] = (),
) -> NoReturn:
    """Run a command to its end, and exit.

    Args:
        name: what the user typed; begins the line of an error.
        parse: returns the options, or the exit code where --help was all.
        carry_out: takes the options; returns the exit code, None for DONE.
        mistakes: what its user can mend, besides the exceptions of our own packages and the
            ValueErrors that these raise, those that carry an `exit_code`, those of the system, a
            full memory, and a library that an ImportError asks for.
    """
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed: `>&-`
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that its encoding lacks ends no run
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with on_signals(_stop):
            options = parse()
            code = options if isinstance(options, int) else carry_out(options)
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        code = complain(name, stop if isinstance(stop, Stopped) else Stopped())
    except BrokenPipeError:  # `| head` has seen enough; Python would flush once more, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except Exception as error:
        told = isinstance(error, (*mistakes, OSError, MemoryError)) or hasattr(error, "exit_code")
        told = told or (isinstance(error, ValueError) and _said_by_us(error))
        asks_for_a_library = isinstance(error, ImportError) and error.name is None
        if not (told or asks_for_a_library or type(error).__module__.startswith(_OURS)):
            raise
        code = complain(name, error)
    sys.exit(code)


def _said_by_us(error: Exception) -> bool:
    """Return whether a `raise` of our packages gave it; else Python or a library found a bug."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None or not str(at.tb_frame.f_globals.get("__name__")).startswith(_OURS):
        return False
    return at.tb_frame.f_code.co_code[at.tb_lasti] == _RAISE


def _stop(number: int, frame: Optional[FrameType]) -> NoReturn:
    raise Stopped(number)


def in_words(error: object) -> str:
    """Return what an error says; of a file that is in a folder's way, what to do too."""
    if isinstance(error, (FileExistsError, NotADirectoryError)) and error.filename:
        return f"{error.filename}: no folder can be there, a file is; move it, or name another"
    return str(error)


def complain(name: str, error: object) -> int:
    """Print an error as the one line that a command's user sees, and return its exit code."""
    text = in_words(error)
    if format_message := getattr(error, "format_message", None):  # Click's know more than str()
        text = f"{format_message().rstrip('.')}; see {name} --help"
    text = " ".join(printable(text).split()) or type(error).__name__
    with contextlib.suppress(OSError, ValueError):  # of a full stderr: the code tells enough
        print(f"{name}: {text[:_LONGEST]}", file=sys.stderr, flush=True)
    return int(getattr(error, "exit_code", FAILED))


@contextlib.contextmanager
def on_signals(handler: Handler) -> Iterator[None]:
    """Give Ctrl-C, SIGTERM and SIGHUP to a handler meanwhile; what is ignored (nohup) stays so.

    Outside of the main thread signals cannot be caught, and none is.
    """
    before: Dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


class Heard(Stopped):
    """A first signal, raised where NotedSignals was told to."""


class NotedSignals(List[int]):
    """Exit codes of the signals so far."""

    raises = False

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Raise Heard at a signal meanwhile: for waits, and for what can be done again."""
        self.raises = True
        try:
            if self:
                raise Heard(self[0] - 128)
            yield
        finally:
            self.raises = False


@contextlib.contextmanager
def noting_signals(answer: str = "") -> Iterator[NotedSignals]:
    """Yield a list that gets the exit code of the first signal, which ends nothing by itself.

    A second signal does what it did before.

    Args:
        answer: a line for stderr where the first one is not raised.
    """
    noted = NotedSignals()
    with contextlib.ExitStack() as stack:

        def note(number: int, frame: Optional[FrameType]) -> None:
            noted.append(128 + number)
            stack.close()
            if noted.raises:
                raise Heard(number)
            if answer:  # no file object: the signal may have come while one was written to
                os.write(2, f"{answer}\n".encode())

        stack.enter_context(on_signals(note))
        yield noted
