"""Targets: what to make for a family of devices. One TOML per target in profiles/.

The file's name is the target's name: a new target is a new file and nothing else.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from fastseg_runtime.arrays.strict_tables import TableError, from_table
from fastseg_runtime.engines.engine import precisions

NAME = re.compile(r"[A-Za-z0-9_-]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")  # Windows drops a dot at its end


@dataclass(frozen=True)
class Gate:
    """How much worse than PyTorch an artifact may be, as fractions of mIoU and IoU."""

    miou_drop: float = 0.01
    class_drop: float = 0.03

    def __post_init__(self) -> None:
        """Refuse points taken for fractions, which would let everything pass."""
        for name, limit in vars(self).items():
            if not 0 <= limit <= 1 or (name, limit) == ("miou_drop", 1):  # 1: no limit of a class
                raise ValueError(f"{name} is {limit}; expected a fraction, 0.02 for two points")


@dataclass(frozen=True)
class Target:
    """One target."""

    name: str
    description: str
    exporter: str  # a name in fastseg_exporters.convert.exporter.EXPORTERS
    ladder: tuple[str, ...]  # precisions, the one asked for first; where its gate fails, the next
    extra: str = ""  # of fastseg-edge, if it needs another than its exporter does
    devices: tuple[str, ...] = ()  # boards for which a roofline bound is worth printing
    gate: Gate = Gate()
    options: dict[str, Any] = field(default_factory=dict)  # the exporter's own Options


def target_names() -> list[str]:
    """Return the names of all targets, sorted."""
    files = resources.files("fastseg_targets").joinpath("profiles").iterdir()
    return sorted(file.name[: -len(".toml")] for file in files if file.name.endswith(".toml"))


def load_target(name: str) -> Target:
    """Read one target's file.

    Raises:
        ValueError: no such target, or its file has an unknown, missing or mistyped key.
    """
    declined = resources.files("fastseg_targets").joinpath("declined.toml").read_text("utf-8")
    if why := tomllib.loads(declined).get(name):
        raise ValueError(f"{name} is not made: {why}")
    if name not in target_names():
        near = difflib.get_close_matches(name, target_names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no target {name!r}; choose from {', '.join(target_names())}{hint}")
    file = resources.files("fastseg_targets").joinpath("profiles", f"{name}.toml")
    return parse_target(name, file.read_text("utf-8"))


def parse_target(name: str, text: str) -> Target:
    """Make a Target of the text of a TOML file; see load_target for the errors."""
    table, place = tomllib.loads(text), f"{name}.toml"
    if not NAME.fullmatch(name):  # it is a folder's in the bundle, and on devices
        raise ValueError(
            f"{place}: a target is named by its file, of ASCII letters, digits, - _ and, "
            "within it, dots"
        )
    if "name" in table:
        raise TableError(place, "", "unknown keys ['name']; a target is named by its file")
    target = from_table(Target, {"name": name, **table}, place)
    known = tuple(precisions())
    if not target.ladder or not set(target.ladder) <= set(known):
        raise ValueError(f"{name}.toml: ladder is {target.ladder}; choose from {known}")
    return target


def select_targets(patterns: Iterable[str]) -> list[Target]:
    """Return the targets that names, globs ("android-*") or "all" stand for, each once.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    chosen: dict[str, Target] = {}
    for pattern in patterns:
        matches = fnmatch.filter(target_names(), "*" if pattern == "all" else pattern)
        for name in matches or [pattern]:
            chosen.setdefault(name, load_target(name))
    return list(chosen.values())
