"""A board over SSH, by paramiko, with a bound on every call: connect, log in, start commands.

paramiko's keepalive never counts replies and several of its calls wait without end; so whatever may
hang runs under a timer that breaks the connection, which wakes the caller.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import paramiko

from remote_bench.host.errors import HostKeyRefused, Unreachable, UsageError
from remote_bench.host.host import Ask, Stream
from remote_bench.host.host_keys import Key, KnownKeys, changed, preferred
from remote_bench.host.login import CONNECT_S, LOGIN_S, People, log_in
from remote_bench.host.proxy_command import ProxyCommand
from remote_bench.host.ssh_config import SshSettings, read_settings

_MOST_JUMPS = 8  # more is a loop
_NETWORK_HINT = (
    " Is it a network? What is measured is a bundle: fastseg-export NETWORK, then name NAME.fastseg"
)
_MDNS_HINT = (
    " Names in .local need mDNS on both sides (avahi-daemon, libnss-mdns) and one network; "
    "try the board's address, on a Jetson's USB cable 192.168.55.1"
)
logging.getLogger("paramiko").addHandler(logging.NullHandler())  # it logs tracebacks otherwise


class SshHost:
    """A connected board; its host key is approved by the user."""

    def __init__(self, name: str, ask: Ask, accept_key: str | None = None, **more: Ask) -> None:
        """Connect.

        Args:
            name: HOST, USER@HOST, HOST:PORT or what ~/.ssh/config calls it.
            ask: gives a password where keys do not do.
            accept_key: "SHA256:..." of an unknown host key that the user approves.
            more: the other questions of People, where there is somebody to ask.

        Raises:
            Unreachable: the message says which step failed.
            HostKeyRefused: unknown, changed or revoked.
        """
        self.name, self.address, self.user = name, "", ""
        self.notes: list[str] = []  # for the user
        self.known_as: list[str] = []
        self.weakened: list[str] = []
        self._people, self._accept_key = People(ask, **more), accept_key
        self._shown: dict[str, Key] = {}  # the keys of the first connection: of each host one
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
        self.known_as += [name, settings.hostname, settings.user]
        if gateway is None:
            for jump in settings.jumps:
                self._connect(jump, gateway, depth + 1)
                gateway = self._transports[-1]
        sock: Any
        if settings.proxy_command:
            sock, address = ProxyCommand(name, settings.proxy_command), settings.hostname
        elif gateway is None:
            sock, address = _dial(settings)
        else:
            sock, address = _tunnel(gateway, settings), settings.hostname
        self._open(name, sock, settings)
        self.user = settings.user
        return address

    def _open(self, name: str, sock: Any, settings: SshSettings) -> None:
        known = KnownKeys(settings)
        try:
            transport = paramiko.Transport(sock)
        except BaseException:
            sock.close()
            raise
        self._transports.append(transport)
        # Behind a ProxyCommand somebody may have to log in first, in a browser for instance.
        asked = settings.proxy_command and not self.address
        transport.banner_timeout = LOGIN_S if asked else CONNECT_S
        options = transport.get_security_options()
        options.key_types = preferred(known.types, options.key_types)
        with _bounded(transport, transport.banner_timeout + CONNECT_S):
            key = _exchange_keys(name, transport, sock)
        self._check(name, (key.get_name(), key.asbytes()), known)
        with _bounded(transport, LOGIN_S):
            log_in(transport, settings, self._people)

    def _check(self, name: str, key: Key, known: KnownKeys) -> None:
        first = self._shown.setdefault(name, key)
        if first != key:  # which an unwatched known_hosts would not notice
            raise HostKeyRefused(changed(name, key, first, "this run", name))
        note = known.check(key, name, self._accept_key, self._people.answer)
        self.notes += [f"{name}: {note}"] if note else []
        if known.unseen and known.unseen not in self.weakened:
            self.weakened.append(known.unseen)


def _dial(settings: SshSettings) -> tuple[socket.socket, str]:
    """Resolve once, connect, and return the socket with its address."""
    name, port = settings.hostname, settings.port
    try:
        found = socket.getaddrinfo(name, port, settings.family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        hint = _MDNS_HINT if name.endswith(".local") else "" if "." in name else _NETWORK_HINT
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
        return sock, name if "%" in name else str(address[0])  # which would lack its zone
    alone = next((key for key in settings.for_ssh_alone if key.startswith("bind")), None)
    hint = f" Or add --via-ssh for {alone}." if alone else ""
    tried = "; ".join(failures)
    raise Unreachable(f"{name}: no connection to {tried}. Is the board on, and sshd?{hint}")


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


def _exchange_keys(name: str, transport: paramiko.Transport, sock: Any) -> paramiko.PKey:
    try:
        # Returns without a word when time is over.
        transport.start_client(timeout=transport.banner_timeout)
        return transport.get_remote_server_key()
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise Unreachable(
            f"{name}: its sshd is too old for a safe connection ({error}); it must know ed25519, "
            "ecdsa or rsa-sha2 host keys (OpenSSH 7.2 or newer); --via-ssh takes what ssh does"
        ) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        if isinstance(sock, ProxyCommand):
            raise Unreachable(f"{name}: no SSH by its {sock.end()}") from error
        raise Unreachable(
            f"{name}: no SSH there: {error or 'the connection closed'}. Is it sshd's port?"
        ) from error


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
