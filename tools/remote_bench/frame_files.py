"""Frames of the user's own for a board that can read nothing but numpy arrays."""

from pathlib import Path

from fastseg_runtime.manifest import Manifest


def frames_zip(source: Path, archive: Path, manifest: Manifest) -> None:
    """Write."""
