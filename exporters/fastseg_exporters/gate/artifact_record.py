"""The manifest's record of an artifact, and the roofline bounds that go into it."""

from pathlib import Path

from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.bundle.writer import entry, files_of
from fastseg_runtime.engines.engine import find_precision
from fastseg_targets.device import load_device
from fastseg_targets.target import Target

from fastseg_exporters.convert.job import Converted


def members(target: Target, converted: Converted) -> dict[str, Path]:
    """Return name in the bundle -> file, for everything that was converted."""
    return files_of(converted.folder, f"artifacts/{target.name}")


def record(
    target: Target, precision: str, converted: Converted, files: dict[str, Path] | dict[str, bytes]
) -> Artifact:
    """Return the record of an artifact that nobody has verified yet."""
    made = converted.artifact
    return Artifact(
        target=target.name,
        format=made.format,
        precision=precision,
        entry=f"artifacts/{target.name}/{made.entry}",
        files=tuple(entry(name, content) for name, content in files.items()),
        io=made.io,
        requires=made.requires,
        toolchain=made.toolchain,
        extra=made.extra,
    )


def bounds_ms(manifest: Manifest, target: Target, precision: str) -> dict[str, float]:
    """Return device -> roofline bound: no network of this size is faster there. No prediction."""
    pixels = manifest.input.width * manifest.input.height
    weights = manifest.model.parameters * find_precision(precision).bytes_per_weight
    ids = pixels / manifest.output.mask_stride**2
    moved = int(weights + 3 * pixels + ids)  # weights, bytes in, ids out: each once
    bounds = {
        name: load_device(name).bound_ms(manifest.model.macs, moved, precision)
        for name in target.devices
    }
    return {name: round(bound, 3) for name, bound in bounds.items() if bound is not None}
