"""Where a host is and how to log in, as OpenSSH itself would read it from ~/.ssh/config.

`ssh -G` knows Include, Match, tokens and defaults; no reader in Python does. Without an ssh on this
machine only the name, user and port that were given count.
"""

import getpass
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from remote_bench.host.errors import UsageError

_TIMEOUT_S = 20.0  # a Match exec of the user's may ask the network
_HOST = re.compile(
    r"(?:ssh://)?(?:(?P<user>[\w.+\\-]+)@)?"
    r"(?P<host>\[[0-9a-fA-F:.]+(?:%\w+)?\]|[\w.%+-]+)(?::(?P<port>[0-9]{1,5}))?/?"
)
_KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")


@dataclass(frozen=True)
class SshSettings:
    """One host."""

    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...] = ()
    identities_only: bool = False
    jumps: tuple[str, ...] = ()  # hosts to go through, nearest first
    user_known_hosts: tuple[Path, ...] = ()  # the first one gains a key that is accepted
    system_known_hosts: tuple[Path, ...] = ()
    host_key_alias: str = ""
    connect_timeout_s: float | None = None

    @property
    def key_name(self) -> str:
        """Return the name under which known_hosts holds its key."""
        name = self.host_key_alias or self.hostname
        return name if self.host_key_alias or self.port == 22 else f"[{name}]:{self.port}"


def read_settings(host: str) -> SshSettings:
    """Return the settings of HOST, USER@HOST, HOST:PORT or ssh://USER@HOST:PORT.

    Raises:
        UsageError: not a host name, or a setting that is not supported.
    """
    found = _HOST.fullmatch(host)
    if not found or host.startswith("-"):
        raise UsageError(f"expected a host such as jetson.local or user@host:port, got {host!r}")
    name = found["host"].strip("[]")
    ssh = shutil.which("ssh")
    if ssh is None:
        return _defaults(name, found["user"], int(found["port"] or 22))
    options = ["-l", found["user"]] if found["user"] else []
    options += ["-p", found["port"]] if found["port"] else []
    return parse_settings(_ask([ssh, "-G", *options, "--", name]))


def parse_settings(text: str) -> SshSettings:
    """Return the settings in the output of `ssh -G`.

    Raises:
        UsageError: a setting that is not supported.
    """
    lists: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        lists.setdefault(key.lower(), []).append(value.strip())
    values = {key: found[-1] for key, found in lists.items()}
    if values.get("proxycommand", "none") != "none":
        raise UsageError(
            f"{values.get('hostname')}: ProxyCommand in ~/.ssh/config is not supported; "
            "use ProxyJump"
        )
    timeout = values.get("connecttimeout", "none")
    return SshSettings(
        hostname=values["hostname"],
        port=int(values.get("port", 22)),
        user=values.get("user") or getpass.getuser(),
        identity_files=tuple(map(_path, lists.get("identityfile", []))),
        identities_only=values.get("identitiesonly") == "yes",
        jumps=_listed(values.get("proxyjump", "").replace(",", " ")),
        user_known_hosts=tuple(map(_path, _listed(values.get("userknownhostsfile", "")))),
        system_known_hosts=tuple(map(_path, _listed(values.get("globalknownhostsfile", "")))),
        host_key_alias=values.get("hostkeyalias", ""),
        connect_timeout_s=float(timeout) if timeout.isdigit() else None,
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
        raise UsageError(f"ssh does not accept this host or its config: {said}") from error
    return answer.stdout.decode("utf-8", "surrogateescape")


def _defaults(name: str, user: str | None, port: int) -> SshSettings:
    folder = Path.home() / ".ssh"
    return SshSettings(
        hostname=name,
        port=port,
        user=user or getpass.getuser(),
        identity_files=tuple(folder / name for name in _KEY_NAMES),
        user_known_hosts=(folder / "known_hosts", folder / "known_hosts2"),
        system_known_hosts=(Path("/etc/ssh/ssh_known_hosts"),),
    )


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part for part in value.split() if part.lower() != "none")


def _path(value: str) -> Path:
    return Path(value.strip('"')).expanduser()
