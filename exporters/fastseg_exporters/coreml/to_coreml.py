"""Core ML: an ML program for iOS 16 and macOS 13 that takes an RGB image and gives class ids.

Precisions: "fp16"; "int8-weights", one scale per output channel; "palettized", each weight an
index into a palette of its layer. All compute in fp16. The same network and options give the
same bytes.
"""

import json
import logging
import re
import shutil
import sys
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import torch
from fastseg_runtime.bundle.usage import describe_usage
from fastseg_runtime.engines.engine import ENGINES
from torch import Tensor, nn
from torch.export import ExportedProgram

from fastseg import DeployGraph, Network, __version__
from fastseg.deploy import Confidence
from fastseg_exporters.convert.exporter import (
    ConversionError,
    ExportedArtifact,
    Request,
    parse_options,
    versions,
)
from fastseg_exporters.convert.trace import describe_step, why_untraceable
from fastseg_exporters.coreml.backend_mil import read_program
from fastseg_exporters.coreml.mil_program import Program, unknown_operations
from fastseg_exporters.coreml.palette import palettize

ENTRY = "model.mlpackage"
PALETTE_BITS = (1, 2, 4, 6, 8)  # what iOS 16 has
# Of a transposed convolution with groups these passes scale the wrong channels (coremltools 9.0).
_MIX_UP_GROUPS = ("common::fuse_conv_batchnorm", "common::fuse_conv_scale")
# What Xcode's preview of segmentation networks reads:
# https://apple.github.io/coremltools/docs-guides/source/xcode-model-preview-types.html
PREVIEW_TYPE = "com.apple.coreml.model.preview.type"
PREVIEW_PARAMS = "com.apple.coreml.model.preview.params"
CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"
# Identifiers in the package's own manifest are made from paths within this namespace.
NAMESPACE = uuid.UUID("0b5d2f2e-6d0c-5f43-9a55-7f2d2e6c1f10")
_FAILED_STEP = re.compile(r"Unsupported fx node (\w+)|\(located at: '(\w+)'\)")


@dataclass(frozen=True)
class Options:
    """The table `options` of a target's file."""

    palette_bits: int = 6  # 64 values per layer


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.mlpackage into out_dir.

    Raises:
        ConversionError: an operation that Core ML, or our interpreter of it, cannot take.
        ValueError: an option that does not exist.
    """
    asked = request.conversion
    options = parse_options(Options, asked.target)
    graph = request.graph()
    traced = trace(graph)
    model = compress(convert(traced, graph), asked.precision, options, asked.keep_float)
    describe(model, request.network)
    save(model, out_dir / ENTRY)
    program = read_program(out_dir / ENTRY)
    if sys.platform != "darwin":
        check_provable(program, traced)
    return ExportedArtifact(
        format="coreml",
        entry=ENTRY,
        io={"image": "image"}
        | ({"classes": "int32"} if graph.output == "classes" else {"logits": "float32 NCHW"})
        | ({} if graph.confidence is None else {"confidence": "int32"}),
        requires=ENGINES["coreml"].requirement,
        toolchain=versions("torch", "coremltools", "numpy"),
        layers=quantized_layers(program),
    )


class ImageGraph(nn.Module):
    """The deploy graph behind its normalisation, which Core ML does as it reads the image."""

    def __init__(self, graph: DeployGraph) -> None:
        super().__init__()
        self.core = graph.core
        self._upsample: Callable[[Tensor], Tensor] | None = (
            graph.upsample if graph.output == "classes" else None
        )
        own = graph.confidence
        self.confidence = None if own is None else Confidence(own.temperature, dtype=torch.int32)

    def forward(self, image_N3HW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return ids (N, H, W) or logits (N, K, h, w) for a normalised image."""
        logits_NKhw: Tensor = self.core(image_N3HW)
        if self._upsample is None:
            return logits_NKhw
        ids_NHW = self._upsample(logits_NKhw).argmax(dim=1)
        return ids_NHW if self.confidence is None else (ids_NHW, self.confidence(logits_NKhw))


