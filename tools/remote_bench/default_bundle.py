"""Which bundle is measured when none is named: the newest one here, else one of ours."""

from pathlib import Path

from fastseg_targets.device import Device

from remote_bench.errors import UsageError
from remote_bench.watch import Watch


def choose_bundle(named: Path | None, target: str | None, device: Device, watch: Watch) -> Path:
    """Return the bundle to measure and say which it is."""
    if named is not None:
        return named
    here = sorted(Path.cwd().glob("*.fastseg"), key=lambda path: path.stat().st_mtime)
    if here:
        watch.note(f"bundle: {here[-1].name}, the newest in this folder")
        return here[-1]
    raise UsageError("there is no *.fastseg in this folder; make one with fastseg-export")
