"""The bundle that is measured: named, the newest here, or one of ours; whole; and what it says."""

import dataclasses
import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.bundle.reader import BundleError, open_bundle
from fastseg_runtime.engines.engine import find_precision
from fastseg_runtime.engines.own_onnx import NOTHING_SAID, OwnFile
from fastseg_targets.device import Device
from fastseg_targets.target import Target, load_target, target_names

from remote_bench.analysis.report import BundleFacts
from remote_bench.host.errors import BenchError, UsageError
from remote_bench.host.host import Watch
from remote_bench.host.local import cache_folder
from remote_bench.run.benchmark import TOOL

if TYPE_CHECKING:
    from fastseg_exporters.convert.source import NetworkSource

# Boards are measured in threads, but random numbers and exporters of PyTorch are the process's.
ONE_EXPORT = threading.Lock()
ANYWHERE = "cpu-fp32"


def choose_bundle(
    named: Path | None,
    target: str | None,
    device: Device,
    watch: Watch,
    own_file: OwnFile = NOTHING_SAID,
) -> Path:
    """Return the bundle to measure and say which it is.

    Raises:
        UsageError: there is none and none can be made.
    """
    if named is not None and not is_onnx(named):
        return named
    if named is None and (here := _newest_here()) is not None:
        watch.note(f"bundle: {here.name}, the newest in this folder")
        return here
    watch.phase("export")
    wanted = load_target(target) if target else target_for(device)
    with ONE_EXPORT:
        if named is None:
            source, network, origin = _open_default()
        else:
            (source, network), origin = open_onnx(named, own_file), "yours"
        folder = cache_folder("bundles")
        watch.note(f"bundle: {network.name}, {origin}, exported as {wanted.name} to {folder}")
        return exported(source, network, (wanted,), folder, watch)


def usage_to_measure(named: Path | None) -> tuple[str, str]:
    """Return the name and the usage of the bundle or network that choose_bundle will take.

    Raises:
        UsageError: there is none.
    """
    if named is not None and is_onnx(named):
        return str(named), ""
    bundle = named or _newest_here()
    if bundle is not None:
        return str(bundle), read_manifest(bundle, None).model.usage
    network = _open_default()[1]
    return network.name, network.info.usage


def _newest_here() -> Path | None:
    bundles = Path.cwd().glob("*.fastseg")
    return max(bundles, key=lambda path: path.stat().st_mtime, default=None)


def target_for(device: Device) -> Target:
    """Return the float target that names a board and can be made here, else that for any CPU."""
    targets = [load_target(name) for name in target_names()]
    fitting = [target for target in targets if device.family in target.devices]
    in_float = [target for target in fitting if find_precision(target.ladder[0]).is_float]
    return next(filter(_has_its_toolchain, in_float), load_target(ANYWHERE))


def _has_its_toolchain(target: Target) -> bool:
    """Return whether what a vendor's toolchain would make can be made here."""
    try:
        from fastseg_exporters.convert.exporter import find_exporter
    except ImportError:  # what to do about it is said where the network is opened
        return True
    return not find_exporter(target.exporter).missing_toolchain


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


def is_onnx(named: Path) -> bool:
    """Return whether what is named in place of a bundle is an ONNX file."""
    return named.suffix == ".onnx"


def open_onnx(file: Path, said: OwnFile) -> tuple["NetworkSource", Any]:
    """Return the source of a user's ONNX file, and the network.

    Raises:
        UsageError: it cannot be measured as it is; the message says what to add.
    """
    try:
        from fastseg_exporters.convert.source import NetworkSource

        from fastseg.normalization import parse_normalization
    except ImportError as error:
        raise UsageError(
            f"{file}: the exporters are not installed ({error}): pip install 'fastseg-edge[onnx]'"
        ) from error
    try:
        source = NetworkSource(
            str(file),
            size=parse_size(said.size) if said.size else None,
            normalization=parse_normalization(said.normalization, said.color),
            output_name=said.output_name or "",
            threshold=NetworkSource.threshold if said.threshold is None else said.threshold,
            fit=said.fit,
        )
        network = source.open()
        network.check(str(file))
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    return source, network


def exported(
    source: "NetworkSource",
    network: Any,
    targets: tuple[Target, ...],
    folder: Path,
    watch: Watch,
) -> Path:
    """Return one network's bundle for targets, exported where its weights or words are new.

    What cannot be made here is left out and said, where another target can.

    Args:
        source: of the network.
        network: that it opens.
        targets: what for.
        folder: where bundles are kept.
        watch: is told.

    Raises:
        BenchError: the export failed; the message says why.
    """
    from fastseg_exporters.convert.exporter import Recipe
    from fastseg_exporters.export import Plan, export_bundle

    # Size, normalisation ..., what the targets ask for, and who makes them.
    said = repr((network.sha256, dataclasses.replace(source, spec=""), targets, TOOL))
    digest = hashlib.sha256(said.encode()).hexdigest()[:12]
    names = "+".join(target.name for target in targets)
    bundle = folder / f"{network.name}-{digest}-{names}.fastseg"
    if bundle.exists():
        return bundle
    # The export writes after each target. What is cut off, or lacks one, is not taken for whole
    # the next time, but gone on with.
    unfinished = folder / "unfinished" / bundle.name
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    plan = Plan(Recipe(source), targets, unfinished, resume=unfinished.exists(), force=True)
    try:
        outcome = export_bundle(plan, watch.note)
    except ValueError as error:  # the network's, the data's, or of both together
        raise BenchError(f"the export failed: {error}") from error
    if outcome.failed and not outcome.manifest.artifacts:
        raise BenchError(f"the export failed: {'; '.join(outcome.failed.values())}")
    for name, why in outcome.failed.items():
        watch.note(f"{name} is left out: {why}")
    if outcome.failed:
        return unfinished
    os.replace(unfinished, bundle)
    return bundle


def read_manifest(bundle: Path, target: str | None) -> Manifest:
    """Return the manifest of a bundle whose listed files are whole.

    Raises:
        UsageError: no bundle, a damaged one, or one without that target.
    """
    try:
        with open_bundle(bundle) as opened:
            opened.verify()
            if target is not None:
                opened.artifact(target)
            return opened.manifest
    except (OSError, BundleError) as error:
        raise UsageError(str(error)) from error


def candidates(manifest: Manifest, target: str | None) -> list[Artifact]:
    """Return the artifacts that may run: all, or that of the target."""
    return [artifact for artifact in manifest.artifacts if target in (None, artifact.target)]


def describe(manifest: Manifest, sha256: str, target: str | None) -> BundleFacts:
    """Return what a report says of a bundle and of the artifact that ran (None: none did)."""
    artifact = next((one for one in manifest.artifacts if one.target == target), None)
    files = artifact.files if artifact else ()
    hashes = [file.sha256 for file in files if artifact and file.path == artifact.entry]
    pixels = manifest.input.width * manifest.input.height
    return BundleFacts(
        name=manifest.name,
        sha256=sha256,
        variant=manifest.model.variant,
        parameters=manifest.model.parameters,
        macs=manifest.model.macs,
        width=manifest.input.width,
        height=manifest.input.height,
        target=target,
        precision=artifact.precision if artifact else None,
        artifact_sha256=hashes[0] if hashes else None,
        # Weights, the input's three bytes a pixel and the output's one, each moved once.
        bytes_moved=sum(file.bytes for file in files) + 4 * pixels if artifact else None,
    )
