"""What is known of each board: how to recognise it, its peak rates, its memory, its power rails.

One TOML file a board, of one form: those that ship are in devices/, the user's in boards_folder().
The file's name is the board's name.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from fastseg_runtime.arrays.strict_tables import TableError, from_table
from fastseg_runtime.engines.engine import precisions

SCOPES = ("module", "system", "soc", "gpu", "soc + gpu", "wall")
_SPECIFIC = ("compatible", "model", "dmi", "cpu")  # clues, best first; machine comes last of all
_MOST_BYTES = 64 << 10  # of a board's file: the longest that ships has two kilobytes


@dataclass(frozen=True)
class Recognition:
    """Texts that give a board away, upper and lower case alike; any one is enough."""

    compatible: tuple[str, ...] = ()  # parts of /proc/device-tree/compatible: module part numbers
    model: tuple[str, ...] = ()  # parts of /proc/device-tree/model
    dmi: tuple[str, ...] = ()  # parts of vendor, product, board and "chassis NUMBER" of a PC
    cpu: tuple[str, ...] = ()  # parts of the CPU's name
    machine: tuple[str, ...] = ()  # uname -m, which must fit; alone: for what nothing else is

    @property
    def is_general(self) -> bool:
        """Return whether nothing but the machine is said."""
        return not any(getattr(self, kind) for kind in _SPECIFIC)

    def __post_init__(self) -> None:
        """Refuse a board that nothing, or anything, would be recognised as."""
        texts = [text for kind in (*_SPECIFIC, "machine") for text in getattr(self, kind)]
        if not texts or not all(text.strip() for text in texts):
            raise ValueError(f"expected a text or more in one of {_SPECIFIC}, got {texts}")


@dataclass(frozen=True)
class Peak:
    """The highest dense rates; None where the source does not say.

    A multiply-add counts as two operations. Structured sparsity is left out.
    """

    fp32_gflops: float | None = None
    fp16_gflops: float | None = None
    int8_gops: float | None = None
    bandwidth_gb_s: float | None = None
    gpu_mhz: float | None = None  # the GPU's clock that the rates are of
    emc_mhz: float | None = None  # the memory's clock that the bandwidth is of
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse what no board has."""
        known = {name: value for name, value in vars(self).items() if value not in (None, "")}
        if wrong := [name for name, value in known.items() if name != "source" and value <= 0]:
            raise ValueError(f"expected {wrong[0]} above 0, got {known[wrong[0]]}; leave it out")

    def at(self, gpu_mhz: float | None, emc_mhz: float | None) -> Peak:
        """Return the peak at the clocks that a power mode allows; None: those of the peak."""
        gpu = gpu_mhz / self.gpu_mhz if gpu_mhz and self.gpu_mhz else 1.0
        emc = min(1.0, emc_mhz / self.emc_mhz) if emc_mhz and self.emc_mhz else 1.0
        shares = {"fp32_gflops": gpu, "fp16_gflops": gpu, "int8_gops": gpu, "gpu_mhz": gpu,
                  "bandwidth_gb_s": emc, "emc_mhz": emc}  # fmt: skip
        known = {name: getattr(self, name) for name in shares}
        return replace(self, **{n: v * shares[n] for n, v in known.items() if v is not None})


@dataclass(frozen=True)
class RailSum:
    """Rails that add up to a total, and what the total covers."""

    rails: tuple[str, ...]  # names; "*" at the end of one stands for any number of them
    scope: str  # one of SCOPES
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a scope that means nothing to the report, and a sum of nothing."""
        if not self.rails or "" in self.rails:
            raise ValueError("a total without rails; name those that add up to it")
        if self.scope not in SCOPES:
            raise ValueError(f"unknown scope {self.scope!r}; choose one of {SCOPES}")


@dataclass(frozen=True)
class Power:
    """Which rails to sum, best first: the first sum whose rails are all there is used."""

    totals: tuple[RailSum, ...] = ()
    do_not_add: tuple[str, ...] = ()  # rails that are part of another one
    step_mw: dict[str, float] = field(default_factory=dict)  # sensor resolution by rail
    source: str = ""
    missing: str = ""  # why there is no total, where the board has none
    command: tuple[str, ...] = ()  # program and arguments of a meter, which prints watts a line

    def __post_init__(self) -> None:
        """Refuse a rail that counts and does not, and a command that is none."""
        if not all(self.command) or "\0" in "".join(self.command):
            raise ValueError(f"command: expected a program and its arguments, got {self.command}")
        for total in self.totals:
            if both := sorted(set(total.rails) & set(self.do_not_add)):
                raise ValueError(f"{both} cannot be both summed and in do_not_add")


@dataclass(frozen=True)
class Sku:
    """One product of a family: what it says holds in place of what the family's file says."""

    name: str
    description: str
    compatible: tuple[str, ...] = ()  # part numbers; where the board names none, memory decides
    power_mode: str = ""  # that nvpmodel's table must have, where there is one
    memory_mb: int | None = None  # of its chips; Linux shows a little less
    peak: Peak = Peak()  # what is left out is the family's


