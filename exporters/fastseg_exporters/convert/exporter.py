"""The contract of an exporter, and the table of those there are.

An exporter is one file `to_<format>.py` with one function

    def export(request: Request, out_dir: Path) -> ExportedArtifact

that writes the network's files into `out_dir`. It runs in a child process, so it may load
whatever it needs and may fail in any way. A format of another distribution joins through the
entry-point group "fastseg.exporters".
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, TypeVar

from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_targets.profile import Target

from fastseg import DeployGraph, Network
from fastseg.deploy import OutputKind
from fastseg_exporters.convert.source import Calibration

EXPORTERS = {
    "onnx": "fastseg_exporters.onnx.to_onnx:export",
    "tensorrt": "fastseg_exporters.tensorrt.to_tensorrt:export",
    "tflite": "fastseg_exporters.tflite.to_tflite:export",
    "coreml": "fastseg_exporters.coreml.to_coreml:export",
    "pytorch": "fastseg_exporters.pytorch.to_pytorch:export",
}
ENTRY_POINTS = "fastseg.exporters"
T = TypeVar("T")


class ConversionError(RuntimeError):
    """Nothing came of a conversion; the message says why."""


@dataclass(frozen=True)
class Request:
    """What is asked of an exporter.

    Attributes:
        network: the network and its description; `network.info` has size and normalisation.
        target: the target; `target.options` is the table for the exporter's own Options.
        precision: a rung of target.ladder.
        calibration: images for int8.
        output: "classes" or "logits".
        mask_stride: 1, 2 or 4.
        keep_float: layers that int8 must leave in float, by the names that the exporter gave
            in ExportedArtifact.layers.
        keep_norms: batch norms that are not to be folded.
    """

    network: Network
    target: Target
    precision: str
    calibration: Calibration
    output: OutputKind = "classes"
    mask_stride: int = 1
    keep_float: tuple[str, ...] = ()
    keep_norms: tuple[str, ...] = ()
    _made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, what: str, make: Callable[[], T]) -> T:
        """Return what `make` gives, made once for all conversions of one job.

        Layers are ranked by converting once for each: what does not depend on keep_float need
        not be made again. The caller must leave the thing as it is.
        """
        if what not in self._made:
            self._made[what] = make()
        made: T = self._made[what]
        return made

    def graph(self) -> DeployGraph:
        """Return the deploy graph to convert, in eval mode."""
        return self.network.graph(self.output, self.mask_stride, self.keep_norms)


@dataclass(frozen=True)
class ExportedArtifact:
    """What an exporter made.

    Attributes:
        format: "onnx", "tflite", "coreml", "pytorch" or an outsider's.
        entry: the file or folder to open, relative to out_dir.
        io: what the file takes and gives, in the words of fastseg_runtime.engines.backend.
        requires: {"backend": name, "min_version": version}.
        toolchain: versions of what made it.
        layers: quantized layers that Request.keep_float can name, in the order of the graph.
        extra: anything else worth keeping in the manifest.
        proof: the file to verify here in place of `entry`, where the device makes of `entry`
            what this file is already (fp16 by a flag); "": entry itself.
    """

    format: str
    entry: str
    io: dict[str, str]
    requires: dict[str, str]
    toolchain: dict[str, str]
    layers: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    proof: str = ""


Exporter = Callable[[Request, Path], ExportedArtifact]


def exporter_names() -> list[str]:
    """Return the names of all exporters, ours and others'."""
    return sorted({*EXPORTERS, *(point.name for point in _others())})


def load_exporter(name: str) -> Exporter:
    """Return the export function; this imports its converter.

    Raises:
        ValueError: no exporter of that name.
        ImportError: its converter is not installed; the message says how.
    """
    table = {**{point.name: point.value for point in _others()}, **EXPORTERS}
    if name not in table:
        raise ValueError(f"no exporter {name!r}; choose one of {sorted(table)}")
    module, _, attribute = table[name].partition(":")
    export: Exporter = getattr(import_module(module), attribute)
    return export


def parse_options(options: type[T], target: Target) -> T:
    """Make an exporter's frozen Options of the target's table.

    Raises:
        ValueError: a key that the exporter does not know, or a value of the wrong type.
    """
    return from_table(options, target.options, f"{target.name}: options")


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of distributions, for Artifact.toolchain."""
    return {package: metadata.version(package) for package in packages}


def _others() -> metadata.EntryPoints:
    return metadata.entry_points(group=ENTRY_POINTS)
