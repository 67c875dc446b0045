"""Lines of NVIDIA's tegrastats, JetPack 2 to 7.2, as typed fields; no line is ever an error.

A line is cut at spaces and read token by token: a name, then a value whose shape tells what it is.
So a new rail or engine is read without a new release, and what has no known shape is kept in
`unknown`. A field that cannot be had is None, and `nulls` says why.

    python -m remote_bench.tegrastats < LINES      prints one JSON object a line, in order
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

# Each expression is for one token, never for a line. Digits are bounded: a number is a number,
# and not a page of digits.
_MEMORY = re.compile(r"([0-9]{1,9})/([0-9]{1,9})([kMG])B(\(lfb)?$")
_LARGEST_FREE = re.compile(r"(?:([0-9]{1,9})x)?([0-9]{1,9})([kMG])B\)$")
_CACHED = re.compile(r"([0-9]{1,9})([kMG])B\)$")
_CORES = re.compile(r"\[([^\[\]]*)\](?:@([0-9]{1,6}))?$")
_CORE = re.compile(r"([0-9]{1,3})%(?:@([0-9]{1,6}))?$")
_LOAD_CLOCK = re.compile(r"(?:([0-9]{1,3})%)?(?:@(?:([0-9]{1,6})|\[([0-9,]{1,80})\]))?$")
_RAIL = re.compile(r"(-?[0-9]{1,9})(?:mW)?/(-?[0-9]{1,9})(?:mW)?(?:/(-?[0-9]{1,9})(?:mW)?)?$")
_READING = re.compile(r"(-?[0-9]{1,9})mW()()$")  # alone, without an average
_ZONE = re.compile(r"([A-Za-z][\w.+-]*)@(-?[0-9]{1,5}(?:\.[0-9]{1,6})?)C(?:/(-?[0-9.]{1,12})C?)?$")
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*$")
_DATE = re.compile(r"[0-9]{2}-[0-9]{2}-[0-9]{4}$")
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}$")
_PERCENT = re.compile(r"([0-9]{1,3})%$")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?$")
_INTEGER = re.compile(r"[0-9]{1,6}$")

_KB = {"k": 1, "M": 1024, "G": 1024 * 1024}
_MEMORIES = ("RAM", "SWAP", "IRAM")
# Engines whose value may be a bare clock in MHz; any other name needs a % or an @.
_CLOCKED = re.compile(
    r"(AVP|APE|VDE|VIC|NVENC|NVDEC|NVJPG|NVDLA|PVA|OFA|MSENC)\w*$|(?!GR3D|EMC)\w+_FREQ$"
)
_LOOKAHEAD = 4  # tokens that a reader looks at beyond the first: MTS fg 0% bg 0%
_OFF_C = -256.0  # what a rail-gated zone reads

NO_CLOCK = "no clock in the line: tegrastats ran without root, or the unit is off"


@dataclass(frozen=True)
class Memory:
    """A kind of memory, whole system: on a Jetson CPU and GPU share it."""

    used_kb: int
    total_kb: int
    cached_kb: int | None = None
    largest_free_blocks: int | None = None
    largest_free_block_kb: int | None = None


@dataclass(frozen=True)
class Core:
    """One CPU core that is on."""

    load_percent: int
    mhz: int | None


@dataclass(frozen=True)
class Engine:
    """A unit beside the CPU: GPU, memory controller, video, DLA."""

    load_percent: int | None = None
    mhz: tuple[int, ...] = ()  # one clock a cluster; empty where none is printed
    off: bool = False


@dataclass(frozen=True)
class Zone:
    """A temperature zone. celsius is None where the value is no temperature."""

    name: str
    celsius: float | None
    max_celsius: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Rail:
    """A power rail: the reading, and what tegrastats printed as average and maximum.

    The printed average starts at tegrastats' own start and its first value is wrong on Thor:
    never use it. Negative readings are one sensor step around zero, and true.
    """

    name: str
    mw: int
    printed_avg_mw: int | None
    printed_max_mw: int | None = None


@dataclass
class Line:
    """One line. Names that occur twice keep their first value; the rest is in `repeated`."""

    raw: str
    timestamp: str | None = None  # local time without a zone: not a clock
    ram: Memory | None = None
    swap: Memory | None = None
    iram: Memory | None = None
    cpu: list[Core | None] | None = None  # None in the list: a core that is off
    engines: dict[str, Engine] = field(default_factory=dict)
    mts_percent: dict[str, int] = field(default_factory=dict)  # fg and bg of Denver cores
    edp_limit_mhz: int | None = None
    zones: dict[str, Zone] = field(default_factory=dict)
    rails: dict[str, Rail] = field(default_factory=dict)
    repeated: list[Rail | Zone] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    nulls: dict[str, str] = field(default_factory=dict)

    @property
    def gpu(self) -> Engine | None:
        """The GPU's load and clocks; its name changed over the years."""
        return self.engines.get("GR3D_FREQ") or self.engines.get("GR3D")

    @property
    def emc(self) -> Engine | None:
        """The memory controller's load and clock."""
        return self.engines.get("EMC_FREQ") or self.engines.get("EMC")

    def rail_mw(self, name: str) -> int | None:
        """Return a rail's reading; None where it is absent or two readings of it disagree."""
        rail = self.rails.get(name)
        others = [r.mw for r in self.repeated if isinstance(r, Rail) and r.name == name]
        return None if rail is None or any(mw != rail.mw for mw in others) else rail.mw

    def to_json(self) -> str:
        """Return the line as one JSON object in one line of ASCII."""
        table = dataclasses.asdict(self)
        for name, engine in (("gpu", self.gpu), ("emc", self.emc)):
            table[name] = dataclasses.asdict(engine) if engine else None
        return json.dumps(table)