@dataclass(frozen=True)
class Device:
    """One board."""

    name: str
    description: str
    recognise: Recognition
    like: str = ""  # a board that ships: what is not said here is as there
    peak: Peak = Peak()
    power: Power = Power()
    memory_mb: int | None = None
    unified_memory: bool = False  # CPU and GPU share it
    notes: tuple[str, ...] = ()
    not_measured: tuple[str, ...] = ()  # what remote_bench cannot tell there, and why
    sku: tuple[Sku, ...] = ()  # the first that fits
    is_sku: str = ""  # the one that it was recognised as

    @property
    def family(self) -> str:
        """Return the board that ships which it counts as, for targets; else its own name."""
        return self.like or self.name

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


def boards_folder() -> Path:
    """Return where the user's boards are: $XDG_CONFIG_HOME/fastseg/boards, or in ~/.config."""
    base = Path(os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config"))
    if not base.is_absolute():
        base = Path(os.path.expanduser("~/.config"))
    return base / "fastseg" / "boards"


def device_names() -> list[str]:
    """Return the names of all boards that ship, sorted."""
    files = resources.files("fastseg_targets").joinpath("devices").iterdir()
    return sorted(file.name[: -len(".toml")] for file in files if file.name.endswith(".toml"))


def user_devices() -> list[Device]:
    """Read the user's boards.

    Raises:
        ValueError: one of them cannot be read; see read_device.
    """
    if not boards_folder().is_absolute():  # a service without a home folder
        return []
    try:
        return [read_device(file) for file in sorted(boards_folder().glob("[!.]*.toml"))]
    except OSError as error:
        raise ValueError(f"{boards_folder()}: {error.strerror}; expected a folder") from error


def read_device(file: Path) -> Device:
    """Read a board's file of the user's.

    Raises:
        ValueError: no such file, no TOML, or an unknown, missing or mistyped key.
    """
    advice = "mend it, or move it away; docs/remote_bench.md has the form"
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device has no end
            raise ValueError("no regular file; expected a board's TOML file")
        if (size := found.st_size) > _MOST_BYTES:
            raise ValueError(f"{size} bytes, expected a board's record of at most {_MOST_BYTES}")
        return parse_device(file.stem, file.read_text("utf-8"), str(file))
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}; expected a board's TOML file") from error
    except TableError as error:
        raise ValueError(f"{error}; {advice}") from error
    except RecursionError as error:
        raise ValueError(f"{file}: it is nested too deep; {advice}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}; {advice}") from error


def load_device(name: str) -> Device:
    """Read the file of a board that ships, as its largest product.

    Raises:
        ValueError: no such board, or its file has an unknown, missing or mistyped key.
    """
    return parse_device(name, _shipped_text(name))


def parse_device(name: str, text: str, place: str = "") -> Device:
    """Make a Device of the text of a TOML file; see load_device for the errors."""
    place = place or f"{name}.toml"
    table = _table(text, place)
    if unknown := {"name", "is_sku"} & set(table):
        raise TableError(place, "", f"unknown keys {sorted(unknown)}; a board is named by its file")
    return from_table(Device, {"name": name, **table}, place)


def _table(text: str, place: str) -> dict[str, Any]:
    """Return a file's table, with what it leaves out from the board that it is like."""
    own = table = tomllib.loads(text)
    if isinstance(like := table.get("like"), str):
        try:
            base = _table(_shipped_text(like), place)
        except ValueError as error:
            raise TableError(place, ".like", str(error)) from error
        whole = {"like": base.get("like", like), "recognise": table.get("recognise")}
        table = _merged(base, table | {key: value for key, value in whole.items() if value})
        table["recognise"] = whole["recognise"] or base["recognise"]
    skus = table.get("sku")
    for sku in skus if isinstance(skus, list) else ():
        if isinstance(sku, dict):
            sku["peak"] = _merged(table.get("peak", {}), sku.get("peak", {}))
            if "sku" not in own:  # inherited: what this file says itself holds for them as well
                sku["peak"] = _merged(sku["peak"], own.get("peak", {}))
                sku["description"] = own.get("description", sku.get("description"))
    return table


