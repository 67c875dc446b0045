"""Commands as a person starts them: fastseg-run in this process, any as a child of it."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from fastseg_runtime.cli.main import main

PATIENCE_S = 40.0  # torchrun gives its workers 30


def run(*arguments: object) -> int:
    """The exit code of fastseg-run."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


@contextmanager
def running(
    command: Sequence[object], limit_s: float = 300.0, **wanted: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Run a child that is ended, with all that it started, at the end of the block or of limit_s.

    Nothing that waits for it hangs.
    """
    words = [str(word) for word in command]
    wanted = {"text": True, "start_new_session": True, **wanted}
    with subprocess.Popen(words, **wanted) as child:
        end = threading.Timer(limit_s, _end, [child])
        end.daemon = True
        end.start()
        try:
            yield child
        finally:
            end.cancel()
            _end(child)


def _end(child: subprocess.Popen[Any]) -> None:
    child.terminate()  # a launcher, whose workers are in groups of their own, ends them itself
    with suppress(subprocess.TimeoutExpired):
        child.wait(PATIENCE_S)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
