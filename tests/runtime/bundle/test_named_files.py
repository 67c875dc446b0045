"""No engine is given a model that names a file outside of it."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fastseg_runtime import BundleError, RealtimeSegmentation
from fastseg_runtime.bundle.manifest import Artifact, InputSpec, OutputSpec
from fastseg_runtime.bundle.named_files import (
    CORE_ML,
    MAX_FIELDS,
    ONNX,
    check_mlpackage,
    check_onnx,
    check_tflite,
)
from fastseg_runtime.engines.backend_onnxruntime import describe
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.doubles.tiny_bundle import (
    HEIGHT,
    WIDTH,
    argmax_onnx,
    empty_plan,
    entry_of,
    noise,
)

SECRET = bytes(range(1, HEIGHT * WIDTH % 251)) + b"SECRET" * 400
NAMES = st.sampled_from(
    ["w.bin", "../w.bin", "/etc/passwd", "", "a/w.bin", "W.BIN", "*/_ORT_MEM_ADDR_/*", "w.bin\0"]
)


def external(name: str, size: int = 8, offset: int = 0, **extra: str) -> TensorProto:
    """A tensor of bytes that lie in a file."""
    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[size])
    tensor.data_location = TensorProto.EXTERNAL
    facts = {"location": name, "offset": str(offset), "length": str(size), **extra}
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def inline() -> TensorProto:
    return numpy_helper.from_array(np.zeros(3, np.float32), "weights")


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[9])


def hide(tensor: TensorProto, place: str) -> onnx.ModelProto:
    """A model with a tensor somewhere in it."""
    model = onnx.load_from_string(argmax_onnx())
    constant = onnx.NodeProto(op_type="Constant", output=["c"])
    graph = onnx.GraphProto(name="inner", initializer=[tensor])
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place in ("sparse values", "sparse indices"):
        parts = (tensor, inline()) if place == "sparse values" else (inline(), tensor)
        model.graph.sparse_initializer.append(sparse(*parts))
    elif place == "constant":
        constant.attribute.append(helper.make_attribute("value", tensor))
        model.graph.node.append(constant)
    elif place == "tensors":
        constant.attribute.append(helper.make_attribute("all", [inline(), tensor]))
        model.graph.node.append(constant)
    elif place == "sparse constant":
        constant.attribute.append(helper.make_attribute("s", sparse(tensor, inline())))
        model.graph.node.append(constant)
    elif place == "a loop in an if":
        for name in ("Loop", "If"):
            node = onnx.NodeProto(op_type=name)
            node.attribute.append(helper.make_attribute("body", graph))
            graph = onnx.GraphProto(name="outer", node=[node])
        model.graph.node.append(graph.node[0])
    elif place == "scan bodies":
        node = onnx.NodeProto(op_type="Scan")
        node.attribute.append(helper.make_attribute("bodies", [graph, graph]))
        model.graph.node.append(node)
    elif place == "function":
        constant.attribute.append(helper.make_attribute("value", tensor))
        model.functions.add(name="f", domain="d", node=[constant])
    elif place == "default of a function":
        model.functions.add(
            name="f", domain="d", attribute_proto=[helper.make_attribute("v", tensor)]
        )
    elif place == "training":
        model.training_info.add(initialization=graph)
        model.training_info.add(algorithm=graph)
    return model


PLACES = [
    "initializer",
    "sparse values",
    "sparse indices",
    "constant",
    "tensors",
    "sparse constant",
    "a loop in an if",
    "scan bodies",
    "function",
    "default of a function",
    "training",
]


def tensors_of(message: Any) -> Iterator[TensorProto]:
    """Every tensor in a message, as onnx's own classes see it."""
    if isinstance(message, TensorProto):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if hasattr(value, "__len__") else [value]:
                yield from tensors_of(item)


def names_outside(model: onnx.ModelProto, members: dict[str, int]) -> bool:
    """Whether onnx itself would look for another file than the members."""
    return any(
        entry.key == "location" and entry.value not in members
        for tensor in tensors_of(model)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
    )


