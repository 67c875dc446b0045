"""Which rails add up to the power of a board, and what their sum covers.

The device's table says which rails to sum; a rail that is part of another one is never added, and
without a table entry there is no total. The printed average of tegrastats is never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fastseg_targets.device import Power

from remote_bench.analysis.energy import EnergyCurve

Span = tuple[float, float]  # begin and end, s, monotonic

_BOARD_SOURCES = ("tegrastats", "ina_hwmon", "ina_iio")  # they show the same sensors


@dataclass(frozen=True)
class Total:
    """The curves that add up to a total, and what it covers."""

    curves: tuple[EnergyCurve, ...]
    scope: str
    note: str

    def energy_j(self, begin: float, end: float) -> float:
        """Return the energy of all rails together."""
        return sum(curve.energy_j(begin, end) for curve in self.curves)

    def coverage(self, span: Span) -> float:
        """Return the least coverage of any rail."""
        return min(curve.coverage(*span) for curve in self.curves)


def choose_curves(curves: Sequence[EnergyCurve], span: Span) -> dict[str, EnergyCurve]:
    """Return one curve a rail: of two sources that show the same sensor, the fuller one.

    Args:
        curves: of all sources.
        span: the run; it decides which source is fuller.
    """
    chosen: dict[str, EnergyCurve] = {}
    board = [source for source in _BOARD_SOURCES if any(c.source == source for c in curves)]
    best = max(board, key=lambda source: _coverage(curves, source, span), default=None)
    for curve in curves:
        if curve.source not in _BOARD_SOURCES or curve.source == best:
            chosen.setdefault(curve.rail, curve)
    return chosen


def _coverage(curves: Sequence[EnergyCurve], source: str, span: Span) -> float:
    return max(curve.coverage(*span) for curve in curves if curve.source == source)


def choose_total(rails: dict[str, EnergyCurve], table: Power) -> Total | str:
    """Return the first sum of the table whose rails are all there, or the reason why none is."""
    for total in table.totals:
        matches = [
            [n for n in rails if fnmatchcase(n, pattern) and not _is_part(n, table)]
            for pattern in total.rails
        ]
        if all(matches):
            names = sorted({name for found in matches for name in found})
            return Total(tuple(rails[name] for name in names), total.scope, total.note)
    if not rails:
        return table.missing or "no power sensor could be read; run `remote_bench doctor`"
    wanted = " or ".join("+".join(total.rails) for total in table.totals)
    if not wanted:
        return f"{table.missing or 'the device has no rail table'}; seen: {', '.join(rails)}"
    return f"the rails to sum ({wanted}) are not all there; seen: {', '.join(sorted(rails))}"


def _is_part(rail: str, table: Power) -> bool:
    return any(fnmatchcase(rail, pattern) for pattern in table.do_not_add)
