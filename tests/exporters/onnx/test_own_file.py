"""An engineer's own ONNX file, held against that very file in ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fastseg_exporters.convert.exporter import (
    Conversion,
    Recipe,
    Request,
    find_exporter,
    load_exporter,
)
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.onnx import to_onnx
from fastseg_exporters.openvino import to_openvino
from fastseg_exporters.tensorrt import to_tensorrt
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import METADATA_KEY, numbered_classes
from fastseg_runtime.bundle.reader import BundleError
from fastseg_runtime.engines.backend_pytorch import manifest_of
from fastseg_runtime.engines.engine import ENGINES
from fastseg_targets.target import load_target
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from fastseg import CheckpointError, open_network
from fastseg.data import open_dataset
from fastseg.normalization import NAMED, parse_normalization
from tests.doubles.own_onnx import (
    CLASSES,
    FIRST,
    FULL,
    HEIGHT,
    IDS,
    INT64,
    LAST,
    WIDTH,
    ending,
    own_answer,
    own_onnx,
    own_result,
    to_size,
)

FLOAT16, DOUBLE = onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE
BOOL, UINT8 = onnx.TensorProto.BOOL, onnx.TensorProto.UINT8
EXPORTS = {"onnx": to_onnx.export, "openvino": to_openvino.export, "tensorrt": to_tensorrt.export}


def picture() -> Array:
    return np.ascontiguousarray(open_dataset(f"synthetic:{WIDTH}x{HEIGHT}", "test")[0].image_HW3)


def export(
    path: Path, out: Path, target: str = "cpu-fp32", precision: str = "fp32", **said: Any
) -> Path:
    output = said.pop("kind", "classes")
    classes = numbered_classes(2 if said.pop("one", False) else CLASSES)
    source = NetworkSource(str(path), classes, **said)
    wanted = load_target(target)
    recipe = Recipe(source, Calibration(count=2), output)
    out.mkdir()
    made = EXPORTS[wanted.exporter](
        Request(source.open(), Conversion(recipe, wanted, precision)), out
    )
    return out / (made.entry, *made.alternatives)[-1]


def ids_of(model: Path, image_HW3: Array) -> Array:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (ids,) = session.run(None, {"image": image_HW3[None]})
    assert ids.dtype == np.uint8 and ids.shape == (1, HEIGHT, WIDTH)
    return ids[0]


def check(model: onnx.ModelProto, folder: Path, layout: str = "NCHW", **said: Any) -> None:
    """Export, and hold the graph against the file itself."""
    path = folder / "net.onnx"
    onnx.save(model, path)
    image = model.graph.input[0].type.tensor_type.elem_type
    if image == onnx.TensorProto.FLOAT:
        said.setdefault("normalization", NAMED["imagenet"])
    made = export(path, folder / "out", **said)
    color = said["normalization"].color if "normalization" in said else "rgb"
    expected = own_answer(path, picture(), layout, color)
    assert len(np.unique(expected)) > 1
    assert (ids_of(made, picture()) == expected).mean() >= 0.999


@pytest.mark.slow  # 48 networks
@pytest.mark.parametrize("output", ["logits", "one", "int64"])
@pytest.mark.parametrize("picture_type", ["float", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("opset", [11, 13, 17, 22])
def test_a_file_of_any_kind_becomes_a_graph_of_bytes_and_ids_with_its_own_answer(
    tmp_path: Path, opset: int, layout: str, picture_type: str, output: str
) -> None:
    model = own_onnx(opset, layout, picture_type, output, seed=opset)
    check(model, tmp_path, layout, one=output == "one")


@pytest.mark.parametrize(
    "kind",
    [
        {"opset": 11},
        {"opset": 22, "layout": "NHWC", "picture": "uint8", "output": "uint8"},
        {"output": "int32"},
        {"output": "uint16"},
        {"output": "uint64"},
        {"output": "one", "picture": "uint8"},
    ],
)
def test_a_file_becomes_a_graph_with_its_own_answer(tmp_path: Path, kind: dict[str, Any]) -> None:
    check(own_onnx(**kind), tmp_path, kind.get("layout", "NCHW"), one=kind.get("output") == "one")


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        (ending(("Cast", {"to": FLOAT16}), kind=FLOAT16), "NCHW"),
        (ending(("Cast", {"to": FLOAT16}), kind=FLOAT16, output="one"), "NCHW"),
        (ending(("Cast", {"to": DOUBLE}), kind=DOUBLE), "NCHW"),
        (ending(FIRST, FULL, IDS, LAST, kind=INT64, layout="NHWC"), "NHWC"),
    ],
)
def test_scores_of_another_type_and_ids_with_an_axis_behind_them_are_read(
    tmp_path: Path, model: onnx.ModelProto, layout: str
) -> None:
    check(model, tmp_path, layout, one=model.graph.initializer[1].dims[0] == 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ending(FULL, IDS, ("Cast", {"to": 1})), "whole numbers as floats, such as class ids"),
        (ending(to_size(30, 30), IDS, kind=INT64), "one position for every s x s pixels of 64x48"),
        (ending(FULL, IDS, ("Sub", {}, np.array(1)), kind=INT64), "class id -1, 4 classes"),
    ],
)
def test_what_is_no_score_of_each_pixel_is_refused_in_one_line(
    tmp_path: Path, model: onnx.ModelProto, message: str
) -> None:
    onnx.save(model, tmp_path / "net.onnx")
    floats = model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    classes = numbered_classes(2 if floats else CLASSES)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_network(tmp_path / "net.onnx", classes, normalization=NAMED["imagenet"]).check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nodes", [[], [FIRST, FULL, LAST]])
def test_classes_behind_the_pixels_are_counted_without_being_named(
    tmp_path: Path, nodes: list[Any]
) -> None:
    onnx.save(ending(*nodes, layout="NHWC"), tmp_path / "net.onnx")
    network = open_network(tmp_path / "net.onnx", normalization=NAMED["imagenet"])
    assert len(network.info.classes) == CLASSES and network.check() == []


def test_ids_are_not_called_probabilities(tmp_path: Path) -> None:
    onnx.save(own_onnx(output="int64"), tmp_path / "net.onnx")
    classes = numbered_classes(CLASSES)
    network = open_network(tmp_path / "net.onnx", classes, normalization=NAMED["imagenet"])
    assert network.check() == []


@pytest.mark.parametrize("kind", [BOOL, UINT8])
def test_ids_come_out_as_a_cast_inside_of_the_file_leaves_them(tmp_path: Path, kind: int) -> None:
    ids = ("ArgMax", {"axis": 1, "keepdims": 0})
    check(ending(FULL, ids, ("Cast", {"to": kind}), ("Cast", {"to": INT64}), kind=INT64), tmp_path)


def test_colours_in_another_order_stay_the_files_own(tmp_path: Path) -> None:
    check(own_onnx(), tmp_path, normalization=parse_normalization("imagenet", "bgr"))


def test_a_file_for_any_size_runs_at_the_size_that_is_named(tmp_path: Path) -> None:
    open_size = own_onnx(size=("height", "width"), batch="batch")
    check(open_size, tmp_path, size=(WIDTH, HEIGHT))
    with pytest.raises(CheckpointError, match="pictures of any size; say which with --size WxH"):
        open_network(tmp_path / "net.onnx", normalization=NAMED["imagenet"])


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("output", ["logits", "uint8"])
def test_a_newer_opset_and_bytes_become_what_tensorrt_parses(
    tmp_path: Path, output: str, precision: str
) -> None:
    onnx.save(own_onnx(22, "NHWC", "uint8", output), tmp_path / "net.onnx")
    made = export(tmp_path / "net.onnx", tmp_path / "out", f"jetson-{precision}", precision)
    model = onnx.load(made)
    opset = 19 if precision == "int8" else 17  # typed int8 has scales in half precision
    assert [entry.version for entry in model.opset_import if not entry.domain] == [opset]
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    to_bytes = [n for n in casts if n.attribute[0].i == onnx.TensorProto.UINT8]
    assert [node.output[0] for node in to_bytes] == ["classes"]  # bytes only at the ends
    expected = own_answer(tmp_path / "net.onnx", picture(), "NHWC")
    limit = 0.999 if precision == "fp16" else 0.9
    assert (ids_of(made, picture()) == expected).mean() >= limit


def with_a_branch() -> onnx.ModelProto:
    """Return a file that branches by its picture, and reads a convolution's result inside."""
    model, made = own_onnx(), onnx.helper.make_node
    name = model.graph.output[0].name
    branches = {
        f"{kind}_branch": onnx.helper.make_graph(
            [made(step, [name], [kind])],
            kind,
            [],
            [onnx.helper.make_tensor_value_info(kind, onnx.TensorProto.FLOAT, None)],
        )
        for kind, step in (("then", "Neg"), ("else", "Identity"))
    }
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(9), "dark"))
    model.graph.node.extend(
        [
            made("ReduceMean", ["image"], ["light"], keepdims=0),
            made("Greater", ["light", "dark"], ["is_bright"]),
            made("If", ["is_bright"], ["last"], **branches),
        ]
    )
    model.graph.output[0].name = "last"
    return model


