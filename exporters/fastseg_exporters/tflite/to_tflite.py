"""TFLite for Android and Raspberry Pi: channels last from the first operation to the last.

Precisions: "fp32"; "fp16", weights stored in half precision; "int8", weights and activations.
The GPU delegate of Android takes neither bytes nor ArgMax: with the option gpu_delegate the file
takes the normalised image in float32 and gives logits.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fastseg import DeployGraph
from fastseg_exporters.convert.exporter import (
    ConversionError,
    ExportedArtifact,
    Request,
    parse_options,
    versions,
)
from fastseg_exporters.convert.trace import describe_step, why_untraceable
from fastseg_exporters.tflite import to_tflite_quantized
from fastseg_exporters.tflite.to_tflite_graph import layer_names, shorten_names

try:
    import litert_torch
except ImportError as error:
    raise ImportError(
        "exporting to TFLite needs litert-torch: pip install 'fastseg-edge[tflite]'"
    ) from error

ENTRY = "model.tflite"
IMAGE = "image"
PRECISIONS = ("fp32", "fp16", "int8")
# The oldest that were run (make test-engines). tflite-runtime counts as TensorFlow does.
MIN_LITERT, MIN_TFLITE_RUNTIME = "1.0", "2.14"
# 2.14, the last there is, decides 2.2 % more of a black frame's pixels otherwise than PyTorch.
MIN_TFLITE_RUNTIME_INT8 = "2.15"
_FAILED_STEP = re.compile(r"While executing %(\w+)")


@dataclass(frozen=True)
class Options:
    """The table `options` of a target's file."""

    gpu_delegate: bool = False  # float32 in, logits out, and so nothing that the GPU cannot run


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.tflite into out_dir.

    Raises:
        ConversionError: an operation that TFLite lacks, with the module it came from.
        ValueError: a precision or an option that does not exist.
    """
    options = parse_options(Options, request.target)
    check_precision(request.precision, options)
    graph = request.graph()
    if options.gpu_delegate:
        graph.output = "logits"
    image = image_type(request.precision, options)
    model = request.once("float file", lambda: convert(graph, image.startswith("uint8")))
    layers: tuple[str, ...] = ()
    if request.precision == "fp16":
        model = to_tflite_quantized.halve_weights(model)
    elif request.precision == "int8":
        layers = layer_names(model)
        images = request.calibration.images(graph.width, graph.height)
        model = to_tflite_quantized.quantize(model, graph, images, request.keep_float)
    (out_dir / ENTRY).write_bytes(model)
    output = "uint8" if graph.output == "classes" else "float32 NHWC"
    return ExportedArtifact(
        format="tflite",
        entry=ENTRY,
        io={"image": image, graph.output: output},
        requires={
            "backend": "litert",
            "min_version": MIN_LITERT,
            "min_tflite_runtime": (
                MIN_TFLITE_RUNTIME_INT8 if request.precision == "int8" else MIN_TFLITE_RUNTIME
            ),
        },
        toolchain=versions("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
        layers=tuple(name for name in layers if name not in request.keep_float),
    )


def check_precision(precision: str, options: Options) -> None:
    """Raise ValueError unless the exporter makes such a file."""
    if precision not in PRECISIONS:
        raise ValueError(f"the tflite exporter makes {PRECISIONS}, not {precision}")
    if options.gpu_delegate and precision == "int8":
        raise ValueError("gpu_delegate is for float files; take int8 out of the target's ladder")


def image_type(precision: str, options: Options) -> str:
    """Return what the file takes, in the words of fastseg_runtime.engines.backend."""
    if precision == "int8":
        return "int8 NHWC"
    return "float32 NHWC" if options.gpu_delegate else "uint8 NHWC"


class ChannelsLast(nn.Module):
    """The deploy graph with channels last at its ends: then the converter needs no TRANSPOSE."""

    def __init__(self, graph: DeployGraph, takes_bytes: bool) -> None:
        super().__init__()
        self.core = graph.core
        self._graph = (graph,)  # in a tuple: not another submodule
        self._takes_bytes = takes_bytes

    def forward(self, image: Tensor) -> Tensor:
        """Return ids (1, H, W) or logits (1, h, w, K) for an image (1, H, W, 3)."""
        (graph,) = self._graph
        image_NHW3 = graph.normalise(image) if self._takes_bytes else image
        logits_NKhw: Tensor = self.core(image_NHW3.permute(0, 3, 1, 2))
        if graph.output == "logits":
            return logits_NKhw.permute(0, 2, 3, 1)
        scores_NHWK = graph.upsample(logits_NKhw).permute(0, 2, 3, 1)
        return scores_NHWK.argmax(dim=-1).to(torch.uint8)


def convert(graph: DeployGraph, takes_bytes: bool) -> bytes:
    """Convert to TFLite in float32.

    Args:
        graph: the deploy graph.
        takes_bytes: uint8 in, normalised inside; else the normalised image in float32.

    Returns:
        The file: input "image" (1, H, W, 3), output ids (1, h, w) uint8, or logits (1, h, w, K).

    Raises:
        ConversionError: an operation that TFLite lacks, with the module it came from.
    """
    dtype = torch.uint8 if takes_bytes else torch.float32
    example_1HW3 = torch.zeros(1, graph.height, graph.width, 3, dtype=dtype)
    module = ChannelsLast(graph, takes_bytes).eval()
    try:
        content: bytes = litert_torch.convert(
            module, sample_kwargs={IMAGE: example_1HW3}
        ).model_content()
    except Exception as error:  # converters of single operations raise anything
        step = failed_step(module, example_1HW3, str(error))
        reason = why_untraceable(module, example_1HW3, error)
        raise ConversionError(f"TFLite cannot take {step}: {reason}") from error
    return shorten_names(content)


def failed_step(module: nn.Module, example: Tensor, message: str) -> str:
    """Return which operation of which module a converter's message is about."""
    found = _FAILED_STEP.findall(message)
    if not found:
        return "the network"
    program = torch.export.export(module, (example,)).run_decompositions()
    return describe_step(program, found)
