"""Where a host is and how to log in, as OpenSSH itself would read it from ~/.ssh/config.

`ssh -G` knows Include, Match, canonical names and defaults; no reader in Python does. Some tokens
it leaves to whoever connects. Without an ssh on this machine paramiko's own reader has to do, which
says what it does not know.
"""

import getpass
import os
import re
import shlex
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from remote_bench.host.errors import UsageError

_TIMEOUT_S = 20.0  # a Match exec of the user's may ask the network
_V6 = r"[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*(?:%[\w.-]+)?"
_HOST = re.compile(
    r"(?:ssh://)?(?:(?P<user>[\w.+@\\$-]+)@)?"
    rf"(?:(?P<host>\[{_V6}\]|[\w.%+-]+)(?::(?P<port>[0-9]{{1,5}}))?/?|(?P<v6>{_V6}))"
)
_KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")
_TOKEN = re.compile(r"%(.)|\$\{(\w+)\}")
_OPTION_KEYS = {"-l": "User", "-p": "Port"}
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
# Settings that paramiko cannot follow: (key, what it is there where it is off).
_FOR_SSH_ALONE = (
    ("certificatefile", ""),
    ("pkcs11provider", "none"),
    ("knownhostscommand", "none"),
    ("hostbasedauthentication", "no"),
    ("bindaddress", "none"),
    ("bindinterface", "none"),
)
_WAYS = {
    "pubkeyauthentication": "publickey",
    "passwordauthentication": "password",
    "kbdinteractiveauthentication": "keyboard-interactive",
}


@dataclass(frozen=True)
class SshSettings:
    """One host."""

    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...] = ()
    identities_only: bool = False
    agent: str = ""  # its socket
    jumps: tuple[str, ...] = ()  # hosts to go through, nearest first
    proxy_command: str = ""  # the user's own words, for a shell
    strict_host_keys: str = "ask"  # or yes, accept-new, no
    user_known_hosts: tuple[Path, ...] = ()  # the first one gains a key that is accepted
    system_known_hosts: tuple[Path, ...] = ()
    host_key_alias: str = ""
    connect_timeout_s: float | None = None
    family: int = socket.AF_UNSPEC
    not_wanted: tuple[str, ...] = ()  # ways to log in
    for_ssh_alone: tuple[str, ...] = ()  # settings that need --via-ssh

    @property
    def key_name(self) -> str:
        """Return the name under which known_hosts holds its key."""
        name = self.host_key_alias or self.hostname
        return name if self.host_key_alias or self.port == 22 else f"[{name}]:{self.port}"


def ssh_arguments(host: str) -> list[str]:
    """Return HOST, USER@HOST, HOST:PORT or ssh://USER@HOST:PORT as ssh takes it.

    An IPv6 address may have a zone; brackets only where a port follows.

    Raises:
        UsageError: not a host name.
    """
    found = _HOST.fullmatch(host)
    if not found or host.startswith("-"):
        v6 = ", or [fe80::1%usb0]:22 for an IPv6 address with a port" if "::" in host else ""
        raise UsageError(
            f"expected a host such as jetson.local or user@host:port{v6}, got {host!r}"
        )
    options = ["-l", found["user"]] if found["user"] else []
    options += ["-p", found["port"]] if found["port"] else []
    return [*options, "--", (found["host"] or found["v6"]).strip("[]")]


def ask_ssh(host: str) -> str:
    """Return what `ssh -G` says of a host.

    Raises:
        UsageError: not a host name, or ssh refuses it or the user's configuration.
    """
    arguments = ssh_arguments(host)
    ssh = shutil.which("ssh")
    return _ask([ssh, "-G", *arguments]) if ssh else _without_ssh(arguments)


def read_settings(host: str) -> SshSettings:
    """Return the settings of HOST, USER@HOST, HOST:PORT or ssh://USER@HOST:PORT.

    Raises:
        UsageError: not a host name, or a setting that cannot be followed.
    """
    return parse_settings(ask_ssh(host))


def parse_values(text: str) -> dict[str, list[str]]:
    """Return the lines of `ssh -G` by their first word."""
    lists: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        lists.setdefault(key.lower(), []).append(value.strip())
    return lists


def parse_settings(text: str) -> SshSettings:
    """Return the settings in the output of `ssh -G`.

    Raises:
        UsageError: a setting that cannot be followed.
    """
    lists = parse_values(text)
    values = {key: found[-1] for key, found in lists.items()}
    hostname, user = values["hostname"], values.get("user") or getpass.getuser()
    port, alias = values.get("port", "22"), values.get("hostkeyalias", "")
    tokens = {
        "%": "%", "h": hostname, "p": port, "r": user, "u": getpass.getuser(),
        "n": values.get("host", hostname), "d": str(Path.home()), "k": alias or hostname,
        "i": str(os.getuid()), "l": socket.gethostname(),
        "L": socket.gethostname().partition(".")[0],
    }  # fmt: skip
    timeout = values.get("connecttimeout", "none")
    strict = values.get("stricthostkeychecking", "ask")
    return SshSettings(
        hostname=hostname,
        port=int(port),
        user=user,
        identity_files=tuple(
            _path(_expand(file, tokens)) for file in lists.get("identityfile", []) if file != "none"
        ),
        identities_only=values.get("identitiesonly") == "yes",
        agent=_agent(values.get("identityagent", "SSH_AUTH_SOCK")),
        jumps=tuple(
            re.sub(r"%([%hnpr])", lambda found: tokens[found[1]], jump)  # %eth0 is a zone
            for jump in _listed(values.get("proxyjump", "").replace(",", " "))
        ),
        proxy_command=_proxy_command(values, tokens),
        strict_host_keys={"true": "yes", "false": "no", "off": "no"}.get(strict, strict),
        user_known_hosts=_files(values.get("userknownhostsfile", ""), tokens),
        system_known_hosts=_files(values.get("globalknownhostsfile", ""), {}),
        host_key_alias=alias,
        connect_timeout_s=float(timeout) if timeout.isdigit() else None,
        family=_FAMILIES.get(values.get("addressfamily", ""), socket.AF_UNSPEC),
        not_wanted=tuple(way for key, way in _WAYS.items() if values.get(key) in ("no", "false")),
        for_ssh_alone=tuple(key for key, off in _FOR_SSH_ALONE if values.get(key, off) != off),
    )


