import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fastseg_exporters.onnx import class_map as class_map_onnx
from fastseg_exporters.onnx.class_map import CellClassMap, class_map_for
from fastseg_exporters.onnx.to_onnx import float_graph, take_bytes, to_onnx
from fastseg_exporters.onnx.to_onnx_int8 import quantize, quantize_weights
from fastseg_runtime.arrays.metrics import Array
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fastseg import DeployGraph, FastSegNet
from fastseg.deploy import OutputKind

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


ROWS, COLUMNS = 5, 7  # of logits


def class_map_session(classes: int, factor: int) -> onnxruntime.InferenceSession:
    """Open a class map alone, logits in, that gives all that is computed on its way too."""
    shape = (classes, ROWS, COLUMNS)
    module = CellClassMap(factor, shape, ROWS * factor, COLUMNS * factor).eval()
    graph = DeployGraph(nn.Conv2d(3, classes, 1), COLUMNS * factor, ROWS * factor)
    model = to_onnx(module, torch.zeros(1, *shape), graph)
    known = {value.name for value in model.graph.output}
    names = (name for node in model.graph.node for name in node.output)
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    return onnxruntime.InferenceSession(model.SerializeToString(), None, ["CPUExecutionProvider"])


def run_class_map(session: onnxruntime.InferenceSession, logits_1Khw: Array) -> list[Array]:
    """Return the ids, then everything that was computed on the way."""
    results: list[Array] = session.run(None, {session.get_inputs()[0].name: logits_1Khw})
    return results


@pytest.mark.parametrize("cells_a_part", [5, 47, 48])  # of (5 + 1) * (7 + 1) cells
@pytest.mark.parametrize(("classes", "factor"), [(1, 2), (2, 3), (19, 8), (255, 2)])
def test_nothing_in_it_has_a_size_of_zero_whatever_the_logits_are(
    classes: int, factor: int, cells_a_part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    part_bytes = cells_a_part * 4 * classes * factor**2
    monkeypatch.setattr(class_map_onnx, "PART_BYTES", part_bytes)
    session = class_map_session(classes, factor)
    noise = np.random.default_rng(0).standard_normal((1, classes, ROWS, COLUMNS), np.float32)
    ramp_1Khw = np.zeros_like(noise) + np.arange(classes, dtype=np.float32)[:, None, None]
    with_nan, with_infinities = noise.copy(), noise.copy()
    with_nan[noise > 1] = np.nan
    with_infinities[noise > 1], with_infinities[noise < -1] = np.inf, -np.inf
    one_class = [np.zeros_like(noise), ramp_1Khw, -ramp_1Khw, np.full_like(noise, np.nan)]
    for logits_1Khw in (*one_class, noise, with_nan, with_infinities):
        ids_1HW, *on_the_way = run_class_map(session, logits_1Khw)
        assert min(result.size for result in on_the_way) > 0
        assert ids_1HW.max() < classes


@given(st.integers(0, ROWS * COLUMNS - 1), st.integers(0, 3), st.integers(0, 3))
def test_one_logit_of_another_class_is_found_wherever_it_lies(
    position: int, ground: int, other: int
) -> None:
    logits_1Khw = torch.zeros(1, 4, ROWS, COLUMNS)
    logits_1Khw[0, ground] = 1
    logits_1Khw[0, other].view(-1)[position] += 2.5
    graph = DeployGraph(nn.AvgPool2d(4), 4 * COLUMNS, 4 * ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_map_onnx, "PART_BYTES", 5 * 4 * 4 * 4**2)
        class_map = CellClassMap(4, (4, ROWS, COLUMNS), 4 * ROWS, 4 * COLUMNS)
        assert torch.equal(class_map(logits_1Khw), graph.class_map(logits_1Khw))


@pytest.mark.parametrize("second", [0.4, 0.6])
def test_a_class_that_wins_at_no_logit_is_found_where_it_wins_between_them(second: float) -> None:
    logits_1Khw = torch.tensor([[[1.0, 0.0]], [[second, second]], [[0.0, 1.0]]]).reshape(1, 3, 1, 2)
    graph = DeployGraph(nn.AvgPool2d(8), 16, 8)
    ids_1HW = CellClassMap(8, (3, 1, 2), 8, 16)(logits_1Khw)
    assert torch.equal(ids_1HW, graph.class_map(logits_1Khw))
    assert (1 in ids_1HW) == (second > 0.5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 8]), st.sampled_from([0.3, 1.0, 3.0]))
def test_borders_of_two_and_of_many_classes_are_right_side_by_side(
    seed: int, factor: int, smoothness: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    coarse = smoothness * torch.randn(1, 6, 3, 4, generator=generator)
    noise = torch.randn(1, 6, 9, 12, generator=generator)
    logits_1Khw = torch.nn.functional.interpolate(coarse, size=(9, 12), mode="bilinear") + noise
    graph = DeployGraph(nn.AvgPool2d(factor), 12 * factor, 9 * factor)
    ids_1HW = CellClassMap(factor, (6, 9, 12), 9 * factor, 12 * factor)(logits_1Khw)
    assert (ids_1HW == graph.class_map(logits_1Khw)).float().mean() > 0.999  # ties in rounding


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8-weights"])
@pytest.mark.parametrize(
    ("output", "mask_stride"), [("classes", 1), ("classes", 2), ("classes", 4), ("logits", 1)]
)
def test_outside_of_it_no_size_depends_on_the_picture(
    output: OutputKind, mask_stride: int, precision: str
) -> None:
    graph = DeployGraph(FastSegNet(3, "nano"), 100, 60, output=output, mask_stride=mask_stride)
    model = float_graph(graph.eval())
    if precision == "int8":
        images = [np.random.default_rng(0).integers(0, 256, (1, 60, 100, 3), np.uint8)]
        model = quantize(model, images, graph.mean, graph.std)
    elif precision == "int8-weights":
        model = quantize_weights(model)
    model = onnx.shape_inference.infer_shapes(take_bytes(model, graph), strict_mode=True)
    values = (*model.graph.value_info, *model.graph.output)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in values}
    outside = [node for node in model.graph.node if not node.name.startswith("/class_map")]
    for node in outside:
        for name in node.output:  # a size that depends on the picture has a name, and the value 0
            assert all(dim.dim_value > 0 for dim in shapes[name]), name


def test_a_network_whose_logits_have_the_images_size_keeps_the_plain_argmax() -> None:
    graph = DeployGraph(nn.Conv2d(3, 4, 3, padding=1), 64, 48).eval()
    logits = torch.randn(1, 4, 48, 64)
    assert torch.equal(class_map_for(graph)(logits), graph.class_map(logits))


@pytest.mark.figures
@pytest.mark.parametrize("variant", ["nano", "small", "base"])
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


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4, 8]), st.sampled_from([2, 3, 7]))
def test_among_equals_the_lowest_id_wins_as_numbers_without_rounding_have_it(
    seed: int, factor: int, classes: int
) -> None:
    shape, generator = (1, classes, 4, 5), torch.Generator().manual_seed(seed)
    logits_1Khw = torch.randint(0, 3, shape, generator=generator).float()  # full of equals
    module = CellClassMap(factor, (classes, 4, 5), 4 * factor, 5 * factor)
    # Of an even factor all weights are sums of powers of two: float64 holds every score exactly.
    scores_1KHW = torch.nn.functional.interpolate(
        logits_1Khw.double(), scale_factor=factor, mode="bilinear", align_corners=False
    )
    assert torch.equal(module(logits_1Khw).long(), scores_1KHW.argmax(1))
