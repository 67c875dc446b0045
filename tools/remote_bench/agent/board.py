"""What can be read from a board: files, tools, and nothing written.

Every path is absolute as on the board; `root` puts another folder in front of it, so that a tree
of made files can stand in for a board.
"""

import contextlib
import glob
import os
import shutil
import signal
import subprocess
from typing import List, NamedTuple, Optional, Tuple

from .process import start

MOST_BYTES = 64 * 1024  # of a file or of a tool's output; sysfs and procfs have far less
_END_S = 1.0  # what is killed gets to end
_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "opt/vc/bin")


class Outcome(NamedTuple):
    """How a tool ended. status is None where it did not start or did not end in time."""

    status: Optional[int]
    output: str
    errors: str


class Board:
    """A board's file tree and tools, read-only."""

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def path(self, absolute: str) -> str:
        """Return where a path of the board lies in this system."""
        return os.path.join(self.root, absolute.lstrip("/"))

    def text(self, absolute: str) -> Optional[str]:
        """Return a file's text without NULs and outer spaces; None where it cannot be read."""
        content = self._read(absolute)
        return None if content is None else _text(content.replace(b"\0", b"")).strip()

    def texts(self, absolute: str) -> List[str]:
        """Return the NUL-separated texts of a device-tree file; empty where it cannot be read."""
        return [_text(part) for part in (self._read(absolute) or b"").split(b"\0") if part]

    def _read(self, absolute: str) -> Optional[bytes]:
        try:
            with open(self.path(absolute), "rb") as file:
                return file.read(MOST_BYTES)
        except OSError:  # absent, denied, or EAGAIN of a sensor that is off
            return None

    def number(self, absolute: str) -> Optional[int]:
        """Return a file's integer; None where it cannot be read or holds something else."""
        try:
            return int(self.text(absolute) or "")
        except ValueError:
            return None

    def glob(self, pattern: str) -> List[str]:
        """Return the paths of the board that match, sorted."""
        root = self.root.rstrip("/")
        found = glob.glob(glob.escape(root) + pattern)
        return sorted(path[len(root) :] for path in found)

    def tool(self, name: str) -> Optional[str]:
        """Return where a program lies in this system; None where the board has none."""
        folders = [self.path(folder) for folder in _FOLDERS]
        if self.root == "/":
            folders.append(os.environ.get("PATH", ""))
        return shutil.which(name, path=os.pathsep.join(folders))

    def run(self, command: List[str], timeout_s: float = 10) -> Outcome:
        """Run a tool by name in the C locale, without input; never raises, never hangs.

        It gets a process group of its own, which ends when time is over.
        """
        program = self.tool(command[0])
        if program is None:
            return Outcome(None, "", f"{command[0]} is not on this board")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        try:
            process = start([program, *command[1:]], start_new_session=True, **pipes)
        except OSError as error:
            return Outcome(None, "", str(error))
        try:
            output, errors = process.communicate(timeout=timeout_s)
            status: Optional[int] = process.returncode
        except subprocess.TimeoutExpired:
            output, errors = _end(process)
            status, errors = None, errors + b"\nno end within %d s" % timeout_s
        return Outcome(status, _text(output), _text(errors))


def _end(process: "subprocess.Popen[bytes]") -> Tuple[bytes, bytes]:
    """End a process group as far as that is allowed, and return what it printed.

    A sudo that hangs is root's: it cannot be killed, and holds its pipes for as long as it likes.
    """
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired as late:
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
        return late.output or b"", late.stderr or b""


def _text(content: bytes) -> str:
    return content[:MOST_BYTES].decode("utf-8", "replace")
