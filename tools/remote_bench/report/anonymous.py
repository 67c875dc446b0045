"""Reports that may be given away: nothing in them says whose they are, or where.

First what names a machine by its place in a report goes, then what does by its looks in any text:
names, addresses, keys, serials and paths that hang together with a person.
"""

import dataclasses
import getpass
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from fastseg_targets.device import device_names
from fastseg_targets.target import target_names

from remote_bench.analysis.report import Report

# Of what the agent was asked: the rest are names and folders on the board.
_FLAGS = ("target", "seconds", "warmup_s", "idle_s", "fps", "sampler_hz", "power_mode",
          "frames_sha256")  # fmt: skip
# Names that say nothing of anybody.
_PUBLIC = {"", "localhost", "127.0.0.1", "::1", "root", *device_names(), *target_names()}
_LOOKS = (  # what to look for -> what stands there instead; in this order
    (r"-----BEGIN [A-Z ]*-----.*?(?:-----END [A-Z ]*-----|$)", "[key]"),
    (r"\b(?:ssh|ecdsa|sk)-[\w@.-]+ AAAA[\w+/=]+", "[key]"),
    (r"\b(?:SHA256:[\w+/=]{20,}|MD5:[0-9a-f:]{20,})", "[key]"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "[id]"),
    (r"\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b", "[address]"),
    # A kernel's own files are everybody's; all others may have a name in them.
    (r"(?<![\w.~])~?/(?!sys/|proc/|dev/)[^\s'\",;:()<>]+(?:/[^\s'\",;:()<>]*)*", "[path]"),
    (r"(?<!\w)[A-Za-z]:\\[^\s'\",;]+", "[path]"),
    (r"(?<![\w.-])[A-Za-z_][\w.-]*@(?:\[\w+\]|[A-Za-z][\w.-]*)", "[user]@[host]"),
    (r"(?<![\w.-])[\w-]+(?:\.[\w-]+)*\.(?:local|lan|home|internal|arpa|invalid)\b", "[host]"),
)
_QUAD = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)")
_COLONS = re.compile(r"(?<![\w:.])[0-9a-f:]*:[0-9a-f:.]*:[0-9a-f:.]*(?:%\w+)?", re.IGNORECASE)


def anonymous(report: Report) -> Report:
    """Return a report without what names a machine or its owner; its texts are left for clean()."""
    flags = {key: report.flags[key] for key in _FLAGS if key in report.flags}
    return dataclasses.replace(
        report,
        run_id=None,
        host=None,
        address=None,
        log="",
        board=None,
        deployed=None,
        flags=flags,
        # What a command of the user's said may have a plug's address or its password in it.
        wall_power_reason="the meter failed" if report.wall_power_reason else None,
        reasons=tuple(
            dataclasses.replace(one, message="the meter failed")
            if one.code == "meter_failed"
            else one
            for one in report.reasons
        ),
        bundle=dataclasses.replace(report.bundle, path=None),
        device=dataclasses.replace(report.device, serial_sha256=None, boot_id=None),
    )


class Cleaner:
    """Takes out of texts what tells who and where."""

    def __init__(self, names: Iterable[str], versions: Iterable[str] = ()) -> None:
        """Know what to look for.

        Args:
            names: of hosts, users and folders, as far as they are known.
            versions: of software; those that look like an address (TensorRT's) stay.
        """
        known = {getpass.getuser(), socket.gethostname(), *names}
        parts = {part for name in known for part in (name, *re.split(r"[@\[\]/]|:\d+$", name))}
        self._names = sorted(
            (part for part in parts if len(part) > 1 and part not in _PUBLIC), key=len, reverse=True
        )
        self._versions = {quad for text in versions for quad in _QUAD.findall(text.split("-")[0])}

    def clean(self, value: Any) -> Any:
        """Return a table, a list or a text with all that is private in it replaced."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            # A record's own words stay, though a host be called "target" or "jetson".
            return {
                key if str(key).isidentifier() else self._text(str(key)): self.clean(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.clean(item) for item in value]
        return value

    def _text(self, text: str) -> str:
        if text in _PUBLIC:
            return text
        for name in self._names:
            # ssh lowers names.
            whole = rf"(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)"
            text = re.sub(whole, "[name]", text, flags=re.IGNORECASE)
        for pattern, instead in _LOOKS[:-2]:
            text = re.sub(pattern, instead, text, flags=re.IGNORECASE | re.DOTALL)
        text = _QUAD.sub(self._quad, text)
        text = _COLONS.sub(_colons, text)
        for pattern, instead in _LOOKS[-2:]:
            text = re.sub(pattern, instead, text, flags=re.IGNORECASE)
        return text

    def _quad(self, found: re.Match[str]) -> str:
        return found[0] if found[0] in self._versions else _address(found[0])


def _colons(found: re.Match[str]) -> str:
    return _address(found[0])


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text.partition("%")[0].rstrip(":."))
    except ValueError:
        return text
    return "[address]"