@cache
def _shipped_text(name: str) -> str:
    if name not in device_names():
        raise ValueError(f"no device {name!r}; choose one of {device_names()}")
    file = resources.files("fastseg_targets").joinpath("devices", f"{name}.toml")
    return file.read_text("utf-8")


def _merged(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    both = {key: _merged(base[key], over[key]) for key in base.keys() & over.keys()}
    return {**base, **over, **both}


def recognise(probe: Mapping[str, Any], named: Device | None = None) -> Device:
    """Return the board that a probe describes, as the product of its family that it is.

    Args:
        probe: with probe["board"] ("compatible", a list, "model", a text, "dmi" and "attached",
            lists), probe["system"]["machine"], probe["cpu"]["model"], probe["memory"]["total_kb"]
            and probe["power_modes"] (by name); any may be missing or None.
        named: the board, where the user says which it is.

    Returns:
        A board by its module's part number, else by its model's name, the PC's or the CPU's; the
        user's boards come first. Else the generic device of its architecture ("generic-x86"
        where even that is unknown).

    Raises:
        ValueError: a board of the user's that cannot be read.
    """
    board = probe.get("board") or {}
    clues = {
        "compatible": _said(board.get("compatible")),
        "model": _said([board.get("model")]),
        "dmi": _said(board.get("dmi")),
        "cpu": _said([(probe.get("cpu") or {}).get("model")]),
        "machine": _said([(probe.get("system") or {}).get("machine")]),
    }
    device = named or _find(clues)
    sku = _product(device, clues["compatible"], probe)
    if sku is not None:
        device = replace(
            device,
            is_sku=sku.name,
            description=sku.description,
            memory_mb=sku.memory_mb or device.memory_mb,
            peak=sku.peak,
        )
    return _with_accelerators(device, _said(board.get("attached")))


def _said(texts: Iterable[object] | None) -> str:
    return " ".join(str(text) for text in texts or () if text).lower()


def _fits(parts: Iterable[str], text: str) -> bool:
    return any(part.lower() in text for part in parts)


def _may_be(machines: tuple[str, ...], machine: str) -> bool:
    return not machines or not machine or _fits(machines, machine)


def _find(clues: Mapping[str, str]) -> Device:
    mine, shipped = user_devices(), [load_device(name) for name in device_names()]
    for devices in (mine, shipped):
        fitting = [d for d in devices if _may_be(d.recognise.machine, clues["machine"])]
        for kind in _SPECIFIC:
            for device in fitting:
                if _fits(getattr(device.recognise, kind), clues[kind]):
                    return device
    for device in mine + shipped:
        if device.recognise.is_general and _fits(device.recognise.machine, clues["machine"]):
            return device
    return load_device("generic-x86")


def _product(device: Device, compatible: str, probe: Mapping[str, Any]) -> Sku | None:
    named = [sku for sku in device.sku if _fits(sku.compatible, compatible)]
    total_kb, modes = (probe.get("memory") or {}).get("total_kb"), probe.get("power_modes") or {}
    for sku in named or device.sku:
        if modes and sku.power_mode and sku.power_mode not in modes:
            continue
        if named or (total_kb and sku.memory_mb and total_kb <= 1024 * sku.memory_mb):
            return sku
    return None


@dataclass(frozen=True)
class _Accelerator:
    name: str
    attached: tuple[str, ...]  # "pci:VENDOR:DEVICE", "usb:VENDOR:PRODUCT", or the begin of one


@dataclass(frozen=True)
class _Accelerators:
    accelerator: tuple[_Accelerator, ...]
    not_measured: str


def _with_accelerators(device: Device, attached: str) -> Device:
    if not attached:
        return device
    text = resources.files("fastseg_targets").joinpath("accelerators.toml").read_text("utf-8")
    table = from_table(_Accelerators, tomllib.loads(text), "accelerators.toml")
    found = [one.name for one in table.accelerator if _fits(one.attached, attached)]
    return replace(
        device,
        description=" with ".join([device.description, *found]),
        not_measured=(*device.not_measured, *(table.not_measured.format(name) for name in found)),
    )