@pytest.mark.parametrize("place", PLACES)
def test_a_name_is_found_wherever_a_tensor_can_be(place: str) -> None:
    content = hide(external("w.bin"), place).SerializeToString()
    assert check_onnx(content, "model.onnx", {"w.bin": 8}) == {"w.bin"}
    for members in ({}, {"other.bin": 8}):
        with pytest.raises(BundleError, match=r"model\.onnx names the file 'w\.bin'"):
            check_onnx(content, "model.onnx", members)


@given(place=st.sampled_from(PLACES), name=NAMES)
def test_only_members_are_taken_by_their_plain_name(place: str, name: str) -> None:
    model = hide(external(name), place)
    members = {"w.bin": 8}
    if name == "w.bin":
        assert check_onnx(model.SerializeToString(), "m", members) == {name}
    else:
        with pytest.raises(BundleError, match="names the file"):
            check_onnx(model.SerializeToString(), "m", members)


def test_a_message_written_in_parts_is_read_as_parsers_merge_it() -> None:
    names_it, says_so = TensorProto(), TensorProto(data_location=TensorProto.EXTERNAL)
    names_it.external_data.add(key="location", value="/etc/passwd")
    for parts in ((names_it, says_so), (says_so, names_it), (says_so,), (names_it,)):
        # An attribute's tensor is no list: parsers merge what occurs twice.
        attributes = [onnx.AttributeProto(t=part).SerializeToString() for part in parts]
        merged = onnx.AttributeProto.FromString(b"".join(attributes))
        assert merged.t.external_data or merged.t.data_location
        node = onnx.NodeProto(op_type="Constant").SerializeToString()
        node += b"".join(b"\x2a" + bytes([len(a)]) + a for a in attributes)
        graph = b"\x0a" + bytes([len(node)]) + node
        with pytest.raises(BundleError):
            check_onnx(b"\x3a" + bytes([len(graph)]) + graph, "m", {"w.bin": 8})


@pytest.mark.parametrize(
    ("offset", "size", "taken"),
    [(0, 100, True), (60, 40, True), (60, 41, False), (100, 1, False), (-1, 4, False)],
)
def test_bytes_must_lie_within_the_file(offset: int, size: int, taken: bool) -> None:
    content = hide(external("w.bin", size, offset), "initializer").SerializeToString()
    if taken:
        check_onnx(content, "m", {"w.bin": 100})
    else:
        with pytest.raises(BundleError, match=r"wants bytes .* which has 100"):
            check_onnx(content, "m", {"w.bin": 100})


def test_two_answers_to_where_the_data_is_are_refused() -> None:
    tensor = external("w.bin")
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(BundleError, match="unclear"):
        check_onnx(hide(tensor, "constant").SerializeToString(), "m", {"w.bin": 8})


def test_an_engine_compiled_elsewhere_is_refused() -> None:
    model = onnx.load_from_string(argmax_onnx())
    model.graph.node.append(
        helper.make_node("EPContext", [], ["x"], domain="com.microsoft", embed_mode=0)
    )
    with pytest.raises(BundleError, match="EPContext"):
        check_onnx(model.SerializeToString(), "m")


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ({"embed_mode": 1}, True),
        ({"embed_mode": 0}, False),
        ({}, False),
        ({"embed_mode": 2}, False),
    ],
)
def test_what_is_compiled_is_taken_where_asked_for_and_whole_within_the_file(
    said: dict[str, int], taken: bool
) -> None:
    model = onnx.load_from_string(argmax_onnx())
    context = helper.make_node("EPContext", [], ["x"], ep_cache_context="/etc/passwd", **said)
    model.graph.node.append(context)
    with contextlib.nullcontext() if taken else pytest.raises(BundleError, match="EPContext"):
        check_onnx(model.SerializeToString(), "m", compiled=True)
    with pytest.raises(BundleError, match="EPContext"):
        check_onnx(model.SerializeToString(), "m")


def test_two_answers_to_where_what_is_compiled_is_are_refused() -> None:
    model = onnx.load_from_string(argmax_onnx())
    model.graph.node.append(helper.make_node("EPContext", [], ["x"], embed_mode=1))
    model.graph.node[-1].attribute.append(helper.make_attribute("embed_mode", 0))
    with pytest.raises(BundleError, match="EPContext"):
        check_onnx(model.SerializeToString(), "m", compiled=True)


