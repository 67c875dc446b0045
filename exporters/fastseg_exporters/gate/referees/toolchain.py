"""A referee's toolchain at work: what compiles for a chip and simulates it, asked line by line.

`judge_<referee>.py serve` reads JSON objects, a line each, and answers each: {"refused": why}, or
what was asked for. It ends with its input.
"""

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import read_json

from fastseg_exporters.convert.child import kill_group
from fastseg_exporters.gate.referees.judge import (
    MAX_ANSWER,
    child_environment,
    last_line,
    one_line,
)
from fastseg_exporters.gate.referees.referee import MAX_LINE, Referee

PATIENCE_S = 10.0  # with one that is to end by itself


class ToolchainError(RuntimeError):
    """A toolchain that is not here, refuses, or fails; the message says which, on one line."""


class Toolchain:
    """A toolchain in a process and an environment of its own, open until it is closed.

    Args:
        referee: whose it is.
        own_group: it ends with all that it started. False in a conversion's child: there it stays
            in the group that is killed where the child is stopped.

    Raises:
        ToolchainError: it is not installed, or does not start.
    """

    def __init__(self, referee: Referee, own_group: bool = True) -> None:
        if referee.missing:
            raise ToolchainError(referee.missing)
        self._referee, self._own_group = referee, own_group
        self._folder = tempfile.TemporaryDirectory(prefix="fastseg-toolchain-")
        own = Path(self._folder.name)
        self._log = (own / "log.txt").open("wb")
        try:
            self._child = subprocess.Popen(
                [str(referee.python), "-I", str(referee.script_file), "serve"],
                env=child_environment(own),
                cwd=own,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=own_group,
            )
        except OSError as error:
            self._clear()
            raise ToolchainError(f"{referee.title} does not start: {error}") from error

    def ask(self, **order: Any) -> dict[str, Any]:
        """Return the answer to one order.

        Raises:
            ToolchainError: it refuses, ended, or took longer than its referee may.
        """
        assert self._child.stdin is not None
        title = self._referee.title
        try:
            self._child.stdin.write(json.dumps(order).encode() + b"\n")
            self._child.stdin.flush()
        except OSError:
            pass  # it is gone; what it said last is read below
        line = self._line()
        if not line:
            last = last_line(Path(self._folder.name, "log.txt"))
            raise ToolchainError(f"{title} ended: {one_line(last)[:MAX_LINE]}")
        try:
            said: dict[str, Any] = dict(read_json(line.decode("utf-8", "replace")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ToolchainError(f"{title} gave no answer: {one_line(str(error))}") from error
        if "refused" in said:
            raise ToolchainError(f"{title} refuses: {one_line(str(said['refused']))[:MAX_LINE]}")
        return said

    def _line(self) -> bytes:
        """Return the line that it says next; nothing where it ended.

        Raises:
            ToolchainError: it took longer than its referee may, and was stopped: what it says late
                would answer the next order.
        """
        assert self._child.stdout is not None
        line, limit_s = b"", self._referee.timeout_s
        deadline = time.monotonic() + limit_s
        while not line.endswith(b"\n"):
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._child.stdout], [], [], left_s)[0]:
                self._kill()
                raise ToolchainError(f"{self._referee.title} took more than {limit_s:.0f} s")
            part = os.read(self._child.stdout.fileno(), MAX_ANSWER)
            if not part:
                return b""  # half a line is no answer
            line += part
        return line

    def run(self, image_1HW3: Array) -> Array:
        """Return what the network that it holds gives for a picture, uint8 (1, H, W, 3).

        Raises:
            ToolchainError: it refuses.
        """
        frame, output = (str(Path(self._folder.name, name)) for name in ("in.npy", "out.npy"))
        np.save(frame, image_1HW3)
        self.ask(frame=frame, output=output)
        result: Array = np.load(output, allow_pickle=False)
        return result

    def close(self) -> None:
        """End it, and all that it started."""
        if self._log.closed:
            return
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._child.stdin.close()
                self._child.wait(PATIENCE_S)
        finally:
            self._kill()
            self._child.stdout.close()
            self._clear()

    def _kill(self) -> None:
        if self._own_group:
            kill_group(self._child)
        else:
            self._child.kill()
            self._child.wait()

    def _clear(self) -> None:
        self._log.close()
        self._folder.cleanup()
