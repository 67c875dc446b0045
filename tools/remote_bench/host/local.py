"""This machine: as a host, by the same code path without SSH, and where it keeps things."""

import os
import select
import subprocess
import sys
from pathlib import Path

from fastseg_runtime.arrays.shared_files import user_cache

from remote_bench.host.host import Stream

_LOOK_S = 0.1  # how late a send notices that it was closed


def cache_folder(name: str) -> Path:
    """Return a folder of ours in the user's cache, for what can be made or fetched again."""
    folder = user_cache() / "remote_bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class LocalHost:
    """Starts commands here, with this Python first in PATH."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self.name, self.address, self.user = "localhost", "localhost", ""
        self.known_as: list[str] = []
        self.weakened: list[str] = []
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self._environment = {**os.environ, "PATH": path, **(environment or {})}
        self._streams: list[Stream] = []

    def start(self, command: str) -> Stream:
        """Start a command line in a session of its own: a Ctrl-C here is not one there."""
        self._streams.append(ChildProcess(["/bin/sh", "-c", command], self._environment))
        return self._streams[-1]

    def close(self) -> None:
        """Break all connections."""
        for stream in self._streams:
            stream.close()


class ChildProcess(Stream):
    """A program that runs here."""

    def __init__(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            bufsize=0,
            start_new_session=True,
        )
        self._closed = False
        super().__init__()

    def _receive_error(self) -> bytes:
        assert self._process.stderr is not None
        chunk = self._process.stderr.read(4096)
        if not chunk:
            self._process.stderr.close()
            self._process.wait()
        return chunk

    def send(self, data: bytes) -> None:
        """Write to its stdin."""
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:  # never into a full pipe: close() wakes nobody there
            if select.select([], [self._process.stdin], [], _LOOK_S)[1]:
                view = view[self._process.stdin.write(view[: select.PIPE_BUF]) :]

    def receive(self) -> bytes:
        """Return what it wrote next."""
        assert self._process.stdout is not None  # closed: nothing comes, whatever the child says
        chunk = b"" if self._closed else self._process.stdout.read(1 << 16)
        if not chunk:
            self._process.stdout.close()
        return chunk

    def status(self, timeout_s: float) -> int | None:
        """Wait for its end; a negative one is a signal's."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End its stdin."""
        assert self._process.stdin is not None  # its stdout ends with what it says next
        self._closed = True
        self._process.stdin.close()
