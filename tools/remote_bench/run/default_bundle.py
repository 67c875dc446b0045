"""Which bundle is measured when none is named: the newest one here, else one of ours."""

import importlib
import threading
from pathlib import Path
from typing import Any

from fastseg_runtime.engines.engine import find_precision
from fastseg_targets.device import Device
from fastseg_targets.profile import Target, load_target, target_names

from remote_bench.host.cache import cache_folder
from remote_bench.host.errors import BenchError, UsageError
from remote_bench.host.watch import Watch
from remote_bench.run.bundle_facts import read_manifest

# Boards are measured in threads, but random numbers and exporters of PyTorch are the process's.
ONE_EXPORT = threading.Lock()
_ANYWHERE = "cpu-fp32"


def choose_bundle(named: Path | None, target: str | None, device: Device, watch: Watch) -> Path:
    """Return the bundle to measure and say which it is.

    Raises:
        UsageError: there is none and none can be made.
    """
    if named is not None:
        return named
    if (here := _newest_here()) is not None:
        watch.note(f"bundle: {here.name}, the newest in this folder")
        return here
    watch.phase("export")
    with ONE_EXPORT:
        return _export(load_target(target) if target else target_for(device), watch)


def usage_to_measure(named: Path | None) -> tuple[str, str]:
    """Return the name and the usage of the bundle or network that choose_bundle will take.

    Raises:
        UsageError: there is none.
    """
    bundle = named or _newest_here()
    if bundle is not None:
        return str(bundle), read_manifest(bundle, None).model.usage
    network = _open_default()[1]
    return network.name, network.info.usage


def _newest_here() -> Path | None:
    bundles = Path.cwd().glob("*.fastseg")
    return max(bundles, key=lambda path: path.stat().st_mtime, default=None)


def target_for(device: Device) -> Target:
    """Return the float target that names a board, else the one for any CPU."""
    targets = [load_target(name) for name in target_names()]
    fitting = [target for target in targets if device.name in target.devices]
    in_float = [target for target in fitting if find_precision(target.ladder[0]).is_float]
    return in_float[0] if in_float else load_target(_ANYWHERE)


def _open_default() -> tuple[Any, Any, str]:
    """Return the source of the network that is taken, the network, and where it comes from."""
    try:
        from fastseg_exporters.convert.source import NetworkSource, default_checkpoint

        from fastseg import CheckpointError
    except ImportError as error:
        raise UsageError(
            f"no *.fastseg in this folder, and the exporters are not installed ({error}): "
            "name a bundle, or pip install 'fastseg-edge[train,onnx]'"
        ) from error
    try:
        spec, origin = default_checkpoint(Path.cwd())
        source = NetworkSource(spec)
        return source, source.open(), origin
    except CheckpointError as error:
        raise UsageError(f"no *.fastseg in this folder, and no network for one: {error}") from error


def _export(target: Target, watch: Watch) -> Path:
    source, network, origin = _open_default()
    name = f"{network.name}-{network.sha256[:12]}-{target.name}.fastseg"
    bundle = cache_folder("bundles") / name
    watch.note(f"bundle: {network.name}, {origin}, exported as {target.name} to {bundle}")
    if not bundle.exists():
        export(source, target, bundle, watch)
    return bundle


def export(source: object, target: Target, bundle: Path, watch: Watch) -> None:
    """Export one network for one target.

    Args:
        source: a fastseg_exporters.convert.source.NetworkSource.
        target: of the bundle's one artifact.
        bundle: the file to write.
        watch: hears of it.

    Raises:
        BenchError: the export failed; the message says why.
    """
    exporting = importlib.import_module("fastseg_exporters.export")
    plan = exporting.Plan(source=source, targets=(target,), out=bundle, force=True)
    try:
        outcome = exporting.export_bundle(plan, watch.note)
    except ValueError as error:  # the network's, the data's, or of both together
        raise BenchError(f"the export failed: {error}") from error
    if outcome.failed:
        raise BenchError(f"the export failed: {outcome.failed[target.name]}")
