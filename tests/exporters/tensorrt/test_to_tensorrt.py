"""ONNX for TensorRT: what its parser asks for, and that the network is still the same one."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fastseg_exporters.convert.exporter import Conversion, Recipe, Request, load_exporter
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.onnx.to_onnx import to_onnx
from fastseg_exporters.onnx.to_onnx_int8 import convolutions
from fastseg_exporters.tensorrt.to_tensorrt import (
    MOST_COMPARED,
    export,
    fit_for_tensorrt,
    float_depthwise,
    quantize,
    tensorrt_onnx,
    to_half,
)
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.engines.backend_onnxruntime import describe
from fastseg_runtime.engines.tensorrt.builder import build_engine
from fastseg_runtime.engines.tensorrt.cuda import Cuda
from fastseg_runtime.engines.tensorrt.runner import TensorRTRunner
from fastseg_targets.target import load_target
from onnx import TensorProto, helper, numpy_helper

from fastseg import CheckpointInfo, DeployGraph, FastSegNet, Network
from fastseg.deploy import Confidence
from tests.doubles.cudart_double import FakeCudart, GpuArray
from tests.doubles.tensorrt_double import make_tensorrt, releases
from tests.doubles.tensorrt_graph_rules import find_violations

NO_RECORD = pytest.mark.skip(reason="FASTSEG_TENSORRT_API is not set")
WIDTH, HEIGHT, CLASSES = 128, 64, 5


def make_graph(variant: str = "nano", **options: Any) -> DeployGraph:
    """Return the deploy graph of a network whose weights are noise."""
    torch.manual_seed(0)
    return DeployGraph(FastSegNet(CLASSES, variant), WIDTH, HEIGHT, **options).eval()


def make_request(target: str, precision: str = "", images: str = "no images") -> Request:
    """Return what the command would ask of the exporter."""
    torch.manual_seed(0)
    classes = tuple(ClassInfo(f"class {index}", (index, 0, 0)) for index in range(CLASSES))
    info = CheckpointInfo("nano", classes, width=WIDTH, height=HEIGHT)
    network = Network(FastSegNet(CLASSES, "nano").eval(), info, "nano", "0" * 64)
    profile = load_target(target)
    recipe = Recipe(NetworkSource("nano"), Calibration(images, count=2))
    return Request(network, Conversion(recipe, profile, precision or profile.ladder[0]))


def make_images(count: int = 4) -> Iterator[Any]:
    """Yield smooth coloured noise, uint8 (1, H, W, 3)."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        coarse = rng.integers(0, 256, (1, HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        yield coarse.repeat(8, axis=1).repeat(8, axis=2)


def run(model: onnx.ModelProto, image_1HW3: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": image_1HW3})[0]


def agreement(one: onnx.ModelProto, other: onnx.ModelProto) -> float:
    same = [(run(one, image) == run(other, image)).mean() for image in make_images()]
    return float(np.mean(same))


@pytest.fixture(scope="module")
def plain() -> onnx.ModelProto:
    return to_onnx(make_graph(), torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8), make_graph())


@pytest.fixture(scope="module")
def fitted() -> onnx.ModelProto:
    return tensorrt_onnx(make_graph())


@pytest.fixture(scope="module")
def int8(fitted: onnx.ModelProto) -> onnx.ModelProto:
    return quantize(fitted, make_images(), mean=128, std=64)


def constants(model: onnx.ModelProto) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def input_quantizer(model: onnx.ModelProto) -> Any:
    """Return scale and zero point of the first convolution's input."""
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    makers = {name: node for node in model.graph.node for name in node.output}
    pair = makers[makers[first.input[0]].input[0]]
    table = constants(model)
    return table[pair.input[1]], table[pair.input[2]]


def test_the_parser_would_refuse_the_graph_as_torch_writes_it(plain: onnx.ModelProto) -> None:
    texts = [violation.text for violation in find_violations(plain, 8)]
    assert any("UINT8 must be cast from float" in text for text in texts)
    assert any("Resize scales must be an initializer" in text for text in texts)


