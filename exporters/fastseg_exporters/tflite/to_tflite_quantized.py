"""TFLite with smaller numbers: weights in half precision, or weights and activations in int8.

The int8 input has scale 1 / std and zero point mean - 128: it holds the camera's bytes minus 128
exactly. All other ranges come from calibration images that run through the float file.
"""

import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from fastseg_runtime.arrays.metrics import Array

from fastseg import DeployGraph
from fastseg_exporters.tflite.to_tflite_graph import input_tensor, take_argmax_of_int8

try:
    from ai_edge_quantizer import quantizer, recipe, recipe_manager
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.qtyping import QSV, TFLOperationName
    from ai_edge_quantizer.utils.qsv_utils import min_max_update
except ImportError as error:
    raise ImportError(
        "exporting to TFLite needs ai-edge-quantizer: pip install 'fastseg-edge[tflite]'"
    ) from error

INPUT = "image"  # as in to_tflite
OWN_PICTURE = "core.enter:"  # the image in the network's own normalisation


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
        model: from to_tflite.convert(takes_bytes=False).
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
    for layer in keep_float:
        exactly = f"^{re.escape(layer)};?$"
        manager.add_quantization_config(exactly, TFLOperationName.ALL_SUPPORTED, algorithm_key=none)
    return manager.get_quantization_recipe()


def calibrate(model: bytes, int8: Any, images: Iterable[Array]) -> dict[str, QSV]:
    """Return the smallest and largest value of each tensor over all images.

    Args:
        model: a float32 file.
        int8: the recipe to find ranges for.
        images: normalised (1, H, W, 3); one in memory at a time.

    Raises:
        ValueError: no image.
    """
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(int8)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    calibrator = Calibrator(model, num_threads=threads, qsv_update_func=min_max_update)
    (signature,) = calibrator.get_signature_list()
    for image_1HW3 in images:
        sample = {INPUT: image_1HW3.astype(np.float32)}
        calibrator.calibrate({signature: [sample]}, manager)
    ranges: dict[str, QSV] = calibrator.get_model_qsvs()
    if not ranges:
        raise ValueError("no image to calibrate int8 on")
    return ranges


def _apply(model: bytes, instructions: Any, ranges: dict[str, QSV] | None) -> bytes:
    made = quantizer.Quantizer(model, instructions).quantize(ranges, enable_progress_report=False)
    return bytes(made.quantized_model)
