"""Engines and precisions: all that is known of each without importing an engine, in one place.

An engine of another distribution joins by the entry-point group "fastseg.backends", which names
its record, `package.module:ENGINE` in capitals. That module should import nothing but records: it
is looked at wherever engines are listed. The class of its backend may stand there instead; then
nothing else is known of it. A precision from outside stands in the record of the engine that it
comes with, Engine.precisions.
"""

import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type, TypeVar

ENTRY_POINTS = "fastseg.backends"
T = TypeVar("T")


@dataclass(frozen=True)
class Precision:
    """What an artifact stores and computes in; the defaults are those of one that nobody knows."""

    name: str  # in a target's ladder and in Artifact.precision
    bytes_per_weight: float = 0.0  # the least in memory: a bound must not be too high
    rate: str = ""  # the field of a board's Peak that it computes at; "": memory alone is counted
    is_float: bool = False  # computes the same function as PyTorch, and may stand for it
    calibrated: bool = False  # takes ranges from images
    # On an accelerator, on a CPU that multiplies and adds bytes, on another: the lower, the earlier
    # it is tried. Int8 wins on a CPU only with such instructions; fp16 has few kernels there.
    ranks: Tuple[int, int, int] = (40, 40, 40)
    # Fraction of a self-test's pixels that must agree on a device where the exporter recorded none;
    # a broken engine is far below. Int8 decides differently where two classes are nearly as likely.
    selftest_agreement: float = 0.8
    # The least share of pixels with PyTorch's ids, as the mean over images, that the exporters'
    # gate lets through; unless is_float, only where no label says what the others cost. Two points
    # below the least that a sound int8 of nano, small or base gave on generated scenes, 0.970 (on
    # CamVid 0.992). With one of three weights doubled they gave 0.69 to 0.93 there in 14 of 18
    # cases, 0.951 to 0.981 in the others, with red and blue swapped 0.75 to 0.78
    # (tools/export_figures/measure_agreement.py).
    gate_agreement: float = 0.95
    # The same in each scene of the self-test, the hard ones too; None: no limit. Int8 gave 0.840 on
    # a mosaic and was sound, and on a plain picture all pixels may change at once.
    scene_agreement: Optional[float] = None


PRECISIONS: Dict[str, Precision] = {
    precision.name: precision
    for precision in (
        # All that were measured had a gate_agreement of 0.9999 or more, nano 1.000 in each scene.
        Precision("fp32", 4, "fp32_gflops", True, False, (30, 20, 10), 0.99, 0.999, 0.99),
        # 0.998 or more in trained networks, but in untrained ones the two best classes are nearly
        # equal everywhere; nano 0.999 in each scene.
        Precision("fp16", 2, "fp16_gflops", True, False, (20, 30, 20), 0.97, 0.97, 0.9),
        # Convolutions alone; float where a CPU has no units for it.
        Precision("bf16", 2, "fp16_gflops", ranks=(20, 15, 5), selftest_agreement=0.95),
        Precision("int8", 1, "int8_gops", calibrated=True, ranks=(10, 10, 30)),
        Precision("int8-weights", 1, "fp16_gflops"),  # what they compute in, or slower
        Precision("palettized", 1 / 8, "fp16_gflops"),
    )
}


