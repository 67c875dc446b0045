"""Turns what the user names into hosts, asking for passwords on the way."""

import getpass
import os
import sys
from functools import cache

from remote_bench.host.errors import UsageError
from remote_bench.host.host import Host, Watch
from remote_bench.host.local import LocalHost
from remote_bench.host.ssh import SshHost

_MOST_PASSWORD_BYTES = 4096  # a pipe gives them at once; a line ends it


class Connector:
    """Connects to hosts; a password comes from a file descriptor or a prompt, and from no other."""

    def __init__(self, accept_key: str | None, password_fd: int | None) -> None:
        if accept_key is not None and not accept_key.startswith("SHA256:"):
            raise UsageError(
                f"--accept-host-key: expected SHA256:... of ssh-keygen -l, got {accept_key!r}"
            )
        self._accept_key = accept_key
        self._password = None if password_fd is None else _read_password(password_fd)
        self.ask = cache(self._ask)  # once: a connection that broke is made anew without it

    def connect(self, name: str, watch: Watch) -> Host:
        """Return a connected host; "localhost" is this machine, without SSH.

        Raises:
            Unreachable, HostKeyRefused, UsageError: see SshHost.
        """
        if name == "localhost":
            return LocalHost()
        watch.phase("connect")
        host = SshHost(name, self.ask, self._accept_key)
        for note in host.notes:
            watch.note(note)
        watch.note(f"connected to {host.address}")
        return host

    def _ask(self, prompt: str) -> str | None:
        if self._password is not None:
            return self._password
        return getpass.getpass(prompt) if sys.stdin.isatty() else None


def _read_password(descriptor: int) -> str:
    try:
        content = os.read(descriptor, _MOST_PASSWORD_BYTES)
    except OSError as error:
        raise UsageError(
            f"--password-fd {descriptor}: {error.strerror}; expected an open one, as 3 with 3<FILE"
        ) from error
    return content.split(b"\n")[0].decode("utf-8")
