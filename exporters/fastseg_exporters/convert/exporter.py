"""The contract of an exporter, and the record of each that there is.

An exporter is one file `to_<format>.py` with one function

    def export(request: Request, out_dir: Path) -> ExportedArtifact

that writes the network's files into `out_dir`, and into FOR_GATE in it what only judging it takes.
It runs in a child process, so it may load
whatever it needs and may fail in any way. A format of another distribution joins through the
entry-point group "fastseg.exporters", which names its record, `package.module:EXPORTER` in
capitals, from a module that imports no converter; or the function, of which nothing else is known.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_runtime.engines.engine import ENGINES, Engine, engines, from_outside, load
from fastseg_targets.target import Target

from fastseg import DeployGraph, Network
from fastseg.deploy import Confidence, OutputKind
from fastseg_exporters.convert.source import Calibration, NetworkSource

ENTRY_POINTS = "fastseg.exporters"
# A folder in out_dir for what the stand-in of an engine needs: it is judged with the artifact, and
# then left out of the bundle.
FOR_GATE = "for-gate"
CAVEAT = "caveat"  # in ExportedArtifact.extra: what nobody has seen an artifact do, in words
_REFEREES = "fastseg_exporters.gate.referees.referee:referees"
T = TypeVar("T")


class ConversionError(RuntimeError):
    """Nothing came of a conversion; the message says why."""


@dataclass(frozen=True)
class Recipe:
    """What is the same for every artifact of a network, as plain data.

    Attributes:
        source: the network.
        calibration: images for int8.
        output: "classes" or "logits".
        mask_stride: 1, 2 or 4.
        temperature: what the confidence beside the ids divides the logits by; None: there is none.
        keep_norms: batch norms that are not to be folded.
        network_sha256: of the weights, which a child process must find again; "": not checked.
        sample: of the logits, for the same; (): not checked.
    """

    source: NetworkSource
    calibration: Calibration = field(default_factory=Calibration)
    output: OutputKind = "classes"
    mask_stride: int = 1
    temperature: float | None = None
    keep_norms: tuple[str, ...] = ()
    network_sha256: str = ""
    sample: tuple[float, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """One artifact to make, as plain data.

    Attributes:
        recipe: the network, and what is made of it.
        target: what for; `target.options` is the table for the exporter's own Options.
        precision: a rung of target.ladder.
        keep_float: layers that int8 must leave in float, by the names that the exporter gave
            in ExportedArtifact.layers.
    """

    recipe: Recipe
    target: Target
    precision: str
    keep_float: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name it in a message."""
        return f"{self.target.name} in {self.precision}"


def same_files(conversion: Conversion) -> str:
    """Return what decides an artifact's files, alike for two conversions that give the same."""
    exporter = find_exporter(conversion.target.exporter)
    maker, precision = exporter.files_of or exporter.name, conversion.precision
    if exporter.files_of and precision == "bf16":
        precision = "fp32"
    return repr(
        (maker, precision, sorted(conversion.target.options.items()), conversion.keep_float)
    )


@dataclass(frozen=True)
class Request:
    """What an exporter is given: a conversion whose network is open.

    Attributes:
        network: the network and its description; `network.info` has size and normalisation.
        conversion: what is to be made of it.
    """

    network: Network
    conversion: Conversion
    _made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, what: str, make: Callable[[], T]) -> T:
        """Return what `make` gives, made once for all conversions of one child process.

        Layers are ranked by converting once for each: what does not depend on keep_float need
        not be made again. The caller must leave the thing as it is.
        """
        if what not in self._made:
            self._made[what] = make()
        made: T = self._made[what]
        return made

    def graph(self) -> DeployGraph:
        """Return the deploy graph to convert, in eval mode."""
        recipe = self.conversion.recipe
        graph = self.network.graph(recipe.output, recipe.mask_stride, recipe.keep_norms)
        if recipe.temperature is not None:
            graph.confidence = Confidence(recipe.temperature)
        return graph

    def images(self) -> Iterator[Array]:
        """Yield calibration images, uint8 RGB (1, H, W, 3) of the network's size."""
        return self.conversion.recipe.calibration.images(self.network.info.input_spec())


@dataclass(frozen=True)
class ExportedArtifact:
    """What an exporter made.

    Attributes:
        format: "onnx", "tflite", "coreml", "pytorch" or an outsider's.
        entry: the file or folder to open, relative to out_dir.
        io: what the file takes and gives, in the words of fastseg_runtime.engines.backend.
        requires: {"backend": name, "min_version": version}.
        toolchain: versions of what made it.
        layers: quantized layers that Conversion.keep_float can name, in the order of the graph.
        extra: anything else worth keeping in the manifest.
        alternatives: files that some releases of the engine open in place of `entry`; each is
            judged as it is.
    """

    format: str
    entry: str
    io: dict[str, str]
    requires: dict[str, str]
    toolchain: dict[str, str]
    layers: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()


Export = Callable[[Request, Path], ExportedArtifact]


