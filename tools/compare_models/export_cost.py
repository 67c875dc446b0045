"""What an export costs: seconds and peak memory of each target's converter, in a child process."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from fastseg_exporters.convert.child import convert
from fastseg_exporters.convert.exporter import Conversion, ConversionError, Recipe, find_exporter
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_runtime.bundle.manifest import numbered_classes
from fastseg_targets.target import Target, load_target, target_names

from fastseg import CheckpointInfo, FastSegNet, save_checkpoint
from fastseg.progress import show_progress

TIMEOUT_S = 600.0
IMAGES = 8  # for int8 ranges


@dataclass(frozen=True)
class ExportCost:
    """One conversion."""

    network: str
    target: str
    precision: str
    seconds: float  # from the start of the child process to its end
    memory_mb: float  # peak of the child, MB of 2^20 bytes
    error: str = ""


def installed_targets() -> list[Target]:
    """Return the targets whose converters are here."""
    targets = (load_target(name) for name in target_names())
    return [target for target in targets if find_exporter(target.exporter).is_installed]


def measure_exports(
    variants: list[str], targets: list[Target], size: tuple[int, int], classes: int
) -> list[ExportCost]:
    """Convert untrained variants of FastSegNet for targets, one after another."""
    pairs = [(variant, target) for variant in variants for target in targets]
    costs = []
    for variant, target in show_progress(pairs, "exporting", len(pairs)):
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            path = Path(folder) / f"{variant}.safetensors"
            info = CheckpointInfo(variant, numbered_classes(classes), width=size[0], height=size[1])
            save_checkpoint(path, FastSegNet(classes, variant).eval(), info)
            recipe = Recipe(NetworkSource(str(path)), Calibration(count=IMAGES))
            conversion = Conversion(recipe, target, target.ladder[0])
            try:
                (made,) = convert([conversion], Path(folder), TIMEOUT_S)
                taken = (made.seconds, made.peak_memory_mb, "")
            except ConversionError as error:
                taken = (float("nan"), float("nan"), str(error))
            costs.append(ExportCost(variant, target.name, conversion.precision, *taken))
    return costs