def trace(graph: DeployGraph) -> ExportedProgram:
    """Export the graph with torch, its input a normalised image (1, 3, H, W).

    Raises:
        ConversionError: torch.export cannot follow the network's Python.
    """
    example_13HW = torch.zeros(1, 3, graph.height, graph.width)
    try:
        exported = torch.export.export(ImageGraph(graph).eval(), (example_13HW,))
        program: ExportedProgram = exported.run_decompositions({})
    except Exception as error:  # torch raises many kinds, whatever the network's code does
        reason = why_untraceable(graph.core, example_13HW, error)
        raise ConversionError(f"torch.export cannot trace the network: {reason}") from error
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.alias.default:  # slices that cut nothing off
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
        if node.target is torch.ops.aten.max_pool2d.default and len(node.args) == 2:
            node.args = (*node.args, node.args[1])  # the stride, which coremltools wants to see
    return program


def has_grouped_transpose(program: ExportedProgram) -> bool:
    """Return whether there is a transposed convolution with groups."""
    transposed = torch.ops.aten.conv_transpose2d.input
    groups = [node.args[6:7] for node in program.graph.nodes if node.target is transposed]
    return any(given and given[0] != 1 for given in groups)


def convert(traced: ExportedProgram, graph: DeployGraph) -> Any:
    """Convert to an ML program in fp16.

    Returns:
        A coremltools MLModel: input "image", output "classes" (int32) or "logits" (float32).

    Raises:
        ConversionError: an operation that Core ML lacks, with the module it came from.
    """
    messages = BufferingHandler(sys.maxsize)  # where an operation fails, only the log names it
    messages.setLevel(logging.ERROR)
    logger = logging.getLogger("coremltools")
    logger.addHandler(messages)
    try:
        return _convert(traced, graph)
    except Exception as error:  # converters of single operations raise anything
        traceback.clear_frames(error.__traceback__)  # they hold the converter's temporary folder
        said = (record.getMessage() for record in messages.buffer)
        found = _FAILED_STEP.findall(" ".join([*said, str(error)]))
        step = describe_step(traced, filter(None, chain.from_iterable(found)))
        raise ConversionError(f"Core ML cannot take {step}: {error}") from error
    finally:
        logger.removeHandler(messages)


def _convert(traced: ExportedProgram, graph: DeployGraph) -> Any:
    image = ct.ImageType(
        name="image",
        shape=(1, 3, graph.height, graph.width),
        scale=1 / graph.std,
        bias=[-graph.mean / graph.std] * 3,
        color_layout=ct.colorlayout.RGB,
    )
    types = ct.converters.mil.mil.types
    pipeline = ct.PassPipeline.DEFAULT
    if has_grouped_transpose(traced):
        pipeline.remove_passes(_MIX_UP_GROUPS)
    outputs: dict[str, Any] = {
        graph.output: types.int32 if graph.output == "classes" else types.fp32
    }
    if graph.confidence is not None:
        outputs["confidence"] = types.int32
    return ct.convert(
        traced,
        inputs=[image],
        outputs=[ct.TensorType(name=name, dtype=dtype) for name, dtype in outputs.items()],
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16,
        skip_model_load=True,
        pass_pipeline=pipeline,
    )


def compress(model: Any, precision: str, options: Options, keep_float: tuple[str, ...]) -> Any:
    """Return the model with its weights in another form.

    Args:
        model: an MLModel in fp16.
        precision: "fp16", "int8-weights" or "palettized".
        options: the palette's size.
        keep_float: layers that int8 leaves in fp16.
    """
    if precision == "fp16":
        return model
    if precision == "int8-weights":
        linear = cto.OpLinearQuantizerConfig(mode="linear_symmetric")
        kept: dict[str, None] = dict.fromkeys(keep_float)
        config = cto.OptimizationConfig(linear, op_name_configs=kept)
        return cto.linear_quantize_weights(model, config)
    if options.palette_bits not in PALETTE_BITS:
        raise ValueError(f"palette_bits is {options.palette_bits}; choose one of {PALETTE_BITS}")
    fit = partial(palettize, bits=options.palette_bits)
    palette = cto.OpPalettizerConfig(mode="custom", lut_function=fit)
    return cto.palettize_weights(model, cto.OptimizationConfig(palette))


