"""This machine: as a host, by the same code path without SSH, and where it keeps things."""

import os
import subprocess
import sys
import threading
from pathlib import Path

_TAIL_BYTES = 1 << 14  # of stderr: a trace of any depth


def cache_folder(name: str) -> Path:
    """Return a folder of ours in the user's cache, for what can be made or fetched again."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "remote_bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class LocalHost:
    """Starts commands here, with this Python first in PATH."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self.name = self.address = "localhost"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self._environment = {**os.environ, "PATH": path, **(environment or {})}
        self._streams: list[LocalStream] = []

    def start(self, command: str) -> "LocalStream":
        """Start a command line in a session of its own: a Ctrl-C here is not one there."""
        self._streams.append(LocalStream(command, self._environment))
        return self._streams[-1]

    def close(self) -> None:
        """Break all connections."""
        for stream in self._streams:
            stream.close()


class LocalStream:
    """A child process."""

    def __init__(self, command: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            bufsize=0,
            start_new_session=True,
        )
        self._tail, self._closed = b"", False
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._drainer.start()

    def _drain(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as errors:
            for chunk in iter(lambda: errors.read(4096), b""):
                self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        self._process.wait()

    def send(self, data: bytes) -> None:
        """Write to its stdin."""
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) :]

    def receive(self) -> bytes:
        """Return the next bytes of its stdout; none once it is closed, whatever the child says."""
        assert self._process.stdout is not None
        chunk = b"" if self._closed else self._process.stdout.read(1 << 16)
        if not chunk:
            self._process.stdout.close()
        return chunk

    def errors(self) -> str:
        """Return the end of its stderr."""
        self._drainer.join(1)
        return self._tail.decode("utf-8", "replace")

    def status(self, timeout_s: float) -> int | None:
        """Wait for its exit status."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End its stdin, and its stdout as soon as it says anything more."""
        assert self._process.stdin is not None
        self._closed = True
        self._process.stdin.close()