@pytest.mark.parametrize("variant", ["nano", "small"])
def test_the_fitted_graph_is_one_that_every_release_parses(variant: str) -> None:
    model = tensorrt_onnx(make_graph(variant))
    for major in (8, 10, 11):
        assert find_violations(model, major) == []
        assert find_violations(to_half(model), major) == []


def test_the_graph_gives_the_classes_that_pytorch_gives(fitted: onnx.ModelProto) -> None:
    graph = make_graph()
    with torch.inference_mode():
        same = [
            (run(fitted, image) == graph(torch.from_numpy(image)).numpy()).mean()
            for image in make_images()
        ]
    assert min(same) > 0.999


def test_weights_behind_an_identity_become_initializers() -> None:
    """As torch writes equal biases: once, and Identity nodes for the others."""
    body = helper.make_graph(
        [
            helper.make_node("Cast", ["bytes"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Identity", ["bias"], ["bias_copy"]),
            helper.make_node("Conv", ["x", "weight", "bias_copy"], ["y"], "conv"),
        ],
        "g",
        [helper.make_tensor_value_info("bytes", TensorProto.UINT8, [1, 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 2, 2])],
        [
            numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "weight"),
            numpy_helper.from_array(np.ones(3, np.float32), "bias"),
        ],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (violation,) = find_violations(model, 8)
    assert "bias tensor is required to be an initializer" in violation.text
    fitted = fit_for_tensorrt(model)
    assert find_violations(fitted, 8) == []
    assert [value.name for value in fitted.graph.input] == ["image"]


def test_logits_go_through_as_well() -> None:
    model = tensorrt_onnx(make_graph(output="logits"))
    for graph in (model, to_half(model)):
        assert find_violations(graph, 8) == []
        assert run(graph, next(make_images())).dtype == np.float32


def test_a_newer_opset_is_refused_with_the_cause(plain: onnx.ModelProto) -> None:
    newer = onnx.ModelProto.FromString(plain.SerializeToString())
    newer.opset_import[0].version = 18
    with pytest.raises(ValueError, match="opset 18, TensorRT 8.6 reads 17.*dynamo=False"):
        fit_for_tensorrt(newer)


def test_the_typed_graph_is_half_as_large_and_gives_the_same_classes(
    fitted: onnx.ModelProto,
) -> None:
    half = to_half(fitted)
    assert half.ByteSize() < 0.6 * fitted.ByteSize()
    assert agreement(fitted, half) > 0.98
    kinds = {tensor.data_type for tensor in half.graph.initializer if tensor.name.endswith("bias")}
    assert kinds == {TensorProto.FLOAT16}


def test_the_typed_graph_has_no_float32_convolution(fitted: onnx.ModelProto) -> None:
    half = to_half(fitted)
    weights = constants(half)
    types = {weights[n.input[1]].dtype for n in half.graph.node if n.op_type == "Conv"}
    assert types == {np.dtype(np.float16)}


def test_means_over_whole_maps_are_summed_in_float32(fitted: onnx.ModelProto) -> None:
    half = onnx.shape_inference.infer_shapes(to_half(fitted))
    types = {value.name: value.type.tensor_type.elem_type for value in half.graph.value_info}
    means = [node for node in half.graph.node if node.op_type == "ReduceMean"]
    assert means
    assert {types[node.input[0]] for node in means} == {TensorProto.FLOAT}


def test_the_int8_graph_is_one_that_every_release_parses(int8: onnx.ModelProto) -> None:
    for major in (8, 10, 11):
        assert find_violations(int8, major) == []


def test_the_int8_input_holds_exactly_the_bytes_minus_128(int8: onnx.ModelProto) -> None:
    scale, zero_point = input_quantizer(int8)
    assert zero_point == 0
    bytes_minus_128 = np.arange(256) - 128
    assert ((bytes_minus_128 / 64).astype(np.float32) / scale == bytes_minus_128).all()


def test_weights_have_a_scale_per_output_channel_and_biases_none(int8: onnx.ModelProto) -> None:
    makers = {name: node for node in int8.graph.node for name in node.output}
    table = constants(int8)
    quantized = 0
    for node in (node for node in int8.graph.node if node.op_type == "Conv"):
        assert node.input[2] in table  # the bias: float, as it is
        weight = makers.get(node.input[1])
        if weight is not None:
            pair = makers[weight.input[0]]
            assert (weight.op_type, pair.op_type) == ("DequantizeLinear", "QuantizeLinear")
            assert table[pair.input[1]].shape == table[pair.input[0]].shape[:1]
            quantized += 1
    assert quantized > 20


def test_a_residual_and_its_block_read_the_same_quantized_map() -> None:
    model = tensorrt_onnx(make_graph("small"))
    int8 = quantize(model, make_images(1), mean=128, std=64)
    makers = {name: node.op_type for node in int8.graph.node for name in node.output}
    additions = [
        sorted(makers[name] for name in node.input)
        for node in int8.graph.node
        if node.op_type == "Add" and "stage" in node.name
    ]
    assert additions and set(map(tuple, additions)) == {("Conv", "DequantizeLinear")}


def test_gates_on_pooled_vectors_stay_in_float(int8: onnx.ModelProto) -> None:
    makers = {name: node.op_type for node in int8.graph.node for name in node.output}
    gates = [n for n in int8.graph.node if n.op_type == "Conv" and "gate/weigh" in n.name]
    assert len(gates) == 3
    assert {makers.get(node.input[1], "constant") for node in gates} == {"constant"}


def test_int8_gives_nearly_the_same_classes(fitted: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    assert agreement(fitted, int8) > 0.9


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("release", releases() or [pytest.param("", marks=NO_RECORD)])
def test_every_release_builds_an_engine_that_takes_the_precision(
    release: str, precision: str, fitted: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    cudart = FakeCudart()
    trt = make_tensorrt(release, cudart)
    typed = to_half(fitted) if release.startswith("11") else fitted
    model = int8 if precision == "int8" else typed
    built = build_engine(trt, Cuda(cudart), model.SerializeToString(), precision)
    counts = built.record["audit"]["counts"]
    assert counts[precision] >= 0.9 * sum(counts.values())
    runner = TensorRTRunner(trt, Cuda(cudart), built.plan)
    image = next(make_images())
    assert (runner.infer(image) == run(model, image)).all()


@pytest.mark.parametrize("release", releases() or [pytest.param("", marks=NO_RECORD)])
def test_every_release_gives_a_confidence_beside_the_ids_in_host_memory(release: str) -> None:
    graph = make_graph()
    graph.confidence = Confidence(temperature=0.5)
    model = tensorrt_onnx(graph)
    assert find_violations(model, int(release.partition(".")[0])) == []
    cudart = FakeCudart()
    cuda, trt = Cuda(cudart), make_tensorrt(release, cudart)
    runner = TensorRTRunner(trt, cuda, build_engine(trt, cuda, _bytes(model), "fp32").plan)
    (image,) = make_images(1)
    ids, confidence = runner.infer(image)
    with torch.inference_mode():
        expected_ids, expected = graph(torch.from_numpy(image))
    assert (ids == expected_ids.numpy()).mean() > 0.999
    assert np.abs(confidence.astype(int) - expected.numpy()).max() <= 1
    out = GpuArray(cuda, ids.shape, np.dtype(np.uint8))
    same, again = runner.infer(image, out)
    assert same is out and (again == confidence).all()
    runner.close()
    assert cudart.crashes == []


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString())


def test_a_named_convolution_is_left_in_float(fitted: onnx.ModelProto) -> None:
    last = [node.name for node in fitted.graph.node if node.op_type == "Conv"][-1]
    int8 = quantize(fitted, make_images(1), mean=128, std=64, keep_float=[last])
    node = next(node for node in int8.graph.node if node.name == last)
    assert node.input[1] in constants(int8)


def test_an_unknown_name_is_refused_with_the_choices(fitted: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match=r"no convolutions \['nothing'\].*there are \('/core"):
        quantize(fitted, make_images(1), mean=128, std=64, keep_float=["nothing"])


def test_another_normalisation_is_calibrated_instead_of_pinned() -> None:
    model = tensorrt_onnx(make_graph(mean=100.0, std=50.0))
    int8 = quantize(model, make_images(), mean=100.0, std=50.0)
    scale, _ = input_quantizer(int8)
    assert float(scale) == pytest.approx(155 / 50 / 127, rel=0.05)
    assert find_violations(int8, 8) == []


def test_quantizing_twice_gives_the_same_bytes(fitted: onnx.ModelProto) -> None:
    one, other = (quantize(fitted, make_images(2), mean=128, std=64) for _ in range(2))
    assert one.SerializeToString() == other.SerializeToString()


def test_fp16_ships_a_plain_and_a_typed_graph(tmp_path: Path) -> None:
    artifact = export(make_request("jetson-fp16"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model-typed.onnx", "model.onnx"]
    assert artifact.entry == "model.onnx"
    assert artifact.io == {"image": "uint8 NHWC", "classes": "uint8"}
    assert artifact.requires == {"backend": "tensorrt", "min_version": "8.5"}
    for path in tmp_path.iterdir():
        assert find_violations(onnx.load(path), 8) == []
        assert describe(path).classes == make_request("jetson-fp16").network.info.classes


def grouped_inputs(model: onnx.ModelProto) -> set[str]:
    """Return the kinds of nodes that grouped convolutions take image and weights from."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    grouped = [
        node
        for node in model.graph.node
        if any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    ]
    assert len(grouped) == 10
    return {makers.get(name, "constant") for node in grouped for name in node.input[:2]}


def test_depthwise_convolutions_alone_go_back_to_float(int8: onnx.ModelProto) -> None:
    rung = float_depthwise(int8)
    assert rung is not None
    assert grouped_inputs(int8) == {"DequantizeLinear"}
    assert "DequantizeLinear" not in grouped_inputs(rung)
    quantized = [
        {
            node.name
            for node in model.graph.node
            if node.op_type == "Conv" and node.input[1] not in constants(model)
        }
        for model in (int8, rung)
    ]
    assert len(quantized[0] - quantized[1]) == 10 and quantized[1] < quantized[0]
    read = {name for node in rung.graph.node for name in node.input}
    assert {name for node in rung.graph.node for name in node.output} - read == {"classes"}
    assert find_violations(rung, 8) == [] and find_violations(to_half(rung), 11) == []
    assert agreement(int8, rung) > 0.95


def test_a_graph_without_depthwise_convolutions_or_with_little_else_has_no_rung(
    fitted: onnx.ModelProto,
) -> None:
    assert float_depthwise(fitted) is None  # none is int8
    dense = [
        node.name
        for node in fitted.graph.node
        if node.op_type == "Conv" and not any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]
    few = [name for name in dense if name in convolutions(fitted)][:12]
    assert float_depthwise(quantize(fitted, make_images(1), 128, 64, keep_float=few)) is None


def test_int8_ships_a_plain_and_a_typed_graph_and_names_its_layers(tmp_path: Path) -> None:
    images, out_dir = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    out_dir.mkdir()
    for index, image in enumerate(make_images(2)):
        cv2.imwrite(str(images / f"{index}.png"), image[0])
    request = make_request("jetson-int8", images=str(images))
    artifact = export(request, out_dir)
    assert sorted(path.name for path in out_dir.iterdir()) == [
        "model-float-depthwise-typed.onnx",
        "model-float-depthwise.onnx",
        "model-typed.onnx",
        "model.onnx",
    ]
    assert {artifact.entry, *artifact.alternatives} == {path.name for path in out_dir.iterdir()}
    for name in ("model-typed.onnx", "model-float-depthwise-typed.onnx"):
        assert find_violations(onnx.load(out_dir / name), 11) == []
    model = onnx.load(out_dir / "model.onnx")
    assert find_violations(model, 8) == []
    assert set(artifact.layers) < {node.name for node in model.graph.node}
    kept = artifact.layers[-1]
    conversion = dataclasses.replace(request.conversion, keep_float=(kept,))
    again = export(dataclasses.replace(request, conversion=conversion), out_dir)
    assert again.layers == artifact.layers[:-1]


def test_other_precisions_are_refused(tmp_path: Path) -> None:
    request = make_request("jetson-fp16", "palettized")
    with pytest.raises(ValueError, match=r"makes \('fp32', 'fp16', 'int8'\), not palettized"):
        load_exporter("tensorrt")(request, tmp_path)


def test_exporting_twice_gives_the_same_files(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        export(make_request("jetson-fp16"), tmp_path / name)
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1]


def small_graph(nodes: list[Any], shape: list[int], **constants: Any) -> onnx.ModelProto:
    """Return bytes (1, 4, 6, K) as scores, through nodes from "scores" to uint8 "classes"."""
    image = helper.make_tensor_value_info("bytes", TensorProto.UINT8, [1, 4, 6, CLASSES])
    classes = helper.make_tensor_value_info("classes", TensorProto.UINT8, shape)
    head = [
        helper.make_node("Cast", ["bytes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["scores"], perm=[0, 3, 1, 2]),
    ]
    tensors = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    graph = helper.make_graph([*head, *nodes], "small", [image], [classes], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run_bytes(model: onnx.ModelProto, bytes_1HWK: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: bytes_1HWK})[0]


AN_IMAGE = np.random.default_rng(0).integers(0, 4, (1, 4, 6, CLASSES), np.uint8)
ARGMAX = [
    helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=0),
    helper.make_node("Cast", ["ids"], ["classes"], to=TensorProto.UINT8),
]


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "kept"),
    [
        ([0], [3], [2], [3, 6]),
        ([1, 0], [2**62, -1], [2, 3], [3, 5]),
        ([-3, -9], [4, 9], [-2, -1], [3, 6]),
        ([0, 0], [4, 6], [2, 3], [4, 6]),  # cuts nothing
    ],
)
def test_no_bounds_of_a_slice_are_left_to_compute_in_the_network(
    starts: list[int], ends: list[int], axes: list[int], kept: list[int]
) -> None:
    """NVIDIA's parser makes 26 layers of int64 arithmetic of a slice of two axes."""
    cut = helper.make_node("Slice", ["scores", "starts", "ends", "axes"], ["cut"])
    argmax = helper.make_node("ArgMax", ["cut"], ["ids"], axis=1, keepdims=0)
    bounds = {"starts": starts, "ends": ends, "axes": axes}
    model = small_graph([cut, argmax, ARGMAX[1]], [1, *kept], **bounds)
    fitted = fit_for_tensorrt(model)
    types = {tensor.name: tensor.data_type for tensor in fitted.graph.initializer}
    slices = [node for node in fitted.graph.node if node.op_type == "Slice"]
    assert len(slices) == (kept != [4, 6])
    assert all(types[name] == TensorProto.INT32 for node in slices for name in node.input[1:])
    assert TensorProto.INT64 not in types.values()
    np.testing.assert_array_equal(run_bytes(fitted, AN_IMAGE), run_bytes(model, AN_IMAGE))


def test_a_slice_of_what_has_no_known_rank_stays_as_it_is() -> None:
    steps = {"then": ("Identity", ["scores"]), "else": ("Unsqueeze", ["scores", "from"])}
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(*step, [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        )
        for name, step in steps.items()
    }
    condition = helper.make_node("Greater", ["sum", "zero"], ["is_bright"])
    total = helper.make_node("ReduceSum", ["scores"], ["sum"], keepdims=0)
    either = helper.make_node("If", ["is_bright"], ["either"], **branches)
    cut = helper.make_node("Slice", ["either", "from", "to", "axes"], ["part"])
    same = helper.make_node("Identity", ["part"], ["kept"])
    ids = helper.make_node("ArgMax", ["kept"], ["ids"], axis=1, keepdims=0)
    last = helper.make_node("Cast", ["ids"], ["classes"], to=TensorProto.UINT8)
    bounds = {"from": [0], "to": [2], "axes": [2], "zero": np.float32(0)}
    model = small_graph([total, condition, either, cut, same, ids, last], [1, 2, 6], **bounds)
    assert (run_bytes(fit_for_tensorrt(model), AN_IMAGE) == run_bytes(model, AN_IMAGE)).all()


def test_a_slice_that_runs_backwards_stays_as_it_is() -> None:
    bounds = {"starts": [5], "ends": [-7], "axes": [3], "steps": [-1]}
    cut = helper.make_node("Slice", ["scores", *bounds], ["cut"])
    argmax = helper.make_node("ArgMax", ["cut"], ["ids"], axis=1, keepdims=0)
    model = small_graph([cut, argmax, ARGMAX[1]], [1, 4, 6], **bounds)
    fitted = fit_for_tensorrt(model)
    assert [n.input[1] for n in fitted.graph.node if n.op_type == "Slice"] == ["starts"]
    np.testing.assert_array_equal(run_bytes(fitted, AN_IMAGE), run_bytes(model, AN_IMAGE))


def test_typed_classes_are_compared_and_the_lowest_of_equal_ones_wins() -> None:
    """Four values for five classes: in most pixels two classes are equal."""
    fitted = fit_for_tensorrt(small_graph(ARGMAX, [1, 4, 6]))
    typed = to_half(fitted)
    operators = [node.op_type for node in typed.graph.node]
    assert "ArgMax" in [node.op_type for node in fitted.graph.node]
    assert "ArgMax" not in operators and operators.count("Greater") == CLASSES - 1
    ids_1HW = run_bytes(typed, AN_IMAGE)
    np.testing.assert_array_equal(ids_1HW, AN_IMAGE.argmax(axis=3))
    assert ids_1HW.dtype == np.uint8
    assert find_violations(typed, 11) == []


@pytest.mark.parametrize("count", [MOST_COMPARED, MOST_COMPARED + 1])
def test_more_classes_than_can_be_compared_in_turn_keep_their_argmax(count: int) -> None:
    torch.manual_seed(0)
    graph = DeployGraph(FastSegNet(count, "nano"), WIDTH, HEIGHT).eval()
    typed = to_half(tensorrt_onnx(graph))
    has_argmax = any(node.op_type == "ArgMax" for node in typed.graph.node)
    assert has_argmax == (count > MOST_COMPARED)


def test_int8_that_is_typed_leaves_nothing_in_float32_but_means_and_gives_the_same() -> None:
    graph = make_graph()
    model = quantize(tensorrt_onnx(graph), make_images(), graph.mean, graph.std)
    typed = to_half(model)
    assert find_violations(typed, 11) == []
    inferred = onnx.shape_inference.infer_shapes(typed, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    in_float = {node.op_type for node in typed.graph.node
                if types.get(node.output[0]) == TensorProto.FLOAT}  # fmt: skip
    assert in_float <= {"ReduceMean", "Cast"}
    image_1HW3 = next(make_images())
    same = run_bytes(model, image_1HW3) == run_bytes(typed, image_1HW3)
    assert same.mean() > 0.98
