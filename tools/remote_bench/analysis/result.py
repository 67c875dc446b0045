"""What the agent wrote on the board, read once: after this it is typed and bounded.

A record refuses by itself what makes no sense. Keys that nobody here looks at are left out: the
agent notes more than a report says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, NoReturn, TypeVar

from fastseg_runtime.arrays.strict_tables import TableError, from_table

Number = TypeVar("Number", int, float)
Span = tuple[float, float]  # begin and end, s, monotonic

MOST_BYTES = 256 << 20  # an hour of frames, some 50 bytes each, at 1000 FPS and more
MOST_CHARACTERS = 64 << 10  # of one text: the agent sends 16 KiB of a log, and nothing longer
# Counters in uJ stay below: a GPU of 1 kW counts for 30 years. Its square is no infinity yet.
MOST_NUMBER = 1e18


@dataclass(frozen=True)
class Failure:
    """Why a run ended early."""

    kind: str
    message: str


@dataclass(frozen=True)
class PowerMode:
    """A mode of nvpmodel; all None on a board without modes."""

    id: int | None = None
    name: str | None = None
    fan: str | None = None
    source: str | None = None
    gpu_mhz: float | None = None  # the GPU's highest clock in that mode
    emc_mhz: float | None = None  # the memory's


@dataclass(frozen=True)
class BoardProbe:
    """Which board it is."""

    model: str | None
    compatible: tuple[str, ...]
    module: str | None
    serial_sha256: str | None
    dmi: tuple[str, ...] = ()
    attached: tuple[str, ...] = ()  # to its buses


@dataclass(frozen=True)
class SystemProbe:
    """What runs on it, and as whom the agent does."""

    machine: str
    kernel: str
    distribution: str | None
    boot_id: str | None
    euid: int


@dataclass(frozen=True)
class CpuProbe:
    """The processor."""

    model: str | None
    count: int | None
    policies: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of cpufreq: their cores


@dataclass(frozen=True)
class MemoryProbe:
    """The whole board's memory."""

    total_kb: int | None
    available_kb: int | None


@dataclass(frozen=True)
class JetsonProbe:
    """NVIDIA's release, on a Jetson."""

    l4t: str | None = None
    jetpack: str | None = None
    jetpack_by: str | None = None  # the package, or the L4T that it goes with


@dataclass(frozen=True)
class PythonProbe:
    """The board's Python, and the version of each module that it has of those we use."""

    version: str
    modules: dict[str, str | None]


@dataclass(frozen=True)
class Probe:
    """The read-only fingerprint of a board, before anything is changed there."""

    board: BoardProbe
    system: SystemProbe
    cpu: CpuProbe
    memory: MemoryProbe
    jetson: JetsonProbe | None
    python: PythonProbe
    packages: dict[str, str]
    power_mode: PowerMode | None
    settings: dict[str, str | None]
    tools: dict[str, str | None]
    readable: tuple[dict[str, str | bool], ...]  # what, ok, detail, fix: for doctor
    power_modes: dict[str, int] = field(default_factory=dict)
    desktop: tuple[str, ...] | None = None  # programs of one that run; None: nobody looked


@dataclass(frozen=True)
class Phase:
    """A part of the run by the clock; without an end it was cut off."""

    name: str
    begin: float
    end: float | None


@dataclass(frozen=True)
class Frames:
    """The frames of one slice, a column a figure: when each began, s, and what it took."""

    t: tuple[float, ...]
    total_ms: tuple[float, ...]
    pre_ms: tuple[float | None, ...]
    infer_ms: tuple[float | None, ...]
    post_ms: tuple[float | None, ...]

    def __post_init__(self) -> None:
        """Refuse columns that do not belong together."""
        columns = (self.t, self.total_ms, self.pre_ms, self.infer_ms, self.post_ms)
        if not self.t or len(set(map(len, columns))) != 1:
            raise ValueError("its columns are empty or differ in length")

    def cut(self, begin: int, end: int) -> Frames:
        """Return some of the frames, by their numbers."""
        some = slice(begin, end)
        parts = (self.pre_ms[some], self.infer_ms[some], self.post_ms[some])
        return Frames(self.t[some], self.total_ms[some], *parts)