@pytest.mark.parametrize("target", ["cpu-fp32", "cpu-int8"])
def test_a_file_that_branches_is_taken(tmp_path: Path, target: str) -> None:
    onnx.save(with_a_branch(), path := tmp_path / "own.onnx")
    precision = target.rpartition("-")[2]
    made = export(path, tmp_path / "made", target, precision, normalization=NAMED["imagenet"])
    image_HW3 = picture()
    assert (ids_of(made, image_HW3) == own_answer(path, image_HW3)).mean() > 0.9


def test_a_file_gets_the_ir_version_of_its_opset_whatever_its_tool_wrote(tmp_path: Path) -> None:
    model = own_onnx()
    model.ir_version = 10  # which ONNX Runtime 1.17 does not read
    # As ONNX Runtime's optimiser imports what no node uses.
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 5))
    onnx.save(model, path := tmp_path / "own.onnx")
    made = export(path, tmp_path / "made", normalization=NAMED["imagenet"])
    assert onnx.load(made).ir_version == 8
    assert [entry.domain for entry in onnx.load(made).opset_import] == [""]


@pytest.mark.parametrize(
    ("node", "opset", "needed"),
    [
        (("Gelu", {}), 20, None),  # the oldest that is promised has it
        (("RMSNormalization", {"axis": -1}, np.ones(WIDTH // 4, np.float32)), 23, "1.23"),
    ],
)
@pytest.mark.parametrize("target", ["cpu-fp32", "intel-bf16"])
def test_a_newer_opset_that_is_kept_asks_for_an_onnx_runtime_that_reads_it(
    tmp_path: Path, node: Any, opset: int, needed: str | None, target: str
) -> None:
    onnx.save(ending(node, opset=opset), path := tmp_path / "own.onnx")
    wanted = load_target(target)
    source = NetworkSource(str(path), numbered_classes(CLASSES), normalization=NAMED["imagenet"])
    conversion = Conversion(Recipe(source), wanted, "fp32")
    made = load_exporter(wanted.exporter)(Request(source.open(), conversion), tmp_path)
    assert to_onnx.opset_of(onnx.load(tmp_path / made.entry)) == opset
    assert made.requires.get("min_onnxruntime") == needed
    assert made.requires["min_version"] == ENGINES[made.requires["backend"]].min_version


def gelu() -> onnx.ModelProto:
    """Return a file as ONNX Runtime's optimiser leaves it: its own operator before a Resize."""
    model = ending(("Gelu", {"domain": "com.microsoft"}), FULL)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.parametrize("target", ["jetson-fp16", "jetson-int8"])
def test_an_operator_of_onnx_runtime_alone_is_refused_by_name_for_tensorrt(
    tmp_path: Path, target: str
) -> None:
    onnx.save(gelu(), path := tmp_path / "own.onnx")
    with pytest.raises(ValueError, match=r"com.microsoft::Gelu .*without ONNX Runtime's optimiser"):
        export(path, tmp_path / "made", target, normalization=NAMED["imagenet"])


def test_an_operator_of_onnx_runtime_alone_is_taken_for_it(tmp_path: Path) -> None:
    check(gelu(), tmp_path)


def with_plain_numbers() -> onnx.ModelProto:
    """Return a file whose Constants are numbers and lists, not tensors."""
    model = own_onnx()
    name, made = model.graph.output[0].name, onnx.helper.make_node
    model.graph.node.extend(
        [
            made("Constant", [], ["two"], value_float=2.0),
            made("Constant", [], ["one"], value_int=1),
            made("Constant", [], ["per_class"], value_floats=[1.0, 2.0, 3.0, 4.0]),
            made("Constant", [], ["as_map"], value_ints=[1, CLASSES, 1, 1]),
            made("Reshape", ["per_class", "as_map"], ["offsets"]),
            made("Cast", ["one"], ["one_float"], to=onnx.TensorProto.FLOAT),
            made("Mul", [name, "two"], ["doubled"]),
            made("Add", ["doubled", "one_float"], ["moved"]),
            made("Add", ["moved", "offsets"], ["last"]),
        ]
    )
    model.graph.output[0].name = "last"
    return model


@pytest.mark.parametrize("target", ["cpu-fp32", "jetson-fp16", "cpu-int8"])
def test_constants_of_plain_numbers_are_taken(tmp_path: Path, target: str) -> None:
    onnx.save(with_plain_numbers(), path := tmp_path / "own.onnx")
    precision = target.rpartition("-")[2]
    made = export(path, tmp_path / "made", target, precision, normalization=NAMED["imagenet"])
    image_HW3 = picture()
    assert (ids_of(made, image_HW3) == own_answer(path, image_HW3)).mean() > 0.9


def test_an_upsampling_by_sizes_of_opset_11_is_loaded_in_half_precision(tmp_path: Path) -> None:
    onnx.save(own_onnx(11, picture="uint8", output="int64", sizes=True), tmp_path / "net.onnx")
    made = export(tmp_path / "net.onnx", tmp_path / "out", "jetson-fp16", "fp16")
    expected = own_answer(tmp_path / "net.onnx", picture())
    assert (ids_of(made, picture()) == expected).mean() >= 0.999


@pytest.mark.parametrize("target", ["jetson-fp16", "cpu-int8"])
def test_a_float_file_of_ours_becomes_half_and_int8(tmp_path: Path, target: str) -> None:
    onnx.save(own_onnx(), tmp_path / "first.onnx")
    ours = export(tmp_path / "first.onnx", tmp_path / "a", normalization=NAMED["imagenet"])
    made = export(ours, tmp_path / "out", target, load_target(target).ladder[0])
    assert (ids_of(made, picture()) == ids_of(ours, picture())).mean() >= 0.9


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a network of float pictures and logits that computes in half precision inside."""
    graph = model.graph
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            half = onnx.numpy_helper.from_array(values.astype(np.float16), tensor.name)
            tensor.CopyFrom(half)
    (image,), (logits,) = graph.input, graph.output
    for node in graph.node:
        node.input[:] = ["half_image" if name == image.name else name for name in node.input]
        node.output[:] = ["half_logits" if name == logits.name else name for name in node.output]
    first = onnx.helper.make_node("Cast", [image.name], ["half_image"], to=FLOAT16)
    graph.node.insert(0, first)
    last = onnx.helper.make_node("Cast", ["half_logits"], [logits.name], to=onnx.TensorProto.FLOAT)
    graph.node.append(last)
    del graph.value_info[:]
    return model


@pytest.mark.parametrize("opset", [9, 10])
def test_an_upsampling_of_an_old_opset_keeps_its_grid(tmp_path: Path, opset: int) -> None:
    model = own_onnx(11, output="int64")
    for node in model.graph.node:
        if node.op_type == "Resize":
            node.op_type = "Upsample" if opset == 9 else "Resize"
            del node.input[1]  # opset 11's region of interest
    model.opset_import[0].version = opset
    check(model, tmp_path)


def test_a_file_whose_nodes_are_in_another_order_is_taken(tmp_path: Path) -> None:
    model = own_onnx()
    first = model.graph.node[0]
    del model.graph.node[0]
    model.graph.node.append(first)  # as ONNX Runtime's converter to half puts its Cast
    check(model, tmp_path)


def in_int8(folder: Path, **options: Any) -> Path:
    """Write a file that ONNX Runtime has quantized, as others do theirs."""
    onnx.save(ending(), folder / "float.onnx")

    class Reader(CalibrationDataReader):
        left = 2

        def get_next(self) -> Any:
            self.left -= 1
            image = np.random.default_rng(0).standard_normal((1, 3, HEIGHT, WIDTH))
            return {"image": image.astype(np.float32)} if self.left >= 0 else None

    quantize_static(folder / "float.onnx", folder / "net.onnx", Reader(), **options)
    return folder / "net.onnx"


@pytest.mark.parametrize(
    ("target", "precision"), [("cpu-int8", "int8"), ("intel-int8", "int8"), ("intel-bf16", "bf16")]
)
def test_a_file_that_is_int8_already_is_told_to_be_exported_from_float(
    target: str, precision: str, tmp_path: Path
) -> None:
    said = {"normalization": NAMED["imagenet"]}
    with pytest.raises(ValueError, match="int8 already; name the float file"):
        export(in_int8(tmp_path), tmp_path / "out", target, precision, **said)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_what_normalises_for_a_file_in_int8_is_not_rounded_to_int8(
    form: QuantFormat, color: str, tmp_path: Path
) -> None:
    path = in_int8(tmp_path, quant_format=form)
    said = {"normalization": parse_normalization("imagenet", color), "kind": "logits"}
    made = export(path, tmp_path / "out", **said)
    (found,) = onnxruntime.InferenceSession(made).run(None, {"image": picture()[None]})
    same = np.isclose(found, own_result(path, picture(), color=color), atol=1e-4)
    assert same.mean() > 0.99


@pytest.mark.parametrize("target", ["cpu-fp32", "cpu-int8"])
def test_a_file_that_computes_in_half_becomes_a_graph_of_the_target_s_precision(
    target: str, tmp_path: Path
) -> None:
    onnx.save(in_half(own_onnx()), tmp_path / "net.onnx")
    said = {"normalization": NAMED["imagenet"]}
    made = export(
        tmp_path / "net.onnx", tmp_path / "out", target, load_target(target).ladder[0], **said
    )
    graph = onnx.load(made).graph
    assert FLOAT16 not in {tensor.data_type for tensor in graph.initializer}
    expected = own_answer(tmp_path / "net.onnx", picture())
    limit = 0.999 if target == "cpu-fp32" else 0.9
    assert (ids_of(made, picture()) == expected).mean() >= limit


def test_weights_beside_the_file_are_part_of_the_network(tmp_path: Path) -> None:
    onnx.save(
        own_onnx(), tmp_path / "net.onnx", save_as_external_data=True, location="net.data",
        size_threshold=0,
    )  # fmt: skip
    normalization = NAMED["imagenet"]
    before = open_network(tmp_path / "net.onnx", normalization=normalization)
    made = export(tmp_path / "net.onnx", tmp_path / "out", normalization=normalization)
    expected = own_answer(tmp_path / "net.onnx", picture())
    assert (ids_of(made, picture()) == expected).mean() >= 0.999
    weights = bytearray((tmp_path / "net.data").read_bytes())
    weights[-4:] = b"\0\0\0\0"
    (tmp_path / "net.data").write_bytes(weights)
    assert open_network(tmp_path / "net.onnx", normalization=normalization).sha256 != before.sha256


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname"])
def test_a_file_that_names_files_elsewhere_opens_none_of_them(
    tmp_path: Path, location: str
) -> None:
    model = own_onnx()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(bytes(10000))
    (tmp_path / "in/net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="names the file"):
        open_network(tmp_path / "in/net.onnx", normalization=NAMED["imagenet"])


def changed(**what: Any) -> onnx.ModelProto:
    """Return a network whose input is another."""
    model = own_onnx(**what.pop("of", {}))
    value = model.graph.input[0]
    if "shape" in what:
        model.graph.input[0].CopyFrom(
            onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, what["shape"])
        )
    if "says" in what:
        onnx.helper.set_model_props(model, {METADATA_KEY: what["says"]})
    for index in range(what.get("more", 0)):
        more = model.graph.input.add()
        more.CopyFrom(value)
        more.name = f"more_{index}"
    return model


@pytest.mark.parametrize(
    ("model", "said", "message"),
    [
        (changed(), {"normalization": None}, "float pictures.*--normalization imagenet, unit"),
        (
            changed(says="{}"),
            {},
            f"itself: manifest.json has schema None.*; export.*, or remove.* entry {METADATA_KEY}",
        ),
        (changed(more=4), {}, "takes image.*more_0.*; expected one picture"),
        (changed(shape=None), {}, "expected one picture|no ONNX file that loads"),
        (changed(shape=[1, 4, 48, 64]), {}, "expected one picture|no ONNX file that loads"),
        (changed(of={"batch": 2}), {}, r"\[2, 3, 48, 64\]; expected one picture"),
        (changed(), {"size": (32, 32)}, "takes pictures of 64x48 alone, not 32x32"),
        (changed(), {"classes": numbered_classes(7)}, "tells 4 classes apart, expected 7"),
        (changed(), {"weights": Path("w.pth")}, "holds its weights; leave --weights out"),
        (changed(of={"output": "int64"}), {}, "of how many classes they do not say: --classes"),
        (
            changed(of={"output": "int64"}),
            {"classes": numbered_classes(2)},
            "gives class id 3, 2 classes are named; name each that it knows in --classes",
        ),
        (
            ending(("Sub", {}, np.array(1)), kind=INT64, output="int64"),
            {"classes": numbered_classes(CLASSES)},
            "gives class id -1, 4 classes are named; ids from 0 on .*: export it without the off",
        ),
        (
            ending(
                ("Clip", {}, np.array(0), np.array(1)),
                ("Mul", {}, np.array(255)),
                kind=INT64,
                output="int64",
            ),
            {"classes": numbered_classes(2)},
            "gives class id 255, 2 classes are named; ids from 0 on .* without the factor 255",
        ),
        (changed(of={"picture": "uint8"}), {}, "takes bytes as they are; leave --normalization"),
        (
            changed(of={"auxiliary": True}),
            {},
            "auxiliary and balanced can all be the logits.*--out",
        ),
    ],
)
def test_what_is_missing_or_does_not_fit_is_said_in_one_line(
    tmp_path: Path, model: onnx.ModelProto, said: dict[str, Any], message: str
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_network(path, **{"normalization": NAMED["imagenet"], **said}).check(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x08\x08nothing", own_onnx().SerializeToString()[:-90]])
def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.onnx") as caught:
        open_network(tmp_path / "net.onnx", normalization=NAMED["imagenet"])
    assert "\n" not in str(caught.value)


def test_one_of_several_outputs_is_taken_by_its_name(tmp_path: Path) -> None:
    onnx.save(own_onnx(auxiliary=True), tmp_path / "net.onnx")
    onnx.save(own_onnx(), tmp_path / "alone.onnx")
    normalization, image = NAMED["imagenet"], torch.from_numpy(picture()[None])
    chosen = open_network(
        tmp_path / "net.onnx", normalization=normalization, output_name="balanced"
    )
    alone = open_network(tmp_path / "alone.onnx", normalization=normalization)
    torch.testing.assert_close(chosen.logits(image), alone.logits(image))
    assert [entry.name for entry in alone.info.classes] == [
        entry.name for entry in numbered_classes(CLASSES)
    ]


@pytest.mark.parametrize("ours", [True, False])
def test_ids_are_read_beside_other_bytes(tmp_path: Path, ours: bool) -> None:
    model = own_onnx(18, picture="uint8", output="uint8")
    model.graph.node.append(onnx.helper.make_node("BitwiseNot", ["out"], ["confidence"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("confidence", UINT8, None))
    if ours:
        record = manifest_of(open_network("nano-synthetic")).to_json()
        onnx.helper.set_model_props(model, {METADATA_KEY: record})
    onnx.save(model, tmp_path / "net.onnx")
    named = "" if ours else "out"
    network = open_network(tmp_path / "net.onnx", numbered_classes(CLASSES), output_name=named)
    assert network.check() == []


@pytest.mark.parametrize("named", ["", "1", "0"])
def test_of_two_integer_outputs_the_one_of_that_name_is_the_ids(tmp_path: Path, named: str) -> None:
    model = own_onnx(18, picture="uint8", output="uint8")
    model.graph.node.append(onnx.helper.make_node("BitwiseNot", ["out"], ["0"]))
    model.graph.node.append(onnx.helper.make_node("Identity", ["out"], ["1"]))
    outputs = [onnx.helper.make_tensor_value_info(name, UINT8, None) for name in ("1", "0")]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    onnx.save(model, tmp_path / "net.onnx")
    network = open_network(tmp_path / "net.onnx", numbered_classes(CLASSES), output_name=named)
    if named == "1":
        assert network.check() == []
        return
    way_out = "or --output-name says which of 1, 0 are the class ids"
    with pytest.raises(CheckpointError, match=r"gives class id 25\d, 4 classes") as caught:
        network.check()
    assert (way_out in str(caught.value)) == (not named)


def test_formats_that_are_made_of_torch_modules_say_so(tmp_path: Path) -> None:
    onnx.save(own_onnx(), tmp_path / "net.onnx")
    network = open_network(tmp_path / "net.onnx", normalization=NAMED["imagenet"])
    for name in ("tflite", "coreml", "pytorch"):
        with pytest.raises(ValueError, match=rf"net\.onnx is an ONNX graph, and {name} is made of"):
            find_exporter(name).check_takes(network)


def test_scores_of_a_file_that_gives_ids_are_refused(tmp_path: Path) -> None:
    onnx.save(own_onnx(output="int64"), tmp_path / "net.onnx")
    said = {"normalization": NAMED["imagenet"], "kind": "logits"}
    with pytest.raises(
        ValueError, match="class ids and no logits: leave --output logits, --confidence and"
    ):
        export(tmp_path / "net.onnx", tmp_path / "out", **said)
