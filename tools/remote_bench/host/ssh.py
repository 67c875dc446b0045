"""A board over SSH, by paramiko, with a bound on every call: connect, log in, start commands.

paramiko's keepalive never counts replies and several of its calls wait without end; so whatever may
hang runs under a timer that breaks the connection, which wakes the caller.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import paramiko

from remote_bench.host.errors import Unreachable, UsageError
from remote_bench.host.host import Stream
from remote_bench.host.host_keys import KnownKeys, preferred
from remote_bench.host.ssh_config import SshSettings, read_settings

CONNECT_S = 10.0  # each of: TCP, banner, key exchange, one login attempt, one channel
_LOGIN_S = 120.0  # somebody types a password
_MOST_JUMPS = 8  # more is a loop
_MOST_KEYS = 5  # sshd closes the connection after MaxAuthTries, 6 by default
_MDNS_HINT = (
    " Names in .local need mDNS on both sides (avahi-daemon, libnss-mdns) and one network; "
    "try the board's address, on a Jetson's USB cable 192.168.55.1"
)
AskPassword = Callable[[str], str | None]  # prompt -> password; None: there is nobody to ask
logging.getLogger("paramiko").addHandler(logging.NullHandler())  # it logs tracebacks otherwise


class SshHost:
    """A connected board; its host key is approved by the user."""

    def __init__(self, name: str, ask: AskPassword, accept_key: str | None = None) -> None:
        """Connect.

        Args:
            name: HOST, USER@HOST, HOST:PORT or what ~/.ssh/config calls it.
            ask: gives a password where keys do not do.
            accept_key: "SHA256:..." of an unknown host key that the user approves.

        Raises:
            Unreachable: the message says which step failed.
            HostKeyRefused: unknown, changed or revoked.
        """
        self.name, self.address, self.user = name, "", ""
        self.notes: list[str] = []  # for the user
        self._ask, self._accept_key = ask, accept_key
        self._transports: list[paramiko.Transport] = []
        self._open_all()

    def _open_all(self) -> None:
        self.close()
        self._transports = []
        try:
            self.address = self._connect(self.name)
        except BaseException:
            self.close()
            raise

    def start(self, command: str) -> Stream:
        """Start a command line, without a terminal; connect anew where the connection broke."""
        if not (self._transports and self._transports[-1].is_active()):
            self._open_all()
        transport = self._transports[-1]
        try:
            with _bounded(transport, CONNECT_S):
                channel = transport.open_session(timeout=CONNECT_S)
                channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise Unreachable(
                f"{self.name}: the board starts no command: {error}. Try: ssh {self.name} true"
            ) from error
        return _Channel(transport, channel)

    def close(self) -> None:
        """Break all connections, the board's first."""
        for transport in reversed(self._transports):
            transport.close()
            transport.sock.close()  # which close() leaves open where the key exchange failed

    def _connect(self, name: str, gateway: paramiko.Transport | None = None, depth: int = 0) -> str:
        # Returns the address. The first of several jumps may have jumps of its own.
        if depth > _MOST_JUMPS:
            raise UsageError(
                f"{self.name}: more than {_MOST_JUMPS} ProxyJumps; see ~/.ssh/config for a loop"
            )
        settings = read_settings(name)
        if gateway is None:
            for jump in settings.jumps:
                self._connect(jump, gateway, depth + 1)
                gateway = self._transports[-1]
        if gateway is None:
            sock, address = _dial(settings)
        else:
            sock, address = _tunnel(gateway, settings), settings.hostname
        self._open(name, sock, settings)
        self.user = settings.user
        return address

    def _open(self, name: str, sock: Any, settings: SshSettings) -> None:
        known = KnownKeys(settings)
        transport = paramiko.Transport(sock)
        self._transports.append(transport)
        transport.banner_timeout = transport.auth_timeout = CONNECT_S
        options = transport.get_security_options()
        options.key_types = preferred(known.types, options.key_types)
        with _bounded(transport, 2 * CONNECT_S):
            key = _exchange_keys(name, transport)
        note = known.check((key.get_name(), key.asbytes()), name, self._accept_key)
        if note:
            self.notes.append(f"{name}: {note}")
        with _bounded(transport, _LOGIN_S):
            _log_in(transport, settings, self._ask)


def _dial(settings: SshSettings) -> tuple[socket.socket, str]:
    """Resolve once, connect, and return the socket with its address."""
    name, port = settings.hostname, settings.port
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        hint = _MDNS_HINT if name.endswith(".local") else ""
        raise Unreachable(f"{name} has no address: {why}.{hint}") from error
    failures = []
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(settings.connect_timeout_s or CONNECT_S)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            failures.append(f"{address[0]} port {port}: {error.strerror or error}")
            continue
        return sock, str(address[0])
    raise Unreachable(f"{name}: no connection to {'; '.join(failures)}. Is the board on, and sshd?")