@dataclass(frozen=True)
class CpuTimes:
    """CPU seconds used so far at the begin and the end of a slice."""

    busy: tuple[float | None, float | None]  # of the whole board
    worker: tuple[float | None, float | None]
    supervisor: tuple[float | None, float | None]


@dataclass(frozen=True)
class Slice:
    """Frames that ran under one condition: flat out, paced, with or without the sampler."""

    name: str
    begin: float
    end: float
    frames: int
    late: int
    fps: float | None  # that was asked for
    cpu_s: CpuTimes

    def __post_init__(self) -> None:
        """Refuse a slice that no clock can have given."""
        if self.end <= self.begin or self.frames < 0 or self.late < 0:
            raise ValueError(f"{self.name!r:.60} has no duration, or fewer than no frames")

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.begin


@dataclass(frozen=True)
class MemoryReading:
    """What the worker holds, and, at the run's own moments, what the whole board had left."""

    pss_kb: int | None
    peak_rss_kb: int | None
    available_kb: int | None = None


@dataclass(frozen=True)
class PowerReadings:
    """The readings of one source: a row of values a time, one value a rail."""

    source: str
    unit: Literal["mw", "uj"]
    rails: tuple[str, ...]
    wraps_at: tuple[float | None, ...]
    t: tuple[float, ...]
    values: tuple[tuple[float | None, ...], ...]

    def __post_init__(self) -> None:
        """Refuse rows that are no rows."""
        lengths = {len(self.wraps_at), *map(len, self.values)}
        if len(self.values) != len(self.t) or lengths != {len(self.rails)}:
            raise ValueError(f"{self.source!r:.60} has ragged rows")


@dataclass(frozen=True)
class TegrastatsFeed:
    """What tegrastats printed and when, and what became of it."""

    lines: tuple[tuple[float, str], ...] = ()
    dropped: int = 0
    failure: str = ""


@dataclass(frozen=True)
class MeterReadings:
    """What the user's meter printed, in the board's time, and what became of it."""

    t: tuple[float, ...]
    watts: tuple[float, ...]
    failure: str = ""


@dataclass(frozen=True)
class EnvironmentSample:
    """One look at the board, once a second."""

    t: float
    celsius: dict[str, float | None]
    mhz: dict[str, float | None]
    alerts: tuple[str, ...]
    available_kb: int | None = None
    busy_cpu_s: float | None = None
    gpu_load: float | None = None  # a share
    ran_on: tuple[int, ...] | None = None  # cores that the worker's threads were seen on
    worker: MemoryReading | None = None


@dataclass(frozen=True)
class Samples:
    """Everything that was sampled beside the frames."""

    power: tuple[PowerReadings, ...] = ()
    tegrastats: TegrastatsFeed = TegrastatsFeed()
    environment: tuple[EnvironmentSample, ...] = ()
    changes: tuple[tuple[float, str, str | None, str], ...] = ()  # when, what, before, after


@dataclass(frozen=True)
class Load:
    """How long the network took to open: with the engine's build, in a new process, again."""

    built: bool
    first_ms: float
    cold_ms: float
    warm_ms: float


@dataclass(frozen=True)
class Accuracy:
    """The masks against PyTorch's (the worst image's share of equal pixels) and against labels."""

    images: int
    agreement: float | None
    miou: float | None
    labelled: int
    required: float | None = None  # of agreement, for this artifact


@dataclass(frozen=True)
class Inventory:
    """What a run must leave as it was."""

    power_mode: PowerMode | None
    settings: dict[str, str | None]
    processes: tuple[str, ...]


@dataclass(frozen=True)
class BusyBefore:
    """What others used of the usable cores before the run, and the names of the busiest."""

    cpu: float
    by: tuple[str, ...]


@dataclass(frozen=True)
class ClockReading:
    """Two clocks read at once."""

    wall_s: float
    monotonic_s: float


@dataclass(frozen=True)
class ClockReadings:
    """Both ends of the run."""

    begin: ClockReading
    end: ClockReading


