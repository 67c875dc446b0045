"""Which host keys the user has approved: known_hosts, read line by line.

A line that is odd (junk, a comment in Latin-1) is passed over; it must not disable the lines beside
it. @revoked is respected; a @cert-authority approves nothing here, but is said. Format: sshd(8),
"SSH_KNOWN_HOSTS FILE FORMAT". StrictHostKeyChecking means what it means to ssh, except that a
changed key always stops.
"""

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from remote_bench.host.errors import HostKeyRefused
from remote_bench.host.host import Ask
from remote_bench.host.ssh_config import SshSettings

Key = tuple[str, bytes]  # type such as "ssh-ed25519", and the public key's bytes
_AUTHORITY, _REVOKED = "@cert-authority", "@revoked"


@dataclass(frozen=True)
class KnownKey:
    """One line that concerns a host."""

    key: Key
    marker: str  # "" of a key that is approved
    place: str  # file:line


class KnownKeys:
    """The lines of all known_hosts files that concern one host."""

    def __init__(self, settings: SshSettings) -> None:
        self._settings = settings
        files = (*settings.user_known_hosts, *settings.system_known_hosts)
        self._lines = [line for file in files for line in read_lines(file, settings.key_name)]
        self._approved = [line for line in self._lines if not line.marker]
        self.unseen = ""  # what was accepted because the user's configuration asks nobody

    @property
    def types(self) -> list[str]:
        """Return the types of the approved keys: a server should show one of them."""
        return [line.key[0] for line in self._approved]

    def check(
        self, key: Key, host: str, accept: str | None, answer: Ask = lambda question: None
    ) -> str | None:
        """Return normally only if the user approved this key.

        Args:
            key: what the server showed and proved to own.
            host: as the user gave it, for messages.
            accept: "SHA256:..." of the one unknown key that the user approves.
            answer: asks whoever is there, where StrictHostKeyChecking is ask.

        Returns:
            What was written where, if a key was accepted; else None.

        Raises:
            HostKeyRefused: revoked, changed, or unknown.
        """
        mine = fingerprint(key)
        for line in self._lines:
            if line.marker == _REVOKED and line.key == key:
                raise HostKeyRefused(
                    f"{host}: its key {mine} is revoked in {line.place}; give the board a new one"
                )
        if any(line.key == key for line in self._approved):
            return None
        if self._approved:
            known, name = self._approved[0], self._settings.key_name
            raise HostKeyRefused(changed(host, key, known.key, known.place, name))
        if not (accept == mine if accept else self._accepts(mine, host, answer)):
            raise HostKeyRefused(_unknown(host, key, accept) + self._hint())
        return self._add(key)

    def _accepts(self, mine: str, host: str, answer: Ask) -> bool:
        strict = self._settings.strict_host_keys
        if strict in ("accept-new", "no"):
            self.unseen = (
                f"the host key {mine} was accepted unseen, as StrictHostKeyChecking "
                f"{strict} in ~/.ssh/config asks: another board could have answered"
            )
            return True
        question = f"{host} shows the unknown host key {mine}. Type yes, or that, to accept it: "
        return strict == "ask" and (answer(question) or "").strip() in ("yes", mine)

    def _hint(self) -> str:
        asks = "knownhostscommand" in self._settings.for_ssh_alone
        if asks or any(line.marker == _AUTHORITY for line in self._lines):
            return ". Or let your own ssh ask its certificate authority: add --via-ssh"
        return ""

    def _add(self, key: Key) -> str:
        kind, blob = key
        name = self._settings.key_name.lower()
        line = f"{name} {kind} {base64.b64encode(blob).decode('ascii')}\n"
        file = next(iter(self._settings.user_known_hosts), Path(os.devnull))
        if file == Path(os.devnull):
            return "accepted for this run; there is no known_hosts file to keep it in"
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            whole = (
                not file.exists() or file.read_bytes().endswith(b"\n") or not file.stat().st_size
            )
            with file.open("a", encoding="utf-8") as known:
                known.write(line if whole else "\n" + line)
        except OSError as error:
            return f"accepted for this run; {file} cannot be written: {error.strerror}"
        return f"added {fingerprint(key)} to {file}"


def fingerprint(key: Key) -> str:
    """Return what `ssh-keygen -l` shows."""
    digest = base64.b64encode(hashlib.sha256(key[1]).digest()).decode("ascii")
    return "SHA256:" + digest.rstrip("=")


def read_lines(file: Path, name: str) -> Iterator[KnownKey]:
    """Yield the lines of a known_hosts file that concern a name; none if it cannot be read."""
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError:
        return
    for number, line in enumerate(lines, start=1):
        parsed = _parse(line.decode("utf-8", "replace").strip())
        if parsed is not None and matches(parsed[1], name):
            yield KnownKey(parsed[2], parsed[0], f"{file}:{number}")


def _parse(line: str) -> tuple[str, str, Key] | None:
    # (marker, host patterns, key); None for comments and junk.
    marker, rest = "", line
    if line.startswith("@"):
        marker, _, rest = line.partition(" ")
    fields = rest.split(None, 3)
    if line.startswith("#") or len(fields) < 3 or marker not in ("", _REVOKED, _AUTHORITY):
        return None
    patterns, kind, text = fields[:3]
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    encoded = kind.encode("utf-8")
    if not blob.startswith(len(encoded).to_bytes(4, "big") + encoded):  # says what it is itself
        return None
    return marker, patterns, (kind, blob)


def matches(patterns: str, name: str) -> bool:
    """Tell whether the first field of a line concerns a host."""
    name = name.lower()  # as OpenSSH writes it, and hashes it
    if patterns.startswith("|1|"):
        return _matches_hash(patterns, name)
    wanted = patterns.lower().split(",")
    if any(_matches(pattern[1:], name) for pattern in wanted if pattern.startswith("!")):
        return False
    return any(_matches(pattern, name) for pattern in wanted)


def _matches(pattern: str, name: str) -> bool:
    # Only * and ? are special to OpenSSH; "[host]:port" has brackets that fnmatch must not see.
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _matches_hash(patterns: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in patterns[len("|1|") :].split("|"))
    except (binascii.Error, ValueError):
        return False
    found = hmac.new(salt, name.encode("utf-8"), hashlib.sha1).digest()
    return hmac.compare_digest(found, digest)


def preferred(types: Iterable[str], offered: Iterable[str]) -> list[str]:
    """Return the offered algorithms, those of approved keys first, as OpenSSH orders them."""
    first = set(types)
    if "ssh-rsa" in first:  # such a key, but not signatures by SHA-1
        first = first - {"ssh-rsa"} | {"rsa-sha2-512", "rsa-sha2-256"}
    return sorted(offered, key=lambda name: name not in first)


def _unknown(host: str, key: Key, accept: str | None) -> str:
    kind = key[0].removeprefix("ssh-").split("-")[0]
    other = f" (not the {accept} that you accept)" if accept else ""
    return (
        f"{host}: unknown host key {fingerprint(key)}{other}. Compare it with what the board's "
        f"own console says: ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub. If they agree: "
        f"remote_bench {host} --accept-host-key {fingerprint(key)}"
    )


def changed(host: str, key: Key, known: Key, place: str, name: str) -> str:
    """Return what is said of a host that shows another key than the known one of a place."""
    return (
        f"{host}: THE HOST KEY HAS CHANGED: {place} has {fingerprint(known)}, the server shows "
        f"{fingerprint(key)}. Somebody may be between you and the board. If you know that the "
        f"board was set up anew, remove the old key: ssh-keygen -R '{name}'"
    )
