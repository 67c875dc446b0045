"""The bundle that is measured: whole, with the target that is asked for, and what it says."""

from pathlib import Path
from typing import Any

from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.bundle.reader import BundleError, open_bundle

from remote_bench.host.errors import UsageError


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


def describe(manifest: Manifest, sha256: str, target: str | None) -> dict[str, Any]:
    """Return what a report says of a bundle and of the artifact that ran (None: none did)."""
    facts: dict[str, Any] = {
        "name": manifest.name,
        "sha256": sha256,
        "variant": manifest.model.variant,
        "parameters": manifest.model.parameters,
        "macs": manifest.model.macs,
        "width": manifest.input.width,
        "height": manifest.input.height,
        "target": target,
    }
    for artifact in manifest.artifacts:
        if artifact.target == target:
            facts |= _artifact_facts(artifact, manifest)
    return facts


def _artifact_facts(artifact: Artifact, manifest: Manifest) -> dict[str, Any]:
    hashes = [entry.sha256 for entry in artifact.files if entry.path == artifact.entry]
    pixels = manifest.input.width * manifest.input.height
    return {
        "precision": artifact.precision,
        "artifact_sha256": hashes[0] if hashes else None,
        # Weights, the input's three bytes a pixel and the output's one, each moved once.
        "bytes_moved": sum(entry.bytes for entry in artifact.files) + 4 * pixels,
    }