@dataclass(frozen=True)
class Result:
    """result.json. A run that failed has what it reached."""

    schema: Literal[1]
    request: dict[str, Any]
    probe: Probe
    phases: tuple[Phase, ...]
    frames: dict[str, Frames]
    slices: tuple[Slice, ...]
    memory: dict[str, MemoryReading]
    error: Failure | None
    samples: Samples = Samples()
    load: Load | None = None
    info: dict[str, Any] | None = None  # what the runtime says of the network it opened
    accuracy: Accuracy | None = None
    selftest: Accuracy | None = None
    counters_before: dict[str, int | None] | None = None
    counters_after: dict[str, int | None] | None = None
    power_mode_before: PowerMode | None = None
    power_mode_after: PowerMode | None = None
    busy_before: BusyBefore | None = None
    inventory_before: Inventory | None = None
    inventory_after: Inventory | None = None
    boot_id_after: str | None = None
    clock: ClockReadings | None = None
    log: str = ""
    meter: MeterReadings | None = None  # added on this machine

    def __post_init__(self) -> None:
        """Refuse slices without frames."""
        hz = self.request.get("sampler_hz")
        if not isinstance(hz, int | float):
            raise ValueError(f"request: sampler_hz: expected a number, got {hz!r:.60}")
        if lacking := [part.name for part in self.slices if part.name not in self.frames]:
            raise ValueError(f"slices: {lacking!r:.60} have no frames")
        for name, columns in self.frames.items():
            counted = sum(part.frames for part in self.slices if part.name == name)
            if counted > len(columns.t):
                came = f"{len(columns.t)} came"
                raise ValueError(f"slices: {name!r:.60} counts {counted} frames, of which {came}")

    def blocks(self, name: str = "flat_out") -> list[tuple[Slice, Frames]]:
        """Return the slices of a name in their order, each with its own frames."""
        parts = [part for part in self.slices if part.name == name and part.frames]
        ends = accumulate(part.frames for part in parts)
        return [(part, self.frames[name].cut(end - part.frames, end))
                for part, end in zip(parts, ends, strict=True)]  # fmt: skip

    def sustained(self) -> list[Slice]:
        """Return the last fifth of a soak's windows, which tells what is kept up."""
        windows = [part for part, _ in self.blocks("soak")]
        return windows[-max(1, len(windows) // 5) :]

    def spans(self) -> dict[str, Span]:
        """Return when each kind of slice ran and the board was idle, first begin to last end."""
        spans: dict[str, Span] = {}
        for part in self.slices:
            begin, _ = spans.get(part.name, (part.begin, part.end))
            spans[part.name] = (begin, part.end)
        for phase in self.phases:
            if phase.name.startswith("idle_") and phase.end is not None:
                spans[phase.name] = (phase.begin, phase.end)
        return {name: span for name, span in spans.items() if span[1] > span[0]}


def read_result(text: str | bytes) -> Result:
    """Read result.json.

    Raises:
        TableError: too large, no JSON, or not of that form; it names the place.
    """
    return from_table(Result, parse_json(text, "result"), "result", ignore_unknown=True)


def failed_result(
    request: Mapping[str, Any], probe: Mapping[str, Any], kind: str, message: str
) -> Result:
    """Return the result of a run whose result.json is lost: rebooted, cut, killed."""
    return Result(
        schema=1,
        request={"sampler_hz": 0, **request},
        probe=from_table(Probe, probe, "probe", ignore_unknown=True),
        phases=(),
        frames={},
        slices=(),
        memory={},
        error=Failure(kind, message),
    )


def parse_json(text: str | bytes, place: str) -> Any:
    """Parse a document that came from elsewhere, with a limit on everything in it.

    Raises:
        TableError: too large, or no JSON: NaN and infinities are none.
    """
    if len(text) > MOST_BYTES:
        raise TableError(place, "", f"{len(text)} bytes, expected at most {MOST_BYTES}")
    try:
        return json.loads(
            text,
            parse_constant=_refuse,
            parse_float=lambda digits: _bounded(float(digits)),
            parse_int=lambda digits: _bounded(int(digits)),
            object_pairs_hook=_bounded_table,
        )
    except (ValueError, RecursionError) as error:
        raise TableError(place, "", f"no JSON: {error}") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _bounded(number: Number) -> Number:
    if not -MOST_NUMBER <= number <= MOST_NUMBER:
        raise ValueError(f"{number:.3g} is a number beyond {MOST_NUMBER:g}")
    return number


def _bounded_table(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    for key, value in pairs:
        _check_text(key)
        _check_text(value)
    return dict(pairs)


def _check_text(value: Any) -> None:
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        raise ValueError(f"a text of {len(value)} characters, expected at most {MOST_CHARACTERS}")
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, float):
                _check_text(item)