@dataclass(frozen=True)
class Engine:
    """One engine, which runs artifacts."""

    name: str  # in Artifact.requires["backend"] and SessionInfo.backend
    location: str = ""  # "module:Class" of its Backend; importing the module imports the engine
    title: str = ""  # what people call it
    formats: Tuple[str, ...] = ()  # that it opens; (): it is asked for by its name alone
    modules: Tuple[str, ...] = ()  # its library: any one, the first that is there is taken
    install: str = "reinstall the distribution that brings it"  # the one command that brings them
    min_version: str = ""  # the oldest that was run, counted as by the first of the modules
    ranks: Tuple[int, int] = (60, 60)  # on ARM and on x86: the lower, the earlier it is tried
    # Precision -> instructions: on a CPU with none of them, and in other precisions, other engines
    # are faster, and come first (tools/export_figures/measure_openvino.py). Empty: not known.
    wants: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)
    # Suffix -> what a file is called that it opens without a bundle; `describe` beside its Backend
    # reads a manifest of one.
    bare: Mapping[str, str] = field(default_factory=dict)
    platform: Optional[str] = None  # sys.platform, if it runs on one alone
    for_devices: bool = True  # False: for development; remote_bench brings none to a board
    needs_cuda: bool = False  # runs on NVIDIA GPUs alone
    builds: bool = False  # makes an engine on the device first, which takes minutes and room
    accelerator: bool = False  # a GPU or a neural engine: decides which precision comes first
    # What remote_bench brings to a board that has none of the modules; of an engine from outside,
    # that of its backend too, with the pins that remote_bench's own wheels.toml has not, in the
    # same shape: Python ("3.11") -> machine ("aarch64") -> distribution -> (version, SHA-256).
    wheels: Tuple[str, ...] = ()
    pins: Mapping[str, Mapping[str, Mapping[str, Tuple[str, str]]]] = field(default_factory=dict)
    precisions: Tuple[Precision, ...] = ()  # that only come with it

    @property
    def requirement(self) -> Dict[str, str]:
        """Return Artifact.requires of what is made for it."""
        return {"backend": self.name, "min_version": self.min_version}


# GPUs and neural engines come first, then the CPU's libraries by what they are best at. Of those
# that open one format, the last here is what an artifact is made for that does not say.
ENGINES: Dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "tensorrt",
            "fastseg_runtime.engines.tensorrt.backend_tensorrt:TensorRTBackend",
            "TensorRT",
            formats=("onnx",),
            modules=("tensorrt",),  # JetPack's; there is no wheel to bring
            install="sudo apt install python3-libnvinfer (Jetson), or pip install tensorrt (PC)",
            min_version="8.5",
            needs_cuda=True,
            builds=True,
            accelerator=True,
            ranks=(10, 10),
        ),
        Engine(
            "coreml",
            "fastseg_runtime.engines.backend_coreml:CoreMLBackend",
            "Core ML",
            formats=("coreml",),
            modules=("coremltools",),
            install="pip install coremltools",
            min_version="9.0",  # read packages back; none has run them, on no Mac
            platform="darwin",
            accelerator=True,
            ranks=(20, 20),
        ),
        Engine(
            "qnn",
            "fastseg_runtime.engines.backend_qnn:QnnBackend",
            "ONNX Runtime on Qualcomm's NPU",
            formats=("qnn",),
            modules=("onnxruntime_qnn",),
            install="pip install onnxruntime-qnn",
            min_version="2.7",  # that compiled the file; run in its simulator alone
            accelerator=True,
            ranks=(25, 25),
        ),
        Engine(
            "rknn",
            "fastseg_runtime.engines.backend_rknn:RknnBackend",
            "RKNN",
            formats=("rknn",),
            modules=("rknnlite",),
            install="pip install rknn-toolkit-lite2",
            min_version="2.5",  # of the toolkit that made the file; nobody has run one
            accelerator=True,
            ranks=(25, 25),
            wheels=("rknn-toolkit-lite2", "psutil", "ruamel-yaml"),
        ),
        Engine(
            "litert",
            "fastseg_runtime.engines.backend_litert:LiteRTBackend",
            "LiteRT",
            formats=("tflite",),
            modules=("ai_edge_litert", "tflite_runtime"),  # its name until 2024, for old Pythons
            install="pip install "
            + ("ai-edge-litert" if sys.version_info >= (3, 9) else "tflite-runtime"),
            min_version="1.0",
            ranks=(30, 40),
            wheels=("ai-edge-litert",),
        ),
        Engine(
            "openvino",
            "fastseg_runtime.engines.backend_openvino:OpenVINOBackend",
            "OpenVINO",
            formats=("onnx",),
            modules=("openvino",),
            install="pip install openvino",
            min_version="2024.4",
            ranks=(45, 30),  # on x86 beside ONNX Runtime: the precision decides
            wants={
                "bf16": ("avx512_bf16", "amx_bf16"),
                "int8": ("avx512_vnni", "avx_vnni"),
            },
            wheels=("openvino",),
        ),
        Engine(
            "onnxruntime",
            "fastseg_runtime.engines.backend_onnxruntime:OnnxRuntimeBackend",
            "ONNX Runtime",
            formats=("onnx",),
            bare={".onnx": "ONNX file"},
            modules=("onnxruntime",),
            install="pip install onnxruntime",
            min_version="1.17",  # make test-engines; 1.16 refuses int8
            ranks=(40, 30),
            wheels=("onnxruntime",),
        ),
        Engine(
            "pytorch",
            "fastseg_runtime.engines.backend_pytorch:PyTorchBackend",
            "PyTorch",
            formats=("pytorch",),
            bare={".safetensors": "checkpoint", ".pth": "checkpoint", ".pt": "checkpoint"},
            modules=("torch",),
            install="pip install -r requirements-dev.txt, in a checkout of fastseg",
            min_version="2.13",
            for_devices=False,
            ranks=(50, 50),
        ),
    )
}


