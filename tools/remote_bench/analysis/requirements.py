"""`--require 'fps>=30,p99<=33ms,memory<=500MB,power<=10W'`: parsed, and held against a report."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_TERM = re.compile(r"\s*([a-z0-9_.]+)\s*(>=|<=|>|<)\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z%]*)\s*$")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda value, limit: value >= limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
}
# Units by kind; the first is the one that reports use.
_UNITS = {
    "rate": {"": 1.0, "fps": 1.0},
    "time": {"ms": 1.0, "": 1.0, "us": 1e-3, "s": 1e3},
    "memory": {"MB": 1.0, "": 1.0, "kB": 1 / 1024, "GB": 1024.0},
    "power": {"W": 1.0, "": 1.0, "mW": 1e-3},
    "energy": {"J": 1.0, "": 1.0, "mJ": 1e-3},
    "share": {"": 1.0, "%": 0.01},
}
# Metric -> kind of unit and the keys that lead to its value in a report.
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fps": ("rate", ("fps",)),
    "p50": ("time", ("latency_ms", "p50")),
    "p90": ("time", ("latency_ms", "p90")),
    "p95": ("time", ("latency_ms", "p95")),
    "p99": ("time", ("latency_ms", "p99")),
    "p99.9": ("time", ("latency_ms", "p99.9")),
    "max": ("time", ("latency_ms", "max")),
    "load": ("time", ("load", "cold_ms")),
    "memory": ("memory", ("memory",)),
    "power": ("power", ("power", "flat_out", "mean_w")),
    "energy": ("energy", ("power", "flat_out", "j_per_frame")),
    "paced_power": ("power", ("power", "paced", "mean_w")),
    "paced_energy": ("energy", ("power", "paced", "j_per_frame")),
    "miou": ("share", ("accuracy", "miou")),
    "agreement": ("share", ("accuracy", "agreement")),
}


@dataclass(frozen=True)
class Requirement:
    """One limit, in the unit of reports."""

    metric: str
    operator: str
    limit: float
    text: str


@dataclass(frozen=True)
class Miss:
    """A limit that a report does not keep; value is None where nothing was measured."""

    requirement: Requirement
    value: float | None
    message: str


@dataclass(frozen=True)
class Requirements:
    """All limits of one --require."""

    terms: tuple[Requirement, ...]

    def check(self, report: dict[str, Any]) -> list[Miss]:
        """Return the limits that a report misses; what was not measured is missed."""
        found = []
        for term in self.terms:
            value = value_of(report, term.metric)
            if value is None:
                message = f"{term.text}: not measured{_why(report, term.metric)}"
                found.append(Miss(term, None, message))
            elif not _OPERATORS[term.operator](value, term.limit):
                unit = next(iter(_UNITS[METRICS[term.metric][0]]))
                found.append(
                    Miss(term, value, f"{term.text}: measured {value:.4g} {unit}".rstrip())
                )
        return found


def parse(text: str) -> Requirements:
    """Parse limits separated by commas.

    Raises:
        ValueError: a term, a metric or a unit that is not known; the message lists those there are.
    """
    return Requirements(tuple(_parse_term(term) for term in text.split(",")))


def _parse_term(text: str) -> Requirement:
    match = _TERM.match(text)
    if not match:
        raise ValueError(f"cannot read {text.strip()!r}; expected like fps>=30 or p99<=33ms")
    metric, operator, number, unit = match.groups()
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    units = _UNITS[METRICS[metric][0]]
    if unit not in units:
        names = ", ".join(name for name in units if name)
        raise ValueError(
            f"{text.strip()!r}: unknown unit {unit!r}; {metric} takes {names or 'none'}"
        )
    return Requirement(metric, operator, float(number) * units[unit], text.strip())


def value_of(report: dict[str, Any], metric: str) -> float | None:
    """Return a metric's value in a report; None where it was not measured."""
    if metric == "memory":
        return _memory_mb(report["memory"])
    value: Any = report
    for key in METRICS[metric][1]:
        value = (value or {}).get(key)
    return None if value is None else float(value)


def _memory_mb(memory: dict[str, Any]) -> float | None:
    # On a board whose GPU shares the memory, what the GPU holds is in no process's peak: half of
    # the measurement would pass a limit that the whole may miss.
    values = [memory["peak_mb"]]
    if memory["unified"]:
        values.append(memory["system_delta_mb"])
    return None if None in values else max(map(float, values))


def _why(report: dict[str, Any], metric: str) -> str:
    if metric in ("power", "energy", "paced_power", "paced_energy") and report["power_reason"]:
        return f" ({report['power_reason']})"
    if metric == "memory" and report["memory"]["unified"]:
        return " (CPU and GPU share the memory, and how much less the whole board had is not known)"
    reasons = (report["latency_ms"] or {}).get("reasons") or {}
    return f" ({reasons[metric]})" if metric in reasons else ""