def test_a_second_network_that_lies_outside_is_refused_beside_one_within() -> None:
    model = onnx.load_from_string(argmax_onnx())
    for mode in (1, 0):
        node = helper.make_node("EPContext", [], [f"x{mode}"], embed_mode=mode)
        model.graph.node.append(node)
    with pytest.raises(BundleError, match="EPContext"):
        check_onnx(model.SerializeToString(), "m", compiled=True)


def test_onnxruntimes_own_format_is_no_onnx() -> None:
    with pytest.raises(ValueError, match="own format"):
        check_onnx(b"\x08\x09\x12\x04ORTM" + argmax_onnx()[8:], "m")


def test_the_table_has_every_way_to_a_tensor_that_onnx_has() -> None:
    wanted = reachable(onnx.ModelProto.DESCRIPTOR, {"TensorProto", "NodeProto"})
    wanted["TensorProto"] = {13: "StringStringEntryProto"}
    assert wanted == ONNX


def reachable(root: Any, goals: set[str]) -> dict[str, dict[int, str]]:
    """Of every message below one, the fields that lead to a goal."""
    fields: dict[str, dict[int, str]] = {}
    waiting = [root]
    while waiting:
        kind = waiting.pop()
        if kind.name not in fields:
            inner = [f for f in kind.fields if f.message_type is not None]
            fields[kind.name] = {f.number: f.message_type.name for f in inner}
            waiting += [f.message_type for f in inner]
    useful = set(goals)
    while more := {k for k, v in fields.items() if useful & set(v.values())} - useful:
        useful |= more
    kept = {k: {n: m for n, m in v.items() if m in useful} for k, v in fields.items()}
    return {k: v for k, v in kept.items() if v and k not in goals - {"NodeProto"}}


@given(data=st.data(), place=st.sampled_from(PLACES), name=NAMES)
def test_a_damaged_model_is_refused_or_names_nothing_for_onnx_either(
    data: st.DataObject, place: str, name: str
) -> None:
    content = bytearray(hide(external(name), place).SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        check_onnx(damaged, "m", {"w.bin": 8})
    except (BundleError, ValueError):
        return
    try:
        seen = onnx.load_from_string(damaged)
    except Exception:  # no parser takes it: nobody opens anything
        return
    assert not names_outside(seen, {"w.bin": 8})


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for check in (check_onnx, check_tflite):
        try:
            check(content, "m")
        except (BundleError, ValueError):
            continue


@pytest.mark.parametrize(
    "content",
    [
        b"\x3a\xff\xff\xff\xff\x7f",  # longer than the file
        b"\x3a" + b"\xff" * 20,  # a number without an end
        b"\x3b\x3c",  # groups
        b"\xba\x80\x80\x80\x80\x80\x01\x00",  # a tag whose upper bits old parsers cut off
        b"\x00\x00",
        b"\x0d\x00",
    ],
)
def test_bytes_that_make_no_sense_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"m\.onnx is damaged, or no model of its kind"):
        check_onnx(content, "m.onnx")


def nested(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    content = b""
    for level in range(depth):
        tag = (b"\x32", b"\x2a", b"\x0a")[level % 3]
        content = tag + length_of(content) + content
    return b"\x3a" + length_of(content) + content


def length_of(content: bytes) -> bytes:
    size = len(content)
    return bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])


def test_endless_depth_and_endless_parts_are_refused_at_once() -> None:
    check_onnx(nested(99), "m")
    start = time.process_time()
    for content in (nested(300), b"\x3a\x00" * (MAX_FIELDS + 1), b"\x08\x00" * 10**7):
        with pytest.raises(ValueError, match="too many parts"):
            check_onnx(content, "m")
    assert time.process_time() - start < 10


# Through a session.


