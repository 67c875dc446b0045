"""TFLite for Android and Raspberry Pi: channels last from the first operation to the last.

Precisions: "fp32"; "fp16", weights stored in half precision; "int8", weights and activations.
The GPU delegate of Android takes neither bytes nor ArgMax: with the option gpu_delegate the file
takes the normalised image in float32 and gives logits.

The int8 input has scale 1 / std and zero point mean - 128: it holds the camera's bytes minus 128
exactly. All other ranges come from calibration images that run through the float file.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import quantizer, recipe, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.calibrator import Calibrator
from ai_edge_quantizer.qtyping import QSV, TFLOperationName
from ai_edge_quantizer.utils.qsv_utils import min_max_update
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.engines.engine import ENGINES
from torch import Tensor, nn

from fastseg import DeployGraph
from fastseg.deploy import Confidence
from fastseg.restate import Restated
from fastseg_exporters.convert.exporter import (
    ConversionError,
    ExportedArtifact,
    Request,
    parse_options,
    versions,
)
from fastseg_exporters.convert.trace import describe_step, why_untraceable
from fastseg_exporters.tflite.restate import RESTATED
from fastseg_exporters.tflite.to_tflite_graph import (
    SEVERAL_GRAPHS,
    input_tensor,
    layer_names,
    shorten_names,
    take_argmax_of_int8,
)

ENTRY = "model.tflite"
IMAGE = "image"
# The oldest that was run (make test-engines); it counts as TensorFlow does, not as LiteRT.
MIN_TFLITE_RUNTIME = "2.14"
# 2.14, the last there is, decides 2.2 % more of a black frame's pixels otherwise than PyTorch.
MIN_TFLITE_RUNTIME_INT8 = "2.15"
OWN_PICTURE = "core.enter:"  # the image in the network's own normalisation
MAKE_SEVERAL = ("max_unpool2d",)  # what the converter makes further graphs of
CONFIDENCE = "^confidence:"  # tensors of what int8 must leave in float: 256 steps of exp are few
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
    asked = request.conversion
    options = parse_options(Options, asked.target)
    if options.gpu_delegate and asked.precision == "int8":
        raise ValueError("gpu_delegate is for float files; take int8 out of the target's ladder")
    graph = request.graph()
    if options.gpu_delegate and graph.confidence is not None:
        raise ValueError("gpu_delegate gives logits, of which the app makes its own confidence")
    if options.gpu_delegate:
        graph.output = "logits"
    image = "float32 NHWC" if options.gpu_delegate else "uint8 NHWC"
    if asked.precision == "int8":
        image = "int8 NHWC"
    model = request.once("float file", lambda: convert(graph, image.startswith("uint8")))
    layers: tuple[str, ...] = ()
    if asked.precision == "fp16":
        model = halve_weights(model)
    elif asked.precision == "int8":
        layers = layer_names(model)
        images = request.images()
        model = quantize(model, graph, images, asked.keep_float)
    (out_dir / ENTRY).write_bytes(model)
    output = "uint8" if graph.output == "classes" else "float32 NHWC"
    return ExportedArtifact(
        format="tflite",
        entry=ENTRY,
        io={"image": image, graph.output: output}
        | ({} if graph.confidence is None else {"confidence": "uint8"}),
        requires={
            **ENGINES["litert"].requirement,
            "min_tflite_runtime": (
                MIN_TFLITE_RUNTIME_INT8 if asked.precision == "int8" else MIN_TFLITE_RUNTIME
            ),
        },
        toolchain=versions("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert"),
        layers=tuple(name for name in layers if name not in asked.keep_float),
    )


class ChannelsLast(nn.Module):
    """The deploy graph with channels last at its ends: then the converter needs no TRANSPOSE."""

    def __init__(self, graph: DeployGraph, takes_bytes: bool) -> None:
        super().__init__()
        self.core = graph.core
        self._graph = (graph,)  # in a tuple: not another submodule
        self._takes_bytes = takes_bytes
        own = graph.confidence
        self.confidence = None if own is None else Confidence(own.temperature, classes_last=True)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return ids (1, H, W) or logits (1, h, w, K) for an image (1, H, W, 3)."""
        (graph,) = self._graph
        image_NHW3 = graph.normalise(image) if self._takes_bytes else image
        with Restated(RESTATED):
            logits_NKhw: Tensor = self.core(image_NHW3.permute(0, 3, 1, 2))
        if graph.output == "logits":
            return logits_NKhw.permute(0, 2, 3, 1)
        scores_NHWK = graph.upsample(logits_NKhw).permute(0, 2, 3, 1)
        ids_NHW = scores_NHWK.argmax(dim=-1).to(torch.uint8)
        if self.confidence is None:
            return ids_NHW
        return ids_NHW, self.confidence(logits_NKhw.permute(0, 2, 3, 1))


