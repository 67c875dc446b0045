"""Calibration images: where they come from, and that memory does not grow with their number."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from fastseg_exporters.convert.calibration import Calibration
from fastseg_exporters.onnx.to_onnx import float_graph
from fastseg_exporters.onnx.to_onnx_int8 import quantize
from fastseg_runtime.arrays.metrics import Array

from fastseg import DeployGraph, FastSegNet
from fastseg.data import DataError


def test_a_folder_of_images_is_spread_over_and_resized(tmp_path: Path) -> None:
    for index in range(10):
        grey = np.full((8, 12, 3), 20 * index, np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), grey)
    images = list(Calibration(str(tmp_path), 5).images(6, 4))
    assert [image.shape for image in images] == [(1, 4, 6, 3)] * 5
    assert [int(image[0, 0, 0, 0]) for image in images] == [0, 40, 80, 120, 160]


def test_colours_arrive_as_rgb(tmp_path: Path) -> None:
    red_in_bgr = np.zeros((8, 8, 3), np.uint8)
    red_in_bgr[..., 2] = 255
    assert cv2.imwrite(str(tmp_path / "red.png"), red_in_bgr)
    (image,) = Calibration(str(tmp_path), 1).images(8, 8)
    assert image[0, 4, 4].tolist() == [255, 0, 0]


def test_a_data_set_gives_its_training_split() -> None:
    spec = "synthetic:size=48x32,train=3,val=2,test=2"
    assert len(list(Calibration(spec, 64).images(48, 32))) == 3


def test_a_folder_without_images_and_a_broken_image_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        list(Calibration(str(tmp_path)).images(8, 8))
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken\.png is not an image"):
        list(Calibration(str(tmp_path)).images(8, 8))


def test_one_odd_image_does_not_cost_the_others_their_resolution() -> None:
    torch.manual_seed(0)
    model = float_graph(DeployGraph(FastSegNet(3, "nano"), 64, 32).eval())
    plain = np.full((1, 32, 64, 3), 132, np.uint8)
    odd = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (1, 32, 64, 3))
    alone, among_others = (
        scales(quantize(model, images, 128.0, 64.0)) for images in ([odd], [*[plain] * 7, odd])
    )
    assert among_others.keys() == alone.keys()
    ratios = [among_others[name] / alone[name] for name in alone]
    assert np.median(ratios) < 0.6


def scales(model: onnx.ModelProto) -> dict[str, float]:
    """Return the scale of every activation but the image's, which is pinned."""
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    names = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    found = {name: values[name] for name in names if values[name].size == 1}
    return {name: float(scale) for name, scale in found.items() if scale != np.float32(1 / 64)}


def test_int8_holds_one_image_at_a_time() -> None:
    torch.manual_seed(0)
    model = float_graph(DeployGraph(FastSegNet(3, "nano"), 64, 32).eval())
    alive: list[int] = []

    def images() -> Iterator[Array]:
        seen: list[weakref.ref[Array]] = []
        for index in range(12):
            image = np.full((1, 32, 64, 3), index, np.uint8)
            seen.append(weakref.ref(image))
            yield image
            del image
            alive.append(sum(reference() is not None for reference in seen))

    quantize(model, images(), 128.0, 64.0)
    assert len(alive) == 12
    assert max(alive) <= 1
