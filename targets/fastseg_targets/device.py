"""What is known of each board: how to recognise it, its peak rates, its memory, its power rails.

One TOML file per board in devices/; the file's name is the device's name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_runtime.engines.engine import precisions

SCOPES = ("module", "system", "soc", "gpu", "soc + gpu")


@dataclass(frozen=True)
class Recognition:
    """Texts that give a board away; any one of them is enough, upper and lower case alike."""

    compatible: tuple[str, ...] = ()  # parts of /proc/device-tree/compatible: module part numbers
    model: tuple[str, ...] = ()  # parts of /proc/device-tree/model
    machine: tuple[str, ...] = ()  # uname -m; for boards that nothing else recognises


@dataclass(frozen=True)
class Peak:
    """The highest dense rates at the highest clocks; None where the source does not say.

    A multiply-add counts as two operations. Structured sparsity is left out.
    """

    fp32_gflops: float | None = None
    fp16_gflops: float | None = None
    int8_gops: float | None = None
    bandwidth_gb_s: float | None = None
    source: str = ""


@dataclass(frozen=True)
class RailSum:
    """Rails that add up to a total, and what the total covers."""

    rails: tuple[str, ...]  # names; "*" at the end of one stands for any number of them
    scope: str  # one of SCOPES
    note: str = ""


@dataclass(frozen=True)
class Power:
    """Which rails to sum, best first: the first sum whose rails are all there is used."""

    totals: tuple[RailSum, ...] = ()
    do_not_add: tuple[str, ...] = ()  # rails that are part of another one
    step_mw: dict[str, float] = field(default_factory=dict)  # sensor resolution by rail
    source: str = ""
    missing: str = ""  # why there is no total, where the board has none


@dataclass(frozen=True)
class Device:
    """One board."""

    name: str
    description: str
    recognise: Recognition
    peak: Peak = Peak()
    power: Power = Power()
    memory_mb: int | None = None
    unified_memory: bool = False  # CPU and GPU share it
    gpu_mhz: dict[str, float] = field(default_factory=dict)  # highest clock, by power mode
    notes: tuple[str, ...] = ()

    def bound_ms(self, macs: int, bytes_moved: int, precision: str) -> float | None:
        """Return the roofline bound: no network this size is faster than so many milliseconds.

        Args:
            macs: multiply-adds for one image.
            bytes_moved: weights, input and output, each moved once.
            precision: its name; see fastseg_runtime.engines.engine.

        Returns:
            None where neither the rate nor the bandwidth is known.

        Source: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009.
        """
        if precision not in (known := precisions()):
            raise ValueError(f"unknown precision {precision!r}; choose one of {[*known]}")
        rate, bandwidth_g = known[precision].rate, self.peak.bandwidth_gb_s
        rate_g = getattr(self.peak, rate) if rate else None
        bounds_ms = [
            1e3 * work / (per_second_g * 1e9)
            for work, per_second_g in ((2 * macs, rate_g), (bytes_moved, bandwidth_g))
            if per_second_g
        ]
        return max(bounds_ms, default=None)


def device_names() -> list[str]:
    """Return the names of all known boards, sorted."""
    files = resources.files("fastseg_targets").joinpath("devices").iterdir()
    return sorted(file.name[: -len(".toml")] for file in files if file.name.endswith(".toml"))


def load_device(name: str) -> Device:
    """Read one board's file.

    Raises:
        ValueError: no such board, or its file has an unknown, missing or mistyped key.
    """
    if name not in device_names():
        raise ValueError(f"no device {name!r}; choose one of {device_names()}")
    file = resources.files("fastseg_targets").joinpath("devices", f"{name}.toml")
    return parse_device(name, file.read_text("utf-8"))


def parse_device(name: str, text: str) -> Device:
    """Make a Device of the text of a TOML file; see load_device for the errors."""
    place = f"{name}.toml"
    device = from_table(Device, {"name": name, **tomllib.loads(text)}, place)
    for total in device.power.totals:
        if total.scope not in SCOPES:
            raise ValueError(f"{place}: unknown scope {total.scope!r}; choose one of {SCOPES}")
        if both := sorted(set(total.rails) & set(device.power.do_not_add)):
            raise ValueError(f"{place}: {both} cannot be both summed and in do_not_add")
    return device


def recognise(probe: Mapping[str, Any]) -> Device:
    """Return the board that a probe describes.

    Args:
        probe: with probe["board"]["compatible"] (a list), probe["board"]["model"] (a text) and
            probe["system"]["machine"]; any may be missing or None.

    Returns:
        A board by its module's part number, else by its model's name, else the generic device
        of its architecture ("generic-x86" where even that is unknown).
    """
    board, system = probe.get("board") or {}, probe.get("system") or {}
    compatible = " ".join(map(str, board.get("compatible") or ()))
    clues = (
        ("compatible", compatible),
        ("model", str(board.get("model") or "")),
        ("machine", str(system.get("machine") or "")),
    )
    devices = [load_device(name) for name in device_names()]
    for kind, text in clues:
        for device in devices:
            if any(part.lower() in text.lower() for part in getattr(device.recognise, kind)):
                return device
    return load_device("generic-x86")
