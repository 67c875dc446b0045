"""Turns what the user names into hosts, asking for passwords on the way."""

import getpass
import os
import sys
from functools import cache

from remote_bench.host.adb import PREFIX, AdbHost
from remote_bench.host.errors import UsageError
from remote_bench.host.host import Ask, Host, Watch
from remote_bench.host.local import LocalHost
from remote_bench.host.ssh import SshHost
from remote_bench.host.via_ssh import SshProgram

_MOST_SECRET_BYTES = 4096  # a pipe gives them at once; a line ends it


class Connector:
    """Connects to hosts; a secret comes from a file descriptor or a prompt, and from no other."""

    def __init__(
        self,
        accept_key: str | None,
        password_fd: int | None,
        passphrase_fd: int | None = None,
        via_ssh: bool = False,
    ) -> None:
        if accept_key is not None and not accept_key.startswith("SHA256:"):
            raise UsageError(
                f"--accept-host-key: expected SHA256:... of ssh-keygen -l, got {accept_key!r}"
            )
        if via_ssh and (accept_key or password_fd is not None or passphrase_fd is not None):
            raise UsageError(
                "--via-ssh goes with no --accept-host-key, --password-fd or --passphrase-fd: your "
                "own ssh asks, and keeps host keys"
            )
        self._accept_key, self._via_ssh = accept_key, via_ssh
        self._password = _read_secret("--password-fd", password_fd)
        # What opens a key is a passphrase, whatever it was given as: a board must not see it.
        self._passphrase = _read_secret("--passphrase-fd", passphrase_fd) or self._password
        # Each once: a connection that broke is made anew without somebody.
        self.ask, self.ask_passphrase = cache(self._ask), cache(self._ask_passphrase)

    def connect(self, name: str, watch: Watch) -> Host:
        """Return a connected host; "localhost" is this machine, "adb:SERIAL" a phone, without SSH.

        Raises:
            Unreachable, HostKeyRefused, UsageError: see SshHost.
        """
        if name == "localhost":
            return LocalHost()
        watch.phase("connect")
        if name.startswith(PREFIX):
            return AdbHost(name)
        host = SshProgram(name) if self._via_ssh else self._by_paramiko(name)
        for note in host.notes:
            watch.note(note)
        watch.note(f"connected to {host.address}")
        return host

    def _by_paramiko(self, name: str) -> SshHost:
        more: dict[str, Ask] = {"passphrase": self.ask_passphrase, "answer": _ask_in_clear}
        return SshHost(name, self.ask, self._accept_key, **more)

    def _ask(self, prompt: str) -> str | None:
        return self._password if self._password is not None else _ask_hidden(prompt)

    def _ask_passphrase(self, prompt: str) -> str | None:
        return self._passphrase if self._passphrase is not None else _ask_hidden(prompt)


def _ask_hidden(prompt: str) -> str | None:
    try:
        return getpass.getpass(prompt) if sys.stdin.isatty() else None
    except EOFError:  # Ctrl-D: nobody answers
        return None


def _ask_in_clear(prompt: str) -> str | None:
    if not sys.stdin.isatty():
        return None
    print(prompt, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().rstrip("\n")


def _read_secret(option: str, descriptor: int | None) -> str | None:
    if descriptor is None:
        return None
    try:
        content = os.read(descriptor, _MOST_SECRET_BYTES)
    except OSError as error:
        raise UsageError(
            f"{option} {descriptor}: {error.strerror}; expected an open one, as 3 with 3<FILE"
        ) from error
    try:
        return content.split(b"\n")[0].decode("utf-8")
    except UnicodeDecodeError:  # whose text would show the secret's bytes
        raise UsageError(f"{option} {descriptor}: expected UTF-8") from None