def parse_line(text: str | bytes) -> Line:
    """Read one line, known or not.

    Args:
        text: the line with or without its line end; bytes are read as UTF-8, odd ones replaced.
    """
    raw = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    line = Line(raw=raw.rstrip("\r\n"))
    tokens = line.raw.split()
    count, position = len(tokens), 0
    tokens += [""] * _LOOKAHEAD
    while position < count:
        taken = next((n for reader in _READERS if (n := reader(line, tokens, position))), 0)
        if not taken:
            line.unknown.append(tokens[position])
        position += taken or 1
    _explain_nulls(line)
    return line


# A reader looks at tokens[at:], fills in the line and returns how many tokens it took, or 0. There
# are _LOOKAHEAD empty ones behind the last.


def _read_timestamp(line: Line, tokens: list[str], at: int) -> int:
    date, time = tokens[at : at + 2]
    if line.timestamp or not (_DATE.match(date) and _TIME.match(time)):
        return 0
    line.timestamp = f"{date} {time}"
    return 2


def _read_memory(line: Line, tokens: list[str], at: int) -> int:
    name, match = tokens[at], _MEMORY.match(tokens[at + 1])
    if name not in _MEMORIES or not match or getattr(line, name.lower()) is not None:
        return 0
    taken, opening = (2, "(lfb") if match[4] else (3, tokens[at + 2])
    extra = _memory_detail(opening, tokens[at + taken])
    kb = _KB[match[3]]
    memory = Memory(int(match[1]) * kb, int(match[2]) * kb, **extra)
    setattr(line, name.lower(), memory)
    return taken + 1 if extra else 2


def _memory_detail(opening: str, detail: str) -> dict[str, int]:
    if opening == "(lfb" and (match := _LARGEST_FREE.match(detail)):
        blocks, size_kb = int(match[1] or 1), int(match[2]) * _KB[match[3]]
        return {"largest_free_blocks": blocks, "largest_free_block_kb": size_kb}
    if opening == "(cached" and (match := _CACHED.match(detail)):
        return {"cached_kb": int(match[1]) * _KB[match[2]]}
    return {}


def _read_cpu(line: Line, tokens: list[str], at: int) -> int:
    match = _CORES.match(tokens[at + 1])
    if tokens[at] not in ("CPU", "cpu") or not match or line.cpu is not None:
        return 0
    shared_mhz = int(match[2]) if match[2] else None
    cores: list[Core | None] = []
    for entry in match[1].split(","):
        core = _CORE.match(entry)
        if not core and entry != "off":
            return 0
        mhz = int(core[2]) if core and core[2] else shared_mhz
        cores.append(Core(int(core[1]), mhz) if core else None)
    line.cpu = cores
    return 2