@dataclass(frozen=True)
class Exporter:
    """All that is known of one exporter without importing its converter."""

    name: str  # in a target's file
    location: str  # "module:function" of its Export
    engine: str = ""  # that its artifacts are made for, by its name in the runtime
    precisions: tuple[str, ...] = ()  # that it makes; (): it tells itself
    modules: tuple[str, ...] = ()  # its converter: import names, all of which must be there
    install: str = "the package that brings it, with all that it needs"  # the command for them
    stand_in: Engine | None = None  # judges its artifacts where their own engine does not run
    referee: str = ""  # by its name, whose toolchain converts in an environment of its own
    files_of: str = ""  # the exporter whose files it takes as they are, but for bf16, their float

    @property
    def is_installed(self) -> bool:
        """Return whether its converter is here."""
        try:
            here = all(find_spec(module) is not None for module in self.modules)
        except (ImportError, ValueError):  # the package of a dotted name is not here
            here = False
        return here and not self.missing_toolchain

    @property
    def missing_toolchain(self) -> str:
        """Return what to do where its referee's toolchain is not here; "" where it is."""
        return str(load(_REFEREES)()[self.referee].missing) if self.referee else ""

    def check_takes(self, network: Network) -> None:
        """Refuse an ONNX file where the converter works on torch modules, not on ONNX graphs.

        Raises:
            ValueError: it cannot be converted.
        """
        if network.onnx_file is not None and "onnx" not in self.modules:
            raise ValueError(
                f"{network.onnx_file.name} is an ONNX graph, and {self.name} is made of PyTorch "
                "modules alone; name the module it was exported from, as package.module:factory"
            )

    @property
    def needs(self) -> str:
        """Return what must be there, and how to get it, in words."""
        toolchain = f"; {self.missing_toolchain}" if self.missing_toolchain else ""
        modules = " and ".join(self.modules) or "its package"
        return f"it needs {modules}: {self.install}{toolchain}"

    @property
    def verified_by(self) -> str:
        """Return what judges its artifacts on this machine, in words."""
        engine = engines().get(self.engine) or Engine(self.engine, title="its own backend")
        own = engine.title or engine.name
        if self.stand_in is None or engine.platform == sys.platform:
            return own
        return f"{self.stand_in.title}; {own} on the device"


def from_extra(extra: str) -> str:
    """Return the command that installs an extra of ours."""
    return f"pip install 'fastseg-edge[{extra}]'"


def _ours(
    name: str,
    engine: str,
    precisions: tuple[str, ...],
    modules: tuple[str, ...],
    extra: str,
    stand_in: Engine | None = None,
    referee: str = "",
    files_of: str = "",
) -> Exporter:
    location = f"fastseg_exporters.{name}.to_{name}:export"
    install = from_extra(extra) + (f" and make referees REFEREES={referee}" if referee else "")
    return Exporter(
        name, location, engine, precisions, modules, install, stand_in, referee, files_of
    )


_ORT, _MIL = ENGINES["onnxruntime"], Engine("mil", title="our interpreter in torch")
_RKNN = Engine("rknn-simulator", title="Rockchip's simulator")
_QNN = Engine("qnn-source", title="ONNX Runtime, the graph that was compiled")
_ONNX = ("onnx", "onnxruntime", "onnxsim")
_LITERT = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert")
_WEIGHTS = ("fp16", "int8-weights", "palettized")
EXPORTERS = {
    exporter.name: exporter
    for exporter in (
        _ours("onnx", "onnxruntime", ("fp32", "int8", "int8-weights"), _ONNX, "onnx"),
        _ours(
            "openvino",
            "openvino",
            ("fp32", "bf16", "int8"),
            (*_ONNX, "openvino"),
            "openvino",
            files_of="onnx",
        ),
        _ours("tensorrt", "tensorrt", ("fp32", "fp16", "int8"), _ONNX, "onnx", _ORT),
        _ours("tflite", "litert", ("fp32", "fp16", "int8"), _LITERT, "tflite"),
        _ours("coreml", "coreml", _WEIGHTS, ("coremltools",), "coreml", _MIL),
        _ours("qnn", "qnn", ("fp16", "int8"), _ONNX, "onnx", _QNN, "qualcomm-htp"),
        _ours("rknn", "rknn", ("fp16", "int8"), _ONNX, "onnx", _RKNN, "rknn"),
        _ours("pytorch", "pytorch", ("fp32",), ("torch", "safetensors"), "train"),
    )
}


def exporters() -> dict[str, Exporter]:
    """Return all that are known here by their names, ours first."""
    return EXPORTERS | from_outside(ENTRY_POINTS, Exporter) | EXPORTERS


def find_exporter(name: str) -> Exporter:
    """Return what is known of an exporter; its converter need not be here.

    Raises:
        ValueError: no exporter of that name.
    """
    known = EXPORTERS if name in EXPORTERS else exporters()
    if name not in known:
        raise ValueError(f"no exporter {name!r}; choose one of {sorted(known)}")
    return known[name]


def load_exporter(name: str) -> Export:
    """Return the export function; this imports its converter.

    It raises ValueError for a precision that the exporter does not make.

    Raises:
        ValueError: no exporter of that name.
        ImportError: its converter is not installed; the message says how.
    """
    exporter = find_exporter(name)
    if missing := exporter.missing_toolchain:
        raise ImportError(f"exporter {name!r} does not run: {missing}")
    try:
        export: Export = load(exporter.location)
    except ImportError as error:
        raise ImportError(f"exporter {name!r} does not load: {error}; {exporter.needs}") from error

    def checked(request: Request, out_dir: Path) -> ExportedArtifact:
        made, asked = exporter.precisions, request.conversion.precision
        if made and asked not in made:
            raise ValueError(f"the {name} exporter makes {made}, not {asked}")
        return export(request, out_dir)

    return checked


def parse_options(options: type[T], target: Target) -> T:
    """Make an exporter's frozen Options of the target's table.

    Raises:
        ValueError: a key that the exporter does not know, or a value of the wrong type.
    """
    return from_table(options, target.options, f"{target.name}: options")


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of distributions, for Artifact.toolchain."""
    return {package: metadata.version(package) for package in packages}
