"""`--require 'fps>=30,p99<=33ms,memory<=500MB,power<=10W'`: parsed, and held against a report."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fastseg_runtime.arrays.stats import PERCENTILES

from remote_bench.analysis.conditions import Memory
from remote_bench.analysis.power import LoadPower
from remote_bench.analysis.report import Report, RequirementsCheck

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
# Metric -> kind of unit; value_of() knows where its value stands in a report.
METRICS = {
    "fps": "rate",
    "sustained_fps": "rate",
    "sustained_power": "power",
    **dict.fromkeys((*PERCENTILES, "max", "load"), "time"),
    "memory": "memory",
    "power": "power",
    "energy": "energy",
    "wall_power": "power",
    "wall_energy": "energy",
    "paced_power": "power",
    "paced_energy": "energy",
    "miou": "share",
    "agreement": "share",
}
_POWER = ("sustained_power", "power", "energy", "paced_power", "paced_energy")


@dataclass(frozen=True)
class Requirement:
    """One limit, in the unit of reports."""

    metric: str
    operator: str
    limit: float
    text: str


@dataclass(frozen=True)
class Requirements:
    """All limits of one --require; `valid` asks for a verdict without notes."""

    terms: tuple[Requirement, ...]
    valid: bool = False

    @property
    def percentiles(self) -> tuple[str, ...]:
        """Return the percentiles that are limited."""
        return tuple(term.metric for term in self.terms if term.metric in PERCENTILES)

    def check(self, report: Report) -> RequirementsCheck:
        """Return the limits that a report misses, in words; what was not measured is missed."""
        missed, margins, measured = [], {}, {}
        trusted = report.verdict == "valid" or not self.valid
        for term in self.terms:
            value = value_of(report, term.metric)
            if value is not None and term.limit:
                share = value / term.limit - 1
                margins[term.text] = share if term.operator.startswith(">") else -share
            if value is not None:
                unit = next(iter(_UNITS[METRICS[term.metric]]))
                measured[term.text] = f"{value:.4g} {unit}".rstrip()
            if value is None:
                missed.append(f"{term.text}: not measured{_why(report, term.metric)}")
            elif not _OPERATORS[term.operator](value, term.limit):
                missed.append(f"{term.text}: measured {measured[term.text]}")
        if not trusted:
            missed.append(f"valid: the verdict is {report.verdict.replace('_', ' ')}")
        wanted = (*(term.text for term in self.terms), *(["valid"] if self.valid else []))
        close = [t.text for t in self.terms if t.metric == "fps" and _is_within(t.limit, report)]
        measured |= {
            text: f"{measured[text]}, but the limit lies in its interval" for text in close
        }
        return RequirementsCheck(wanted, tuple(missed), margins, trusted, measured)


def parse(text: str) -> Requirements:
    """Parse limits separated by commas.

    Raises:
        ValueError: a term, a metric or a unit that is not known; the message lists those there are.
    """
    terms = [term.strip() for term in text.split(",")]
    limits = tuple(_parse_term(term) for term in terms if term != "valid")
    return Requirements(limits, valid="valid" in terms)


def _parse_term(text: str) -> Requirement:
    match = _TERM.match(text)
    if not match:
        raise ValueError(f"cannot read {text.strip()!r}; expected like fps>=30, p99<=33ms or valid")
    metric, operator, number, unit = match.groups()
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    units = _UNITS[METRICS[metric]]
    if unit not in units:
        names = ", ".join(name for name in units if name)
        raise ValueError(
            f"{text.strip()!r}: unknown unit {unit!r}; {metric} takes {names or 'none'}"
        )
    return Requirement(metric, operator, float(number) * units[unit], text.strip())


def value_of(report: Report, metric: str) -> float | None:
    """Return a metric's value in a report; None where it was not measured."""
    latency, accuracy, power = report.latency_ms, report.accuracy, report.power
    load: LoadPower | None = None
    if metric.startswith("wall_"):
        power = report.wall_power
    if power is not None:
        load = power.paced if metric.startswith("paced_") else power.flat_out
    values = {
        "fps": report.fps,
        "sustained_fps": report.soak.sustained.fps if report.soak else None,
        "sustained_power": report.soak.sustained.watts if report.soak else None,
        **(latency.percentiles() if latency else {}),
        "max": latency.max if latency else None,
        "load": report.load.cold_ms if report.load else None,
        "memory": _memory_mb(report.memory),
        "power": load.mean_w if load else None,
        "energy": load.j_per_frame if load else None,
        "miou": accuracy.miou if accuracy else None,
        "agreement": accuracy.agreement if accuracy else None,
    }
    return values.get(metric.removeprefix("paced_").removeprefix("wall_"))


def _is_within(limit: float, report: Report) -> bool:
    return report.fps_ci95 is not None and report.fps_ci95[0] < limit < report.fps_ci95[1]


def _memory_mb(memory: Memory) -> float | None:
    # On a board whose GPU shares the memory, what the GPU holds is in no process's peak: half of
    # the measurement would pass a limit that the whole may miss.
    if memory.peak_mb is None or not memory.unified:
        return memory.peak_mb
    return None if memory.system_delta_mb is None else max(memory.peak_mb, memory.system_delta_mb)


def _why(report: Report, metric: str) -> str:
    if metric.startswith("wall_"):
        return f" ({report.wall_power_reason or 'give the board a meter: power.command'})"
    if metric in _POWER and report.power_reason:
        return f" ({report.power_reason})"
    if metric.startswith("sustained_") and report.soak is None:
        return " (give --soak)"
    if metric == "memory" and report.memory.unified:
        return " (CPU and GPU share the memory, and how much less the whole board had is not known)"
    reasons = report.latency_ms.reasons if report.latency_ms else {}
    return f" ({reasons[metric]})" if metric in reasons else ""