def _read_zone(line: Line, tokens: list[str], at: int) -> int:
    match = _ZONE.match(tokens[at])
    if not match:
        return 0
    name, celsius = match[1], float(match[2])
    most = float(match[3]) if _NUMBER.match(match[3] or "") else None
    zone = Zone(name, celsius, most)
    if name.upper() == "PMIC":
        zone = Zone(name, None, None, "a constant, not a temperature")
    elif celsius <= _OFF_C:
        zone = Zone(name, None, None, "the zone is off (rail-gated)")
    if line.zones.setdefault(name, zone) is not zone:
        line.repeated.append(zone)
    return 1


def _read_rail(line: Line, tokens: list[str], at: int) -> int:
    name, match = tokens[at], _RAIL.match(tokens[at + 1]) or _READING.match(tokens[at + 1])
    if not match or not _NAME.match(name) or name in _MEMORIES or _INTEGER.match(name):
        return 0
    average, most = (int(digits) if digits else None for digits in match.groups()[1:])
    rail = Rail(name, int(match[1]), average, most)
    if line.rails.setdefault(name, rail) is not rail:
        line.repeated.append(rail)
    return 2


def _read_mts(line: Line, tokens: list[str], at: int) -> int:
    fg, bg = _PERCENT.match(tokens[at + 2]), _PERCENT.match(tokens[at + 4])
    names = [tokens[at], tokens[at + 1], tokens[at + 3]]
    if names != ["MTS", "fg", "bg"] or not (fg and bg) or line.mts_percent:
        return 0
    line.mts_percent = {"fg": int(fg[1]), "bg": int(bg[1])}
    return 5


def _read_edp(line: Line, tokens: list[str], at: int) -> int:
    if tokens[at : at + 2] != ["EDP", "limit"] or not _INTEGER.match(tokens[at + 2]):
        return 0
    line.edp_limit_mhz = int(tokens[at + 2])
    return 3


def _read_engine(line: Line, tokens: list[str], at: int) -> int:
    name, value = tokens[at : at + 2]
    engine = _engine(name, value)
    if engine is None or name in line.engines or not _NAME.match(name):
        return 0
    line.engines[name] = engine
    return 2


def _engine(name: str, value: str) -> Engine | None:
    if value == "off":
        return Engine(off=True)
    if _INTEGER.match(value) and _CLOCKED.match(name):
        return Engine(mhz=(int(value),))
    match = _LOAD_CLOCK.match(value)
    if not match or not value:
        return None
    clocks = [clock for clock in (match[2] or match[3] or "").split(",") if clock]
    if any(not _INTEGER.match(clock) for clock in clocks):
        return None
    load = int(match[1]) if match[1] else None
    return Engine(load, tuple(int(clock) for clock in clocks))


_READERS: tuple[Callable[[Line, list[str], int], int], ...] = (
    _read_timestamp,
    _read_memory,
    _read_cpu,
    _read_zone,
    _read_rail,
    _read_mts,
    _read_edp,
    _read_engine,
)


def _explain_nulls(line: Line) -> None:
    for name in ("timestamp", "ram", "swap", "cpu", "gpu", "emc"):
        if getattr(line, name) is None:
            line.nulls[name] = "not in the line, or in a form that is not known"
    for name, engine in (("gpu", line.gpu), ("emc", line.emc)):
        if engine and not engine.mhz:
            line.nulls[f"{name}.mhz"] = NO_CLOCK
    if line.gpu and line.gpu.load_percent is None:
        line.nulls["gpu.load_percent"] = "no load in the line: Thor prints clocks alone"
    if not line.rails:
        other = "in a form that is not known" if line.unknown else "no sensor, or it needs root"
        line.nulls["rails"] = f"no power rail in the line: {other}"
    if line.zones and not any(name.upper() == "GPU" for name in line.zones):
        line.nulls["zones.gpu"] = "not in the line: normal while the GPU is off (rail-gated)"
    for zone in line.zones.values():
        if zone.reason:
            line.nulls[f"zones.{zone.name}"] = zone.reason


def main() -> None:
    """Print one JSON object for each line of stdin."""
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    try:
        for text in sys.stdin.buffer:
            print(parse_line(text).to_json(), flush=True)
    except (BrokenPipeError, KeyboardInterrupt):  # `| head` has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (the interpreter flushes it at its end)
        sys.exit(1)


if __name__ == "__main__":
    main()