def _tunnel(gateway: paramiko.Transport, settings: SshSettings) -> paramiko.Channel:
    target = (settings.hostname, settings.port)
    timeout_s = settings.connect_timeout_s or CONNECT_S
    try:
        return gateway.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=timeout_s)
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise Unreachable(
            f"{settings.hostname} port {settings.port}: the jump host opens no connection: "
            f"{error}. Is the board on, and may that host forward?"
        ) from error


def _exchange_keys(name: str, transport: paramiko.Transport) -> paramiko.PKey:
    try:
        transport.start_client(timeout=CONNECT_S)  # returns without a word when time is over
        return transport.get_remote_server_key()
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise Unreachable(
            f"{name}: its sshd is too old for a safe connection ({error}); it must know ed25519, "
            "ecdsa or rsa-sha2 host keys (OpenSSH 7.2 or newer)"
        ) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise Unreachable(
            f"{name}: no SSH there: {error or 'the connection closed'}. Is it sshd's port?"
        ) from error


def _log_in(transport: paramiko.Transport, settings: SshSettings, ask: AskPassword) -> None:
    """Log in by key files, agent, then a password; or say what was tried."""
    user, hostname = settings.user, settings.hostname
    tried: list[str] = []
    for number, (name, key) in enumerate(_keys(settings, tried)):
        if number == _MOST_KEYS:
            tried.append("no more than that: set IdentitiesOnly and IdentityFile in ~/.ssh/config")
            break
        if _accepts(partial(transport.auth_publickey, user, key), name, tried):
            return
    if not transport.is_active():
        tried.append("the board closed the connection")
    elif (password := ask(f"Password of {user}@{hostname}: ")) is not None and _accepts(
        partial(transport.auth_password, user, password), "password", tried
    ):
        return
    raise Unreachable(
        f"{hostname} refuses the login of {user}: {'; '.join(tried) or 'no key was found'}. Try: "
        f"ssh-copy-id {user}@{hostname}, or give a password at the prompt or with --password-fd"
    )


def _accepts(attempt: Callable[[], list[str]], name: str, tried: list[str]) -> bool:
    try:
        more = attempt()
    except paramiko.SSHException as error:
        tried.append(f"{name}: {error}")
        return False
    if more:
        tried.append(f"{name}: accepted, but {more} is asked for as well")
    return not more


def _keys(settings: SshSettings, tried: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    for file in settings.identity_files:
        if file.is_file() and (key := _load(file, tried)) is not None:
            yield str(file), key
    agent = paramiko.Agent()
    try:
        for key in agent.get_keys():
            if not settings.identities_only or _is_listed(key, settings.identity_files):
                yield f"agent's {key.get_name()} {key.fingerprint}", key
    finally:
        agent.close()


def _load(file: Path, tried: list[str]) -> paramiko.PKey | None:
    try:
        return paramiko.PKey.from_path(file)
    except (paramiko.PasswordRequiredException, TypeError):  # TypeError: of PKey.from_path
        tried.append(f"{file}: encrypted; put it into your agent with ssh-add")
    except (paramiko.SSHException, paramiko.UnknownKeyType, ValueError, OSError) as error:
        tried.append(f"{file}: {error}")
    return None


def _is_listed(key: paramiko.PKey, files: tuple[Path, ...]) -> bool:
    publics = (Path(f"{file}.pub") for file in files)
    return any(key.get_base64() in file.read_text("utf-8") for file in publics if file.is_file())


@contextlib.contextmanager
def _bounded(transport: paramiko.Transport, seconds: float) -> Iterator[None]:
    """Break the connection when the block takes longer."""
    timer = threading.Timer(seconds, transport.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Channel(Stream):
    def __init__(self, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        self._transport, self._channel = transport, channel
        super().__init__()

    def _receive_error(self) -> bytes:
        # Unread stderr fills the window that stdout needs too (paramiko#1778).
        return bytes(self._channel.recv_stderr(1 << 16))

    def send(self, data: bytes) -> None:
        try:
            self._channel.sendall(data)
        except (paramiko.SSHException, EOFError) as error:
            raise OSError(f"the connection broke: {error}") from error

    def receive(self) -> bytes:
        return bytes(self._channel.recv(1 << 16))

    def status(self, timeout_s: float) -> int | None:
        # None where the connection broke, -1 where a signal ended it.
        arrived = self._channel.status_event.wait(timeout_s)
        status: int = self._channel.exit_status if arrived else -1
        return status if status >= 0 or (arrived and self._transport.is_active()) else None

    def close(self) -> None:
        self._transport.close()  # closing the channel alone could wait for a frozen peer