def leaking_onnx(name: str) -> bytes:
    """A network whose class map is a file's bytes."""
    tensor = external(name, HEIGHT * WIDTH)
    tensor.dims[:] = [1, HEIGHT, WIDTH]
    model = onnx.load_from_string(argmax_onnx())
    model.graph.initializer.append(tensor)
    cast = helper.make_node("Cast", ["w"], ["classes"], to=TensorProto.UINT8)
    model.graph.node[-1].CopyFrom(cast)
    return bytes(model.SerializeToString())


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "secret.bin"
    path.write_bytes(SECRET)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here/model.onnx").write_bytes(SECRET)  # by the name of the entry, too
    return path


@pytest.mark.parametrize("kind", ["absolute", "upwards", "own name", "beside"])
def test_no_byte_of_a_file_outside_is_read(kind: str, secret: Path) -> None:
    (secret.parent / "here/beside.bin").write_bytes(SECRET)
    name = {
        "absolute": str(secret),
        "upwards": "../secret.bin",
        "own name": "model.onnx",
        "beside": "beside.bin",
    }[kind]
    content = leaking_onnx(name)
    bare = secret.parent / "here/bare.onnx"
    bare.write_bytes(content)
    with pytest.raises(BundleError, match="nothing outside of a model is opened"):
        RealtimeSegmentation(bare)
    with pytest.raises(BundleError, match="names the file"):
        describe(bare)
    plan = empty_plan().with_artifact("x", content)
    # A good artifact beside it is no way out: the bundle is hostile.
    plan = plan.with_artifact("y", argmax_onnx(), precision="fp16")
    with pytest.raises(BundleError, match="nothing outside of a model is opened"):
        RealtimeSegmentation(plan.write(secret.parent / "bundle.fastseg"), backend="onnxruntime")


def test_weights_that_the_bundle_lists_beside_the_graph_are_read(secret: Path) -> None:
    expected = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH), np.uint8)
    plan = empty_plan().with_artifact("x", leaking_onnx("w.bin"))
    artifact = plan.manifest.artifacts[0]
    weights = "artifacts/x/w.bin"
    files = (*artifact.files, entry_of(weights, expected.tobytes()))
    manifest = replace(plan.manifest, artifacts=(replace(artifact, files=files),))
    plan = replace(plan, manifest=manifest, members={**plan.members, weights: expected.tobytes()})
    with RealtimeSegmentation(plan.write(secret.parent / "two.fastseg")) as session:
        assert np.array_equal(session.infer(noise()), expected)


# LiteRT.


def tflite(**lists: Any) -> bytes:
    """A model without a graph."""
    pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")
    from ai_edge_litert import schema_py_generated as schema

    flatbuffers = pytest.importorskip("flatbuffers")
    model = schema.ModelT()
    model.version = 3
    for name, value in lists.items():
        setattr(model, name, value)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_a_tflite_with_weights_in_other_files_is_refused() -> None:
    pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")
    from ai_edge_litert import schema_py_generated as schema

    check_tflite(tflite(), "m.tflite")
    group, buffer = schema.ExternalBufferGroupT(), schema.ExternalBufferT()
    group.name = "/etc/passwd"
    for lists in ({"externalBufferGroups": [group]}, {"externalBuffers": [buffer]}):
        with pytest.raises(BundleError, match=r"m\.tflite keeps weights in other files"):
            check_tflite(tflite(**lists), "m.tflite")


@pytest.mark.parametrize(
    ("offset", "size", "taken"),
    [(40, 8, True), (1 << 40, 8, False), (8, 1 << 40, False), ((1 << 64) - 8, 16, False)],
)
def test_a_tflite_takes_no_bytes_outside_of_itself(offset: int, size: int, taken: bool) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.offset, buffer.size = offset, size
    content = tflite(buffers=[schema.BufferT(), buffer])
    if taken:
        check_tflite(content, "m.tflite")
    else:
        with pytest.raises(BundleError, match=r"m\.tflite wants bytes that it does not have"):
            check_tflite(content, "m.tflite")


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 40, tag := b"\x08\0\0\0TFL3", tag + b"\x09\0\0\0" + bytes(40), b"\xff" * 4 + tag],
)
def test_a_tflite_that_makes_no_sense_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"m\.tflite is damaged"):
        check_tflite(content, "m.tflite")


# Core ML.


