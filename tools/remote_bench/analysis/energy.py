"""Energy over time: one curve a power rail, whatever its sensor counts.

A power reading becomes energy by the trapezoidal rule over monotonic time; an energy counter is
unwrapped. After that both are the same: joules that only a difference of two times makes sense of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from remote_bench.analysis.stats import Floats
from remote_bench.tegrastats import parse_line

_GAP_PERIODS, _GAP_LEAST_S = 5.0, 1.0
_EDGE_S = 0.5


@dataclass(frozen=True)
class EnergyCurve:
    """Energy of one rail since its first sample."""

    source: str
    rail: str
    t: Floats  # s, monotonic, increasing
    joules: Floats
    step_seen_mw: float | None = None  # the smallest difference between readings

    def energy_j(self, begin: float, end: float) -> float:
        """Return the energy between two times.

        Just before the first and after the last sample the power is taken to be that of the first
        and last half second.
        """
        return self._joules_at(end) - self._joules_at(begin)

    def _joules_at(self, time: float) -> float:
        first, last = float(self.t[0]), float(self.t[-1])
        if time < first:
            return float(self.joules[0]) - (first - time) * self._edge_w(first, first + _EDGE_S)
        if time > last:
            return float(self.joules[-1]) + (time - last) * self._edge_w(last - _EDGE_S, last)
        return float(np.interp(time, self.t, self.joules))

    def _edge_w(self, begin: float, end: float) -> float:
        begin, end = max(begin, float(self.t[0])), min(end, float(self.t[-1]))
        at = np.interp([begin, end], self.t, self.joules)
        return float(at[1] - at[0]) / (end - begin)

    def gaps(self, begin: float, end: float) -> list[tuple[float, float]]:
        """Return the parts of an interval without samples that are long for this sensor."""
        inside = self.t[(self.t > begin) & (self.t < end)]
        edges = np.concatenate([[begin], inside, [end]])
        period = float(np.median(np.diff(self.t))) if len(self.t) > 1 else float("inf")
        longest = max(_GAP_LEAST_S, _GAP_PERIODS * period)
        starts = np.flatnonzero(np.diff(edges) > longest)
        return [(float(edges[i]), float(edges[i + 1])) for i in starts]

    def coverage(self, begin: float, end: float) -> float:
        """Return the share of an interval that lies in no gap."""
        if end <= begin or len(self.t) < 2:
            return 0.0
        return 1 - sum(stop - start for start, stop in self.gaps(begin, end)) / (end - begin)


def curves(samples: dict[str, Any]) -> list[EnergyCurve]:
    """Return a curve for each rail of each source that an agent sampled.

    Args:
        samples: "samples" of result.json; a reading that is null is left out.
    """
    found = _tegrastats_curves(samples.get("tegrastats") or {})
    for series in samples.get("power") or []:
        for column, rail in enumerate(series["rails"]):
            rows = [
                (t, row[column])
                for t, row in zip(series["t"], series["values"], strict=True)
                if row[column] is not None
            ]
            wraps_at = series["wraps_at"][column]
            found.append(_curve(series["source"], rail, rows, series["unit"], wraps_at))
    return [curve for curve in found if len(curve.t) > 1 and curve.t[-1] > curve.t[0]]


def _tegrastats_curves(feed: dict[str, Any]) -> list[EnergyCurve]:
    rows: dict[str, list[tuple[float, float]]] = {}
    for t, text in feed.get("lines") or []:
        line = parse_line(text)
        # The current value alone: the average that is printed begins at tegrastats' own start.
        for name in line.rails:
            mw = line.rail_mw(name)
            if mw is not None:
                rows.setdefault(name, []).append((t, mw))
    return [_curve("tegrastats", name, found, "mw", None) for name, found in rows.items()]


def _curve(
    source: str, rail: str, rows: list[tuple[float, float]], unit: str, wraps_at: float | None
) -> EnergyCurve:
    t, values = (np.array([row[i] for row in rows], dtype=np.float64) for i in (0, 1))
    order = np.argsort(t, kind="stable")
    t, values = t[order], values[order]
    if unit == "uj":
        joules = _unwrapped(values, wraps_at) / 1e6
        return EnergyCurve(source, rail, t, joules)
    steps = np.diff(np.unique(values))
    joules = np.concatenate([[0.0], np.cumsum(np.diff(t) * (values[1:] + values[:-1]) / 2)]) / 1e3
    return EnergyCurve(
        source, rail, t, joules[: len(t)], float(steps.min()) if len(steps) else None
    )


def _unwrapped(counter: Floats, wraps_at: float | None) -> Floats:
    previous = np.append(counter[:1], counter[:-1])
    # A counter that falls has wrapped, or, where nobody says at which value, begun anew.
    lost = np.where(counter < previous, previous if wraps_at is None else wraps_at, 0.0)
    unwrapped: Floats = counter + np.cumsum(lost)
    return unwrapped
