import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from fastseg_exporters.class_map_onnx import CellClassMap, class_map_for
from fastseg_exporters.to_onnx import float_graph, take_bytes
from torch import nn

from fastseg import DeployGraph, FastSegNet

MAX_SHARE = 0.10  # of the graph's time
RUNS = 6


@pytest.mark.parametrize("size", [(96, 64), (100, 60), (480, 360)])
@pytest.mark.parametrize("mask_stride", [1, 2, 4])
def test_its_ids_are_those_of_the_deploy_graph(size: tuple[int, int], mask_stride: int) -> None:
    torch.manual_seed(0)
    graph = DeployGraph(FastSegNet(6, "nano"), *size, mask_stride=mask_stride).eval()
    rows, columns = -(-size[1] // 8), -(-size[0] // 8)
    logits = torch.randn(1, 6, rows, columns)
    class_map = class_map_for(graph)
    assert isinstance(class_map, CellClassMap)
    same = (class_map(logits) == graph.class_map(logits)).float().mean()
    assert same > 0.9999  # sums in another order may decide a tie otherwise


@pytest.mark.parametrize("scene", ["one class", "halves", "noise"])
def test_onnx_runtime_gives_the_same_ids_for_any_share_of_mixed_cells(scene: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 19, 1))
    graph = DeployGraph(network, 128, 96).eval()
    model = take_bytes(float_graph(graph), graph).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    image_1HW3 = np.full((1, 96, 128, 3), 200, np.uint8)
    if scene == "halves":
        image_1HW3[:, :, 60:] = (0, 90, 10)
    elif scene == "noise":
        image_1HW3 = np.random.default_rng(0).integers(0, 256, image_1HW3.shape, np.uint8)
    (ids_1HW,) = session.run(None, {"image": image_1HW3})
    expected_1HW = graph(torch.from_numpy(image_1HW3)).numpy()
    assert len(np.unique(expected_1HW)) >= {"one class": 1, "halves": 2, "noise": 3}[scene]
    assert (ids_1HW == expected_1HW).mean() > 0.9999


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_odd_factors_are_right_too(factor: int) -> None:
    torch.manual_seed(factor)
    network = nn.Sequential(nn.AvgPool2d(factor), nn.Conv2d(3, 4, 1))
    graph = DeployGraph(network, 8 * factor, 6 * factor).eval()
    logits = torch.randn(1, 4, 6, 8)
    assert torch.equal(class_map_for(graph)(logits), graph.class_map(logits))


def test_a_network_whose_logits_have_the_images_size_keeps_the_plain_argmax() -> None:
    graph = DeployGraph(nn.Conv2d(3, 4, 3, padding=1), 64, 48).eval()
    logits = torch.randn(1, 4, 48, 64)
    assert torch.equal(class_map_for(graph)(logits), graph.class_map(logits))


@pytest.mark.figures
@pytest.mark.parametrize("variant", ["small", "base"])
@pytest.mark.parametrize("classes", [11, 19])
def test_it_takes_at_most_10_percent_of_the_graph(
    variant: str, classes: int, tmp_path: Path
) -> None:
    graph = DeployGraph(FastSegNet(classes, variant), 1024, 512).eval()
    times_us = node_times_us(take_bytes(float_graph(graph), graph).SerializeToString(), tmp_path)
    tail_us = sum(time for name, time in times_us.items() if name.startswith("/class_map"))
    share = tail_us / sum(times_us.values())
    print(f"{variant}, {classes} classes, 1024x512: {tail_us / 1e3:.1f} ms, {share:.1%}")
    assert share <= MAX_SHARE


def node_times_us(model: bytes, folder: Path) -> dict[str, int]:
    """Return the least time of each node in several runs, by ONNX Runtime's own profiler."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 256, (1, 512, 1024, 3), np.uint8)
    for _ in range(RUNS):
        session.run(None, {"image": image})
    times_us: dict[str, list[int]] = defaultdict(list)
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times_us[event["name"]].append(event["dur"])
    return {name: min(times) for name, times in times_us.items()}