def engines() -> Dict[str, Engine]:
    """Return all that are known here by their names, ours first."""
    return {**ENGINES, **from_outside(ENTRY_POINTS, Engine), **ENGINES}


def find_engine(name: str) -> Engine:
    """Return the engine of a name.

    Raises:
        ValueError: there is none.
    """
    known = ENGINES if name in ENGINES else engines()
    if name not in known:
        raise ValueError(f"no backend {name!r}; choose one of {', '.join(sorted(known))}")
    return known[name]


def openers(file_format: str) -> List[Engine]:
    """Return the engines that open a format: ours, else those of whoever brought it."""
    known = ENGINES.values()
    if not any(file_format in engine.formats for engine in known):
        known = engines().values()
    return [engine for engine in known if file_format in engine.formats]


def precisions() -> Dict[str, Precision]:
    """Return all that are known here by their names, ours first."""
    others = {new.name: new for engine in engines().values() for new in engine.precisions}
    return {**PRECISIONS, **others, **PRECISIONS}


def find_precision(name: str) -> Precision:
    """Return what is known of a precision; of one that nobody knows, the defaults."""
    return PRECISIONS.get(name) or precisions().get(name) or Precision(name)


def from_outside(group: str, kind: Type[T]) -> Dict[str, T]:
    """Return the records that other distributions bring by the entry points of a group.

    Args:
        group: such as "fastseg.backends".
        kind: a dataclass whose first two fields are name and location; an entry point that names
            no record, but a class or a function, is its location.
    """
    from importlib import metadata  # slow to import, and only needed for outsiders

    found: Any = metadata.entry_points()
    # Python 3.10 replaced the dict of groups by select().
    is_dict = not hasattr(found, "select")
    points = found.get(group, ()) if is_dict else found.select(group=group)
    return {point.name: _record(point.name, point.value, kind) for point in points}


def names_record(location: str) -> bool:
    """Return whether what an entry point names is a record, by its capitals."""
    return location.rpartition(":")[2].isupper()


def _record(name: str, location: str, kind: Any) -> Any:
    if names_record(location):
        with suppress(Exception):  # what it raises is told by whoever loads its location
            record = load(location)
            if isinstance(record, kind):
                return replace(record, name=name)
    return kind(name, location)


def load(location: str) -> Any:
    """Return what "module:name" stands for, importing the module."""
    module, _, attribute = location.partition(":")
    return getattr(import_module(module), attribute)
