"""Commands as a person starts them: fastseg-run in this process, any as a child of it."""

import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from fastseg_runtime.cli.main import main


def run(*arguments: object) -> int:
    """The exit code of fastseg-run."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


@contextmanager
def running(
    command: Sequence[object], limit_s: float = 300.0, **wanted: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Run a child that is killed at the end, and after limit_s: nothing that waits for it hangs."""
    words = [str(word) for word in command]
    with subprocess.Popen(words, **{"text": True, **wanted}) as child:
        end = threading.Timer(limit_s, child.kill)
        end.daemon = True
        end.start()
        try:
            yield child
        finally:
            end.cancel()
            child.kill()
