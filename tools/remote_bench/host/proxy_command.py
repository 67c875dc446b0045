"""A program of the user's in place of a TCP connection: ProxyCommand of ~/.ssh/config."""

import os
import socket
import subprocess
import threading

from remote_bench.host.live import log, plain

_END_S = 2.0  # until a program that was told to end is killed
# For a program that may ask at our terminal: Ctrl-C is for us alone, who need the connection for
# cleaning up. A script of sh, whose arguments are the program.
IGNORING_CTRL_C = 'trap "" INT; exec "$0" "$@"'


class ProxyCommand(socket.socket):
    """Speaks with the program's stdin and stdout; what it says on stderr is shown."""

    def __init__(self, host: str, command: str) -> None:
        """Start it, in the user's shell as ssh does.

        Args:
            host: as the user gave it, for messages.
            command: the user's own words from ~/.ssh/config.
        """
        ours, theirs = socket.socketpair()
        super().__init__(fileno=ours.detach())
        shell = os.environ.get("SHELL") or "/bin/sh"
        with theirs:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", IGNORING_CTRL_C, shell, "-c", f"exec {command}"],
                stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE,
            )  # fmt: skip
        self._host, self._said = host, ""
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._drainer.start()

    def _drain(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._said = plain(line.decode("utf-8", "replace")) or self._said
                log.print(f"{self._host}: {self._said}", markup=False, soft_wrap=True)

    def end(self) -> str:
        """End the program; return what became of it, for a message."""
        self.close()
        self._drainer.join(_END_S)
        said = f", and said: {self._said}" if self._said else ""
        return f"ProxyCommand, which ended with status {self._process.returncode}{said}"

    def close(self) -> None:
        """Break the connection and end the program."""
        super().close()
        try:
            self._process.wait(0.2)  # it ends with its stdin
        except subprocess.TimeoutExpired:
            self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
