"""The report of one run: what summarise() gives, what --json prints and what `compare` reads.

The records here and beside what they describe (Latency, Power, Conditions ...) are its form. The
published report.schema.json is made of them:

    python -m remote_bench.analysis.report > tools/remote_bench/report.schema.json
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fastseg_runtime.arrays.strict_tables import TableError, from_table

from remote_bench.analysis.conditions import Conditions, Memory
from remote_bench.analysis.frame_times import Latency, SamplerCost
from remote_bench.analysis.power import Power, PowerSeries
from remote_bench.analysis.result import (
    Accuracy,
    Failure,
    Frames,
    Load,
    PowerMode,
    Span,
    parse_json,
)
from remote_bench.analysis.stats import Interval

SCHEMA: Final = 1
Table = dict[str, Any]  # what others fill: copied as it is
Verdict = Literal["valid", "valid_with_notes", "invalid"]
Severity = Literal["invalid", "note", "info"]


@dataclass(frozen=True)
class Reason:
    """Why a report is not plainly valid."""

    code: str
    severity: Severity
    message: str


@dataclass(frozen=True)
class BundleFacts:
    """The bundle and its artifact that ran; what is not known is None."""

    name: str | None = None
    sha256: str | None = None
    variant: str | None = None
    parameters: int | None = None
    macs: int | None = None
    width: int | None = None
    height: int | None = None
    target: str | None = None
    precision: str | None = None
    artifact_sha256: str | None = None
    bytes_moved: int | None = None  # weights, input and output, each once
    path: str | None = None


@dataclass(frozen=True)
class Block:
    """One block of the flat-out run: opened anew, with a warm-up of its own."""

    begin: float  # s since the first one began
    seconds: float
    frames: int
    fps: float
    latency_ms: dict[str, float | None]  # percentiles that its frames support
    mean_w: float | None
    foreign_cpu: float | None  # share of the usable cores that others used


@dataclass(frozen=True)
class PacedRun:
    """The run at a wanted rate, as a camera gives it."""

    wanted_fps: float
    fps: float
    frames: int
    late: int
    latency_ms: Latency


@dataclass(frozen=True)
class Steadiness:
    """Whether the run had settled."""

    latency_drift: float  # of the median over the run, a share
    hottest: str | None  # zone
    celsius_per_min: float | None  # of that zone, in the second half
    latency_drift_ci95: Interval | None = None
    celsius_per_min_ci95: Interval | None = None


@dataclass(frozen=True)
class SoakPoint:
    """A window of a soak."""

    t: float  # s from the soak's begin to the middle of the window
    fps: float
    watts: float | None
    celsius: float | None  # of the hottest zone


@dataclass(frozen=True)
class Soak:
    """What the board does cold (the first block) and keeps up (the last fifth of the soak)."""

    minutes: float
    steady: bool
    cold: SoakPoint
    sustained: SoakPoint
    curve: tuple[SoakPoint, ...]


@dataclass(frozen=True)
class Fingerprint:
    """The board."""

    name: str  # of its file in fastseg_targets
    description: str
    model: str | None
    module: str | None
    serial_sha256: str | None
    machine: str
    kernel: str
    distribution: str | None
    boot_id: str | None
    euid: int
    l4t: str | None
    jetpack: str | None
    python: str
    modules: dict[str, str | None]
    packages: dict[str, str]
    cpu: str | None
    cpu_count: int | None
    memory_mb: float | None
    power_mode: PowerMode
    settings: dict[str, str | None]
    sku: str = ""  # the product of its family
    chips_mb: int | None = None  # of memory; Linux shows a little less
    desktop: tuple[str, ...] | None = None  # programs of one that run; None: nobody looked
    jetpack_by: str | None = None
    notes: tuple[str, ...] = ()
    not_measured: tuple[str, ...] = ()  # what nobody can tell there, and why


@dataclass(frozen=True)
class SamplerFacts:
    """How the run was sampled, and what that cost."""

    hz: float
    overhead: SamplerCost | None
    cpu: float | None  # share of all cores
    tegrastats_failure: str
    dropped_lines: int


@dataclass(frozen=True)
class Changes:
    """What is not as it was when the run began."""

    rebooted: bool
    power_mode: tuple[str | None, str | None] | None  # before and after, where they differ
    not_restored: tuple[str, ...]
    clock_step_s: float | None  # of the wall clock


@dataclass(frozen=True)
class Series:
    """What plots need, in s since the flat-out run began; "t" is a column like the others."""

    frames: dict[str, Frames]
    power: PowerSeries | None
    celsius: dict[str, tuple[float | None, ...]]
    mhz: dict[str, tuple[float | None, ...]]
    spans: dict[str, Span]


@dataclass(frozen=True)
class RequirementsCheck:
    """The limits of --require, and those that the run misses, in words."""

    wanted: tuple[str, ...]
    missed: tuple[str, ...]
    margins: dict[str, float] = field(default_factory=dict)  # kept by so much of each limit
    trusted: bool = True  # the verdict is as good as --require asks
    measured: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployment:
    """What --deploy left on the board: the hash of each file, or why there is none."""

    folder: str
    files: dict[str, str]
    error: str | None


@dataclass(frozen=True)
class Report:
    """Times in s and ms, power in W, energy in J, memory in MB of 2^20 bytes, shares as fractions.

    A None has its reason beside it or in `reasons`. What was not asked for is not in the JSON.
    """

    schema: Literal[1]
    verdict: Verdict
    reasons: tuple[Reason, ...]
    run_id: str | None
    host: str | None
    tool: str | None
    created: str  # ISO 8601
    bundle: BundleFacts
    error: Failure | None
    flags: Table  # what the agent was asked for
    log: str
    fps: float | None
    fps_ci95: Interval | None
    latency_ms: Latency | None
    paced: PacedRun | None
    steady: Steadiness | None
    accuracy: Accuracy | None
    load: Load | None
    engine: Table | None  # what the runtime says of the network it opened
    memory: Memory
    power: Power | None
    power_reason: str
    device: Fingerprint
    conditions: Conditions
    sampler: SamplerFacts
    changed: Changes
    series: Series
    bound_ms: float | None
    fps_ci95_basis: str = ""  # what it is an interval of
    blocks: tuple[Block, ...] = ()  # of the flat-out run
    not_watched: dict[str, str] = field(default_factory=dict)  # what, and why or what would help
    soak: Soak | None = None
    wall_power: Power | None = None  # by a meter of the user's: all that it supplies
    wall_power_reason: str | None = None  # why there is none, or what was wrong with it
    bound_basis: str | None = None  # the clocks that the bound is of
    address: str | None = None
    weakened: tuple[str, ...] | None = None  # what took from the trust that it was this board
    board: Table | None = None  # what the keeper found there before and after
    requirements: RequirementsCheck | None = None
    deployed: Deployment | None = None

    def to_table(self) -> Table:
        """Return what --json prints."""
        table: Table = to_table(self)
        optional = [f.name for f in dataclasses.fields(self) if f.default is None]
        return {k: v for k, v in table.items() if v is not None or k not in optional}


def read_report(text: str | bytes) -> Report:
    """Read a report that --json printed, of this version or another.

    Raises:
        TableError: too large, no JSON, or no report; it names the place.
    """
    table = parse_json(text, "report")
    if isinstance(table, dict) and isinstance(several := table.get("reports"), list):
        hosts = [report.get("host") for report in several if isinstance(report, dict)]
        came = f"the reports of {len(several)} boards ({hosts!r:.200})"
        raise TableError("report", "", f"{came}, expected one report; save each to a file")
    return from_table(Report, table, "report", ignore_unknown=True)


def to_table(value: Any) -> Any:
    """Return records as tables for JSON, all the way down."""
    if dataclasses.is_dataclass(value):
        return {_key(f): to_table(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_table(item) for key, item in value.items()}
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        return [to_table(item) for item in value]
    return value


def _key(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("key", field.name))


_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def json_schema() -> Table:
    """Return the JSON Schema of a report, as its types are."""
    records: dict[str, Table] = {}
    schema = _schema_of(Report, records)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A report of remote_bench",
        "description": " ".join((Report.__doc__ or "").split()),
        **schema,
        "$defs": records,
    }


def _schema_of(hint: Any, records: dict[str, Table]) -> Table:
    """Return the schema of a type; those of the records in it are put into `records`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if origin is types.UnionType:
        kinds = [_schema_of(argument, records) for argument in arguments]
        simple = all(list(kind) == ["type"] for kind in kinds)
        return {"type": [kind["type"] for kind in kinds]} if simple else {"anyOf": kinds}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(arguments[1], records)}
    if origin is tuple and arguments[-1] is ...:
        return {"type": "array", "items": _schema_of(arguments[0], records)}
    if origin is tuple:
        items = [_schema_of(argument, records) for argument in arguments]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        name = hint.__name__
        records[name] = records.get(name) or _record_schema(hint, records)
        return {"$ref": f"#/$defs/{name}"}
    return {"type": "null" if hint is type(None) else _JSON_TYPES[hint]}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _record_schema(record: Any, records: dict[str, Table]) -> Table:
    hints, fields = typing.get_type_hints(record), dataclasses.fields(record)
    return {
        "type": "object",
        "required": [_key(field) for field in fields if _is_required(field)],
        "properties": {_key(field): _schema_of(hints[field.name], records) for field in fields},
    }


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
