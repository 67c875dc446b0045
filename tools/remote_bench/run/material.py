"""What evidence is gathered with where the user names nothing: a network of ours, drawn scenes."""

import itertools
import os
import tempfile
from pathlib import Path

from fastseg_runtime.arrays.image import encode_rgb
from fastseg_runtime.bundle.manifest import Manifest
from fastseg_runtime.engines.engine import find_engine
from fastseg_targets.device import Device
from fastseg_targets.target import Target, load_target, target_names

from remote_bench.host.errors import UsageError
from remote_bench.host.host import Watch
from remote_bench.host.local import cache_folder
from remote_bench.run.benchmark import Benchmark
from remote_bench.run.bundles import ANYWHERE, ONE_EXPORT, exported

NETWORK = "nano-synthetic"  # free for any use, and labelled scenes can be drawn for it
_DRAWN = 20  # as many as the exporters verify on


def evidence_bundle(device: Device, builds_engines: bool, watch: Watch) -> Path:
    """Return a bundle of a network of ours for all targets of a board, from the cache or new.

    Raises:
        UsageError: the exporters are not installed here.
        BenchError: the export failed.
    """
    try:
        from fastseg_exporters.convert.source import NetworkSource
    except ImportError as error:
        raise UsageError(
            f"the exporters are not installed ({error}): name a bundle, or "
            "pip install 'fastseg-edge[train,onnx]'"
        ) from error
    targets = targets_of(device, builds_engines)
    watch.phase("export")
    watch.note(f"bundle: {NETWORK}, shipped with fastseg, as {', '.join(t.name for t in targets)}")
    with ONE_EXPORT:
        source = NetworkSource(NETWORK)
        return exported(source, source.open(), targets, cache_folder("bundles"), watch)


def targets_of(device: Device, builds_engines: bool) -> tuple[Target, ...]:
    """Return the targets that name a board, those whose engine it builds, and one for any CPU.

    What a vendor's toolchain makes is left out where that is not here.
    """
    from fastseg_exporters.convert.exporter import EXPORTERS

    def fits(target: Target) -> bool:
        exporter = EXPORTERS[target.exporter]
        builds = find_engine(exporter.engine).builds and builds_engines
        return (device.family in target.devices or builds) and not exporter.missing_toolchain

    fitting = filter(fits, map(load_target, target_names()))
    return tuple({t.name: t for t in (load_target(ANYWHERE), *fitting)}.values())


def frames_for(wanted: Benchmark, manifest: Manifest) -> Path | None:
    """Return the frames of a benchmark: those named; for evidence, drawn ones where they do."""
    return wanted.frames or (drawn_frames(manifest) if wanted.every_target else None)


def drawn_frames(manifest: Manifest) -> Path | None:
    """Return a folder of drawn streets with labels; None for a network of other classes."""
    try:
        from fastseg.data import open_dataset
    except ImportError:
        return None
    streets = open_dataset("synthetic", "test")  # no training draws these
    if [info.name for info in manifest.classes] != [info.name for info in streets.classes]:
        return None
    folder = cache_folder("frames") / f"streets-{_DRAWN}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        for sample in itertools.islice(map(streets.__getitem__, range(len(streets))), _DRAWN):
            label_HW3 = sample.label_HW[..., None].repeat(3, axis=2)
            for kind, picture_HW3 in (("images", sample.image_HW3), ("labels", label_HW3)):
                file = Path(place, "made", kind, f"{sample.name}.png")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encode_rgb(picture_HW3))
        os.rename(Path(place, "made"), folder)
    return folder