def convert(graph: DeployGraph, takes_bytes: bool) -> bytes:
    """Convert to TFLite in float32; it takes bytes in uint8, else the normalised image in float32.

    Returns:
        The file: input "image" (1, H, W, 3), output ids (1, h, w) uint8, or logits (1, h, w, K).

    Raises:
        ConversionError: an operation that TFLite lacks, with the module it came from.
    """
    dtype = torch.uint8 if takes_bytes else torch.float32
    example_1HW3 = torch.zeros(1, graph.height, graph.width, 3, dtype=dtype)
    module = ChannelsLast(graph, takes_bytes).eval()
    try:
        return shorten_names(
            litert_torch.convert(module, sample_kwargs={IMAGE: example_1HW3}).model_content()
        )
    except Exception as error:  # converters of single operations raise anything
        step = failed_step(module, example_1HW3, str(error))
        reason = why_untraceable(module, example_1HW3, error)
        raise ConversionError(f"TFLite cannot take {step}: {reason}") from error


def failed_step(module: nn.Module, example: Tensor, message: str) -> str:
    """Return which operation of which module a converter's message is about."""
    found = _FAILED_STEP.findall(message)
    if not found and SEVERAL_GRAPHS not in message:
        return "the network"
    program = torch.export.export(module, (example,))
    return describe_step(program.run_decompositions() if found else program, found or MAKE_SEVERAL)


def halve_weights(model: bytes) -> bytes:
    """Return a float32 file with its weights stored as float16; it still computes in float32."""
    halving = recipe_manager.RecipeManager()
    halving.add_weight_only_config(
        ".*", TFLOperationName.ALL_SUPPORTED, 16, algorithm_key=AlgorithmName.FLOAT_CASTING
    )
    return _apply(model, halving.get_quantization_recipe(), None)


def quantize(
    model: bytes, graph: DeployGraph, images: Iterable[Array], keep_float: tuple[str, ...] = ()
) -> bytes:
    """Return a file in int8 of one in float32 that takes the normalised image.

    Args:
        model: from convert(takes_bytes=False).
        graph: what it was made of.
        images: uint8 (1, H, W, 3), to find ranges on.
        keep_float: layers that stay in float32, as layer_names() gives them.

    Raises:
        ValueError: no image, or a mean that int8 cannot hold.
    """
    if graph.mean != int(graph.mean) or not 0 <= graph.mean <= 255:
        raise ValueError(f"mean is {graph.mean}; the exporters take a whole number 0 to 255")
    int8 = int8_recipe(keep_float)
    ranges = calibrate(model, int8, ((x - graph.mean) / graph.std for x in images))
    ranges[input_tensor(model)] = {
        "min": np.full((1, 1, 1, 1), (0 - graph.mean) / graph.std, np.float32),
        "max": np.full((1, 1, 1, 1), (255 - graph.mean) / graph.std, np.float32),
    }
    if graph.normalization is not None:  # from black to white, as the camera may see
        low_3, high_3 = graph.normalization.limits()
        ends = {"min": min(*low_3, 0.0), "max": max(*high_3, 0.0)}
        for name in ranges:
            if name.startswith(OWN_PICTURE):
                ranges[name] = {k: np.full((1, 1, 1, 1), v, np.float32) for k, v in ends.items()}
    return take_argmax_of_int8(_apply(model, int8, ranges))


def int8_recipe(keep_float: tuple[str, ...]) -> Any:
    """Return the quantizer's recipe: int8 but for some layers and the output, logits if any."""
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    none = AlgorithmName.NO_QUANTIZE
    manager.add_quantization_config(".*", TFLOperationName.OUTPUT, algorithm_key=none)
    manager.add_quantization_config(CONFIDENCE, TFLOperationName.ALL_SUPPORTED, algorithm_key=none)
    for layer in keep_float:
        exactly = f"^{re.escape(layer)};?$"
        manager.add_quantization_config(exactly, TFLOperationName.ALL_SUPPORTED, algorithm_key=none)
    return manager.get_quantization_recipe()


def calibrate(model: bytes, int8: Any, images: Iterable[Array]) -> dict[str, QSV]:
    """Return the smallest and largest value of each tensor of a float32 file over all images.

    These are normalised, (1, H, W, 3); one is in memory at a time.

    Raises:
        ValueError: no image.
    """
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(int8)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    calibrator = Calibrator(model, num_threads=threads, qsv_update_func=min_max_update)
    (signature,) = calibrator.get_signature_list()
    for image_1HW3 in images:
        sample = {IMAGE: image_1HW3.astype(np.float32)}
        calibrator.calibrate({signature: [sample]}, manager)
    ranges: dict[str, QSV] = calibrator.get_model_qsvs()
    if not ranges:
        raise ValueError("no image to calibrate int8 on")
    return ranges


def _apply(model: bytes, instructions: Any, ranges: dict[str, QSV] | None) -> bytes:
    made = quantizer.Quantizer(model, instructions).quantize(ranges, enable_progress_report=False)
    return bytes(made.quantized_model)
