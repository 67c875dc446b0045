"""How one logs in: by an agent's keys, key files, and what somebody types, with paramiko.

A passphrase opens a key here and goes nowhere; the board gets passwords and answers alone.
"""

import base64
import binascii
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentKey, AgentSSH

from remote_bench.host.errors import Unreachable
from remote_bench.host.host import Ask
from remote_bench.host.live import plain
from remote_bench.host.ssh_config import SshSettings

CONNECT_S = 10.0  # each of: TCP, banner, key exchange, one login attempt, one channel
LOGIN_S = 120.0  # somebody types a password, or touches a key
_MOST_KEYS = 5  # sshd closes the connection after MaxAuthTries, 6 by default
_FEWER = "set IdentitiesOnly and IdentityFile in ~/.ssh/config"
_HARDWARE = (b"sk-ssh-ed25519", b"sk-ecdsa-sha2")  # keys that a token holds


def nobody(prompt: str) -> None:
    """Answer as if there were no terminal."""


@dataclass(frozen=True)
class People:
    """Who answers: each gets a prompt."""

    password: Ask  # and other secrets of the board
    passphrase: Ask = nobody  # of a key file
    answer: Ask = nobody  # of what may be seen while it is typed


def log_in(transport: paramiko.Transport, settings: SshSettings, people: People) -> None:
    """Log in.

    Raises:
        Unreachable: no way in; the message says what was tried.
    """
    login = _Login(transport, settings, people)
    if login.done():
        return
    user, hostname = settings.user, settings.hostname
    passwords = {"password", "keyboard-interactive"} & set(login.methods)
    password = ", or give a password at the prompt or with --password-fd" if passwords else ""
    alone = (*settings.for_ssh_alone, *(way for way in login.methods if way.startswith("gssapi")))
    raise Unreachable(
        f"{hostname} refuses the login of {user}: {'; '.join(login.tried)}. "
        f"Try: ssh-copy-id {user}@{hostname}{password}"
        f"{f', or --via-ssh for {alone[0]}' if alone else ''}"
    )


class _Login:
    def __init__(
        self, transport: paramiko.Transport, settings: SshSettings, people: People
    ) -> None:
        self._transport, self._settings, self._people = transport, settings, people
        self.methods = ["publickey", "password"]  # what may follow, as the server last said
        self.tried: list[str] = []

    def done(self) -> bool:
        """Try everything; a server may want several in a row."""
        if self._attempt("no key", self._transport.auth_none):  # sshd does not count this one
            return True
        self.tried.clear()
        ways = {
            "publickey": self._by_key,
            "keyboard-interactive": self._by_answers,
            "password": self._by_password,
        }
        ways = {name: way for name, way in ways.items() if name not in self._settings.not_wanted}
        while way := next((name for name in ways if name in self.methods), None):
            if ways.pop(way)():
                return True
            if not self._transport.is_active():
                self.tried.append(f"the board closed the connection; if of too many keys, {_FEWER}")
                break
        return False

    def _attempt(
        self, name: str, call: Callable[..., list[str]], *given: Any, patience_s: float = CONNECT_S
    ) -> bool:
        self._transport.auth_timeout = patience_s
        try:
            more = call(self._settings.user, *given)
        except paramiko.BadAuthenticationType as error:
            self.methods = error.allowed_types
            self.tried.append(f"{name}: not taken, but {', '.join(self.methods)}")
            return False
        except (paramiko.SSHException, OSError) as error:
            self.tried.append(f"{name}: {error}")
            return False
        if more:
            self.methods = more
            self.tried.append(f"{name}: accepted, but {more} is asked for as well")
        return not more

    def _by_key(self) -> bool:
        for number, (name, key) in enumerate(self._keys()):
            if number == _MOST_KEYS:
                self.tried.append(f"no more than that: {_FEWER}")
                break
            # An agent may ask its owner first.
            patience_s = LOGIN_S if isinstance(key, AgentKey) else CONNECT_S
            attempt = partial(self._attempt, patience_s=patience_s)
            if attempt(name, self._transport.auth_publickey, key):
                return True
            if "publickey" not in self.methods or not self._transport.is_active():
                break
        self.tried += [] if self.tried else ["no key was found"]
        return False

    def _keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        # Those that are named first, then the agent's others, last those that ask for something.
        agent, locked = _Agent(), []
        try:
            agent.open(self._settings.agent)
        except (paramiko.SSHException, OSError) as error:
            self.tried.append(f"agent {self._settings.agent}: {error}")
        others = list(agent.get_keys())
        try:
            for file in self._settings.identity_files:
                clear = _clear_part(file)
                if named := next((key for key in others if key.asbytes() in clear), None):
                    others.remove(named)
                    yield _agents(named), named
                elif os.path.isfile(file) and _is_locked(file):
                    locked.append(file)
                elif os.path.isfile(file) and (key := self._load(file)) is not None:
                    yield str(file), key
            for key in [] if self._settings.identities_only else others:
                yield _agents(key), key
            for file in locked:
                if (key := self._unlock(file)) is not None:
                    yield str(file), key
        finally:
            agent.close()

    def _load(self, file: Path, passphrase: str | None = None) -> paramiko.PKey | None:
        if any(kind in _clear_part(file) for kind in _HARDWARE):
            self.tried.append(f"{file}: a hardware key; add --via-ssh")
            return None
        try:
            return _read_key(file, passphrase)
        except (paramiko.SSHException, paramiko.UnknownKeyType) as error:
            self.tried.append(f"{file}: {error}; add --via-ssh")
        except (ValueError, OSError) as error:
            wrong = "that passphrase does not open it" if passphrase else error
            self.tried.append(f"{file}: {wrong}")
        return None

    def _unlock(self, file: Path) -> paramiko.PKey | None:
        passphrase = self._people.passphrase(f"Passphrase of {file} (Enter: another way): ")
        if passphrase:
            return self._load(file, passphrase)
        self.tried.append(
            f"{file}: encrypted; put it into your agent with ssh-add, or give its passphrase "
            "at the prompt or with --passphrase-fd"
        )
        return None

    def _by_answers(self) -> bool:
        def answers(title: str, instructions: str, fields: list[tuple[str, bool]]) -> list[str]:
            asked.extend(fields)
            return [self._answer(f"{instructions} {prompt}", shown) for prompt, shown in fields]

        attempt = partial(self._attempt, patience_s=LOGIN_S)
        asked: list[tuple[str, bool]] = []
        done = attempt("keyboard-interactive", self._transport.auth_interactive, answers)
        if not (done or asked):  # sshd offers it even where it has no question
            self.tried.pop()
        return done

    def _answer(self, prompt: str, shown: bool) -> str:
        if not shown and "password" in prompt.lower():
            return self._password() or ""
        ask = self._people.answer if shown else self._people.password
        settings = self._settings
        return ask(f"{settings.user}@{settings.hostname} asks: {plain(prompt)} ") or ""

    def _by_password(self) -> bool:
        password = self._password()
        send = partial(self._transport.auth_password, fallback=False)
        return password is not None and self._attempt("password", send, password)

    def _password(self) -> str | None:
        password = self._people.password(
            f"Password of {self._settings.user}@{self._settings.hostname}: "
        )
        files = [file for file in self._settings.identity_files if os.path.isfile(file)]
        if password and any(_is_locked(file) and _opens(file, password) for file in files):
            self.tried.append("password: what was given opens a key, and so the board never saw it")
            return None
        return password