def package(folder: Path, program: bytes, *items: str) -> Path:
    model = folder / "Data/com.apple.CoreML/model.mlmodel"
    (model.parent / "weights").mkdir(parents=True)
    model.write_bytes(program)
    (model.parent / "weights/weight.bin").write_bytes(b"weights")
    entries = {str(n): {"path": path} for n, path in enumerate(items)}
    (folder / "Manifest.json").write_text(json.dumps({"itemInfoEntries": entries}))
    return folder


def field(number: int, content: bytes) -> bytes:
    tag = number << 3 | 2
    head = [tag] if tag < 128 else [tag & 127 | 128, tag >> 7]
    return bytes([*head, len(content)]) + content


def ml_program(name: str) -> bytes:
    """Model.mlProgram.functions[].attributes[] = Value.blobFileValue.fileName."""
    value = field(5, field(1, name.encode()))
    return field(502, field(2, field(2, field(4, field(2, value)))))


ITEMS = ("com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights")


@pytest.mark.parametrize(
    ("name", "items", "named"),
    [
        ("@model_path/weights/weight.bin", ITEMS, None),
        ("@model_path/../../../../etc/passwd", ITEMS, "passwd"),
        ("/etc/passwd", ITEMS, "/etc/passwd"),
        ("weights/weight.bin", ITEMS, "weight"),
        ("@model_path/weights/other.bin", ITEMS, "other"),
        ("@model_path/weights/weight.bin", (*ITEMS, "../../elsewhere.mlmodel"), "elsewhere"),
        ("@model_path/weights/weight.bin", (*ITEMS, "/etc/passwd"), "passwd"),
    ],
)
def test_a_core_ml_package_names_its_own_files_alone(
    name: str, items: tuple[str, ...], named: str | None, tmp_path: Path
) -> None:
    path = package(tmp_path / "m.mlpackage", ml_program(name), *items)
    if named is None:
        check_mlpackage(path)
    else:
        with pytest.raises(BundleError, match=named):
            check_mlpackage(path)


def test_a_core_ml_package_that_names_its_files_twice_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path / "m.mlpackage", ml_program("@model_path/weights/weight.bin"), *ITEMS)
    whole = (path / "Manifest.json").read_text()
    other = json.dumps({"itemInfoEntries": {"0": {"path": "../../elsewhere.mlmodel"}}})
    (path / "Manifest.json").write_text(other[:-1] + ", " + whole[1:])
    with pytest.raises(ValueError, match="no manifest of a Core ML package"):
        check_mlpackage(path)


def test_a_core_ml_model_that_links_another_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path / "m.mlpackage", field(556, field(1, b"x")), *ITEMS)
    with pytest.raises(ValueError, match="no ML program"):
        check_mlpackage(path)


@pytest.mark.slow
def test_the_table_has_every_way_to_a_file_that_core_ml_programs_have() -> None:
    pytest.importorskip("coremltools", reason="needs coremltools: fastseg-edge[coreml]")
    from coremltools.proto import MIL_pb2

    wanted = reachable(MIL_pb2.Program.DESCRIPTOR, {"BlobFileValue"})
    assert {"Model": {502: "Program"}, **wanted} == CORE_ML


def test_the_builder_of_tensorrt_engines_reads_the_graph_first() -> None:
    from fastseg_runtime.engines.tensorrt.builder import build_engine

    nothing: Any = None
    with pytest.raises(BundleError, match="names the file"):
        build_engine(nothing, nothing, leaking_onnx("/etc/passwd"), "fp32")


def test_a_backend_that_is_opened_by_hand_reads_first_too() -> None:
    from fastseg_runtime.engines.backend import ModelSource
    from fastseg_runtime.engines.backend_onnxruntime import OnnxRuntimeBackend

    artifact = Artifact("x", "onnx", "fp32", "model.onnx", ())
    source = ModelSource(
        artifact,
        InputSpec(WIDTH, HEIGHT),
        OutputSpec(),
        read=lambda member: leaking_onnx("/etc/passwd"),
        locate=lambda: Path("/nowhere"),
    )
    with pytest.raises(BundleError, match="names the file"):
        OnnxRuntimeBackend().open(source)