def quantized_layers(program: Program) -> tuple[str, ...]:
    """Return the layers whose weights are int8, in the order of the graph."""
    packed = {
        o.results[0].name for o in program.operations if o.type == "constexpr_affine_dequantize"
    }
    return tuple(o.results[0].name for o in program.operations if packed & set(o.refs()))


def check_provable(program: Program, traced: ExportedProgram) -> None:
    """Raise ConversionError if the evaluator cannot run the program, naming modules."""
    steps = []
    for unknown in unknown_operations(program):
        # One step of torch becomes several operations; the last of them keeps its name.
        later = program.operations[program.operations.index(unknown) :]
        where = describe_step(traced, [operation.results[0].name for operation in later])
        steps.append(f"{unknown.type}, from {where}")
    if steps:
        raise ConversionError(
            "Core ML takes the network, but it cannot be evaluated without macOS for "
            f"{'; '.join(steps)}. Export on a Mac, or add the operation to mil_ops.py"
        )


def describe(model: Any, network: Network) -> None:
    """Write what Xcode shows, and draws its preview with, into a coremltools MLModel.

    Args:
        model: its output is "classes" or "logits".
        network: what it was made of.
    """
    info = network.info
    trained_on = f", trained on {info.trained_on}" if info.trained_on else ""
    model.short_description = (
        f"Semantic segmentation into {len(info.classes)} classes: {network.name} "
        f"({info.variant}), {info.width}x{info.height}{trained_on}"
    )
    licence = info.terms() or "no licence stated in the checkpoint"
    model.license = f"Weights: {describe_usage(info.usage)}. Data: {licence}"
    model.author, model.version = f"fastseg-edge {__version__}", network.sha256[:12]
    model.input_description["image"] = "RGB image; normalised inside the network"
    said = {
        "classes": f"class id of each pixel, (1, H, W), 0 to {len(info.classes) - 1}",
        "logits": "scores (1, K, h, w); upsample, then take the largest along K",
        "confidence": "how sure it is, (1, h, w), 0 to 255; upsample",
    }
    for entry in model.get_spec().description.output:
        model.output_description[entry.name] = said[entry.name]
    metadata = model.user_defined_metadata
    metadata[PREVIEW_TYPE] = "imageSegmenter"
    metadata[PREVIEW_PARAMS] = json.dumps(
        {
            "labels": [entry.name for entry in info.classes],
            "colors": ["#{:02X}{:02X}{:02X}".format(*entry.color) for entry in info.classes],
        }
    )
    metadata.pop(CONVERSION_DATE, None)  # the same network gives the same bytes tomorrow


def save(model: Any, package: Path) -> None:
    """Save an MLModel as an .mlpackage, byte for byte the same every time."""
    shutil.rmtree(package, ignore_errors=True)
    model.save(str(package))
    program = package / "Data/com.apple.CoreML/model.mlmodel"
    program.write_bytes(model.get_spec().SerializeToString(deterministic=True))
    program.chmod(0o644)
    _fix_identifiers(package / "Manifest.json")
    # A table for ExecuTorch's debugger that Core ML's manifest does not list.
    (package / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)


def _fix_identifiers(manifest: Path) -> None:
    table = json.loads(manifest.read_text(encoding="utf-8"))
    items, root = table["itemInfoEntries"], table["rootModelIdentifier"]
    new_ids = {old: str(uuid.uuid5(NAMESPACE, item["path"])) for old, item in items.items()}
    table["itemInfoEntries"] = {new_ids[old]: item for old, item in items.items()}
    table["rootModelIdentifier"] = new_ids[root]
    manifest.write_text(json.dumps(table, indent=4, sort_keys=True) + "\n", encoding="utf-8")