class _Agent(AgentSSH):  # type: ignore[misc]
    """paramiko's own knows SSH_AUTH_SOCK alone, and waits for its agent without end."""

    def open(self, path: str) -> None:
        """Connect and list the keys; none where there is no path."""
        if path:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(LOGIN_S)
            self._conn = connection
            connection.connect(path)
            self._connect(connection)

    def get_keys(self) -> tuple["_AgentKey", ...]:
        return tuple(_AgentKey(self, key.blob, key.comment) for key in super().get_keys())

    def close(self) -> None:
        self._close()


class _AgentKey(AgentKey):  # type: ignore[misc]
    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> bytes:
        """Sign; where the agent does not, the server refuses this key, and others are tried."""
        try:
            return bytes(super().sign_ssh_data(data, algorithm))
        except (paramiko.SSHException, OSError):  # which would end the connection
            return b""


def _agents(key: paramiko.PKey) -> str:
    return f"agent's {key.get_name()} {key.fingerprint}"


def _read_key(file: Path, passphrase: str | None = None) -> paramiko.PKey:
    secret: Any = passphrase and passphrase.encode("utf-8")  # a type that paramiko says, not takes
    return paramiko.PKey.from_path(file, secret)


def _is_locked(file: Path) -> bool:
    try:
        _read_key(file)
    except (paramiko.PasswordRequiredException, TypeError):  # TypeError: of PKey.from_path
        return True
    except Exception:  # whoever loads it says what
        return False
    return False


def _opens(file: Path, secret: str) -> bool:
    try:
        _read_key(file, secret)
    except (paramiko.SSHException, paramiko.UnknownKeyType):  # it does, though paramiko is no help
        return True
    except (ValueError, OSError):
        return False
    return True


def _clear_part(file: Path) -> bytes:
    """Return what can be read of a key file without its passphrase, and of the .pub beside it."""
    found = b""
    for path in (file, Path(f"{file}.pub")):
        try:
            lines = path.read_bytes().splitlines() if os.path.isfile(path) else []
        except OSError:  # not ours to read: the agent may have it all the same
            continue
        body = b"".join(line for line in lines if not line.startswith(b"-----"))
        for part in body.split():
            try:
                found += base64.b64decode(part)
            except binascii.Error:
                continue
    return found
