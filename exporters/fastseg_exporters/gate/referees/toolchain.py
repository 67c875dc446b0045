"""A referee's toolchain at work: what compiles for a chip and simulates it, asked line by line.

`judge_<referee>.py serve` reads JSON objects, a line each, and answers each: {"refused": why}, or
what was asked for. It ends with its input.
"""

import json
import select
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import read_json

from fastseg_exporters.gate.referees.judge import child_environment, last_line, one_line
from fastseg_exporters.gate.referees.referee import MAX_LINE, Referee

PATIENCE_S = 10.0  # with one that is to end by itself


class ToolchainError(RuntimeError):
    """A toolchain that is not here, refuses, or fails; the message says which, on one line."""


class Toolchain:
    """A toolchain in a process and an environment of its own, open until it is closed.

    Args:
        referee: whose it is.

    Raises:
        ToolchainError: it is not installed, or does not start.
    """

    def __init__(self, referee: Referee) -> None:
        if referee.missing:
            raise ToolchainError(referee.missing)
        self._referee = referee
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
            )
        except OSError as error:
            self._clear()
            raise ToolchainError(f"{referee.title} does not start: {error}") from error

    def ask(self, **order: Any) -> dict[str, Any]:
        """Return the answer to one order.

        Raises:
            ToolchainError: it refuses, ended, or took longer than its referee may.
        """
        assert self._child.stdin is not None and self._child.stdout is not None
        title, limit_s = self._referee.title, self._referee.timeout_s
        try:
            self._child.stdin.write(json.dumps(order).encode() + b"\n")
            self._child.stdin.flush()
        except OSError:
            pass  # it is gone; what it said last is read below
        if not select.select([self._child.stdout], [], [], limit_s)[0]:
            raise ToolchainError(f"{title} took more than {limit_s:.0f} s")
        line = self._child.stdout.readline()
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
        """End it."""
        if self._log.closed:
            return
        try:
            self._child.communicate(timeout=PATIENCE_S)  # which ends its input
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
        self._clear()

    def _clear(self) -> None:
        self._log.close()
        self._folder.cleanup()
