"""`--sweep`: which of our networks a board is fast enough for, before anybody trains one.

Untrained networks cost what trained ones cost. Each variant and size is exported and measured; the
answer is the largest one that keeps --require.
"""

from pathlib import Path

from fastseg_runtime.arrays.image import parse_size
from fastseg_targets.device import Device
from fastseg_targets.target import load_target

from remote_bench.host.errors import UsageError
from remote_bench.host.host import Watch
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
