"""`--sweep`: which of our networks a board is fast enough for, before anybody trains one.

Untrained networks cost what trained ones cost. Each variant and size is exported and measured; the
answer is the largest one that keeps --require.
"""

from pathlib import Path
from typing import Any

from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.terminal import TextTable
from fastseg_targets.device import Device
from fastseg_targets.target import load_target

from remote_bench.analysis.report import Report
from remote_bench.analysis.requirements import Requirements
from remote_bench.host.errors import UsageError
from remote_bench.host.host import Watch
from remote_bench.host.live import plain
from remote_bench.host.local import cache_folder
from remote_bench.run.benchmark import Untrained
from remote_bench.run.bundles import ONE_EXPORT, exported, target_for

_CLASSES = 19  # as many as Cityscapes has


def parse_sweep(variants: str, sizes: str) -> list[Untrained]:
    """Return all combinations, for "nano,base" and "512x256,1024x512".

    Raises:
        UsageError: an unknown variant, or a size that is no WxH.
    """
    from fastseg.variants import VARIANTS

    if unknown := [name for name in variants.split(",") if name not in VARIANTS]:
        raise UsageError(f"--sweep: no variant {unknown}; choose from {', '.join(VARIANTS)}")
    try:
        pairs = [parse_size(text) for text in sizes.split(",")]
    except ValueError as error:
        raise UsageError(f"--sizes: {error}") from error
    return [Untrained(name, *pair) for name in variants.split(",") for pair in pairs]


def untrained_bundle(size: Untrained, target: str | None, device: Device, watch: Watch) -> Path:
    """Return a bundle of an untrained network, from the cache or else exported now."""
    import torch
    from fastseg_exporters.convert.source import NetworkSource
    from fastseg_runtime.bundle.manifest import ClassInfo

    from fastseg import FastSegNet
    from fastseg.checkpoint import CheckpointInfo, save_checkpoint

    wanted = load_target(target) if target else target_for(device)
    checkpoint = cache_folder("sweep") / f"{size.name}.safetensors"
    classes = tuple(ClassInfo(f"class {i}", (i, i, i)) for i in range(_CLASSES))
    info = CheckpointInfo(size.variant, classes, size.width, size.height)
    watch.phase("export")
    with ONE_EXPORT:
        torch.manual_seed(0)
        save_checkpoint(checkpoint, FastSegNet(_CLASSES, size.variant), info)
        source = NetworkSource(str(checkpoint))
        return exported(source, source.open(), (wanted,), checkpoint.parent, watch)


def summarise_sweep(reports: list[Report], requirements: Requirements | None) -> dict[str, Any]:
    """Return {"networks", "largest"}: a row a network, and the name of the largest that does.

    Largest is by multiply-adds; without requirements any valid run does.
    """
    rows = [_row(report, requirements) for report in reports]
    good = [row for row in rows if row["verdict"] != "invalid" and not row["missed"]]
    largest = max(good, key=lambda row: int(row["macs"]), default=None)
    return {"networks": rows, "largest": largest["network"] if largest else None}


def _row(report: Report, requirements: Requirements | None) -> dict[str, Any]:
    bundle, latency, power = report.bundle, report.latency_ms, report.power
    return {
        "network": f"{bundle.variant}-{bundle.width}x{bundle.height}",
        "macs": bundle.macs,
        "parameters": bundle.parameters,
        "verdict": report.verdict,
        "error": report.error.message if report.error else None,
        "fps": report.fps,
        "p50_ms": latency.p50 if latency else None,
        "p99_ms": latency.p99 if latency else None,
        "memory_mb": report.memory.peak_mb,
        "power_w": power.flat_out.mean_w if power else None,
        "missed": list(requirements.check(report).missed) if requirements else [],
    }


def sweep_table(host: str, sweep: dict[str, Any]) -> TextTable:
    """Return the rows of a sweep for the terminal."""
    names = (
        "network",
        "GMACs",
        "FPS",
        "p50 ms",
        "p99 ms",
        "MB",
        "W",
        "verdict",
        "why",
    )
    figures = ("fps", "p50_ms", "p99_ms", "memory_mb", "power_w")
    rows = [
        (
            row["network"],
            f"{row['macs'] / 1e9:.2f}",
            *("-" if row[key] is None else f"{row[key]:.1f}" for key in figures),
            row["verdict"].replace("_", " "),
            plain(row["error"] or "; ".join(row["missed"])),
        )
        for row in sweep["networks"]
    ]
    return TextTable(names, rows, plain(host), right=range(1, 7))