def _ask(command: list[str]) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=True)
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"{' '.join(command)} gave no answer in {_TIMEOUT_S:.0f} s; look at ~/.ssh/config"
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip()
        said = " / ".join(line.strip() for line in said.splitlines())
        raise UsageError(f"ssh does not accept this host or its config: {said}") from error
    return answer.stdout.decode("utf-8", "surrogateescape")


def _without_ssh(arguments: list[str]) -> str:
    """Return what `ssh -G` would say, as far as paramiko's own reader goes."""
    folder, (*options, _, name) = Path.home() / ".ssh", arguments
    found: dict[str, Any] = {
        "hostname": name,
        "identityfile": [str(folder / key) for key in _KEY_NAMES],
        "userknownhostsfile": f"{folder}/known_hosts {folder}/known_hosts2",
        "globalknownhostsfile": "/etc/ssh/ssh_known_hosts",
    }
    given = dict(zip(options[::2], options[1::2], strict=True))
    first = "".join(f"{_OPTION_KEYS[key]} {value}\n" for key, value in given.items())
    file = folder / "config"
    try:
        config = first + (file.read_text("utf-8") if file.exists() else "")
        if re.search(r"(?im)^\s*include\b", config):
            raise paramiko.ConfigParseError("Include is what only ssh reads")
        found |= paramiko.SSHConfig.from_text(config).lookup(name)
    except (OSError, ValueError, ImportError, paramiko.SSHException) as error:
        raise UsageError(f"{file}: {error}; install OpenSSH's client") from error
    lists = {key: value if isinstance(value, list) else [value] for key, value in found.items()}
    return "\n".join(f"{key} {value}" for key, values in lists.items() for value in values)


def _expand(text: str, tokens: dict[str, str]) -> str:
    """Return a setting with its tokens replaced, and ${VARIABLES}.

    Raises:
        UsageError: one that nobody knows, or that is unset.
    """

    def value(found: re.Match[str]) -> str:
        known = tokens if found[1] else os.environ
        if (name := found[1] or found[2]) not in known:
            raise UsageError(
                f"~/.ssh/config: {found[0]} in {text!r} has no value here; expected one of "
                f"%{' %'.join(tokens)} or a variable that is set, or add --via-ssh"
            )
        return known[name]

    return re.sub(_TOKEN, value, text)


def _proxy_command(values: dict[str, str], tokens: dict[str, str]) -> str:
    # ssh hands it to the user's shell, and so do we. The words are the user's own; what stands
    # for a token must mean nothing to a shell, as newer ssh asks too.
    command = values.get("proxycommand", "none")
    if command == "none":
        return ""
    if values.get("proxyusefdpass") == "yes":
        raise UsageError(f"{tokens['h']}: ProxyUseFdpass needs your own ssh: add --via-ssh")

    def value(found: re.Match[str]) -> str:
        if shlex.quote(text := _expand(found[0], tokens)) != text:
            raise UsageError(
                f"{tokens['h']}: ProxyCommand has {found[0]}, which is {text!r}; expected letters, "
                "digits and @%+=:,./- alone"
            )
        return text

    return re.sub(r"%(.)", value, command)


def _agent(value: str) -> str:
    """Return the socket that IdentityAgent means: a path, a variable, or none at all."""
    if value == "SSH_AUTH_SOCK" or value.startswith("$"):
        return os.environ.get(value.strip("${}"), "")
    return "" if value == "none" else str(_path(value))


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part for part in value.split() if part.lower() != "none")


def _files(value: str, tokens: dict[str, str]) -> tuple[Path, ...]:
    """Return the files of a list, in which `ssh -G` prints one with a space without its quotes.

    Raises:
        UsageError: nobody can tell where the first one ends, for it is not there yet.
    """
    words, found = value.split(" "), []
    while words:
        paths = [_file(" ".join(words[:count]), tokens) for count in range(1, len(words) + 1)]
        count = next((n for n, path in enumerate(paths, 1) if _is_there(path)), 1)
        if words[0] not in ("", "none"):
            found.append(paths[count - 1])
        words = words[count:]
    if not any(map(_is_there, found)) and any(not path.is_absolute() for path in found[1:2]):
        raise UsageError(
            f"~/.ssh/config: the known_hosts files {value!r}: a path with a space that is not "
            "there yet; make that file, name one without a space, or add --via-ssh"
        )
    return tuple(found)


def _file(text: str, tokens: dict[str, str]) -> Path:
    # Some releases print the tokens, others what they stand for, in which a % is a name's own.
    path = _path(text)
    if _is_there(path):
        return path
    known = {f"%{token}": value for token, value in tokens.items()}
    known |= {f"${{{name}}}": value for name, value in os.environ.items()}
    return _path(re.sub(_TOKEN, lambda found: known.get(found[0], found[0]), text))


def _is_there(path: Path) -> bool:
    return os.path.exists(path) and not os.path.isdir(path)  # Path's own raise where it is denied


def _path(value: str) -> Path:
    return Path(value.strip('"')).expanduser()
