"""Memory of a run: what the process held, and what the whole board had less of."""

from __future__ import annotations

from typing import Any

_SCOPE = "worker process; PSS from smaps_rollup, peak from VmHWM (resident, shared pages whole)"


def summarise_memory(raw: dict[str, Any], unified: bool) -> dict[str, Any]:
    """Return the report's "memory", in MB (2^20 bytes); None where the kernel does not tell.

    Args:
        raw: result.json.
        unified: CPU and GPU share the memory, so that what the GPU holds shows in what the whole
            board has less of, and not in the process.
    """
    moments: dict[str, Any] = raw.get("memory") or {}
    workers = [s["worker"] for s in raw["samples"]["environment"] if s.get("worker")]
    readings = [*moments.values(), *workers]
    baseline, pss = _kb(moments, "imported", "pss_kb"), _most(readings, "pss_kb")
    return {
        "scope": _SCOPE,
        "baseline_mb": _mb(baseline),
        "pss_mb": _mb(pss),
        "peak_mb": _mb(_most(readings, "peak_rss_kb")),
        "delta_mb": _mb(None if pss is None or baseline is None else pss - baseline),
        "system_delta_mb": _mb(_system_delta_kb(raw, moments)),
        "unified": unified,
    }


def _system_delta_kb(raw: dict[str, Any], moments: dict[str, Any]) -> int | None:
    before = _kb(moments, "imported", "available_kb")
    samples = [s.get("available_kb") for s in raw["samples"]["environment"]]
    least = min((kb for kb in samples if kb is not None), default=None)
    return None if before is None or least is None else before - least


def _most(readings: list[dict[str, Any]], name: str) -> int | None:
    return max((r[name] for r in readings if r.get(name) is not None), default=None)


def _kb(moments: dict[str, Any], moment: str, name: str) -> int | None:
    value = (moments.get(moment) or {}).get(name)
    return int(value) if value is not None else None


def _mb(kb: int | None) -> float | None:
    return None if kb is None else round(kb / 1024, 2)
