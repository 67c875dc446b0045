"""Tiny networks and bundles, written with onnx and zipfile: no exporter is needed here."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from fastseg_runtime.bundle.manifest import (
    Artifact,
    ClassInfo,
    FileEntry,
    InputSpec,
    Manifest,
    ModelInfo,
    OutputSpec,
)
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEIGHT = 48, 32
CLASSES = (
    ClassInfo("red", (255, 0, 0)),
    ClassInfo("green", (0, 255, 0)),
    ClassInfo("blue", (0, 0, 255)),
)
Array = np.ndarray[Any, Any]


def strongest_channel(image_HW3: Array) -> Array:
    """What the tiny networks compute: the id of the largest of red, green and blue."""
    return image_HW3.argmax(axis=2).astype(np.uint8)


def argmax_onnx(
    width: int = WIDTH,
    height: int = HEIGHT,
    output_type: int = TensorProto.UINT8,
    kind: str = "classes",
    metadata: dict[str, str] | None = None,
) -> bytes:
    """An ONNX file with fastseg's contract: bytes in, the strongest channel's index out."""
    nodes = [helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)]
    shape = [1, height, width]
    if kind == "logits":
        nodes.append(helper.make_node("Transpose", ["float"], ["logits"], perm=[0, 3, 1, 2]))
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, height, width])
    else:
        nodes.append(helper.make_node("ArgMax", ["float"], ["ids"], axis=3, keepdims=0))
        nodes.append(helper.make_node("Cast", ["ids"], ["classes"], to=output_type))
        output = helper.make_tensor_value_info("classes", output_type, shape)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])
    model = helper.make_model(
        helper.make_graph(nodes, "strongest_channel", [image], [output]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def long_running_onnx(width: int, height: int) -> bytes:
    """An ONNX file that keeps the engine busy for some tenths of a second at 512x256."""
    weights = np.random.default_rng(0).standard_normal
    constants = [
        numpy_helper.from_array(weights((64, 3, 3, 3)).astype(np.float32), "w0"),
        numpy_helper.from_array(weights((64, 64, 3, 3)).astype(np.float32), "w1"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w0"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["y", "w1"], ["z"], pads=[1, 1, 1, 1]),
        helper.make_node("ArgMax", ["z"], ["ids"], axis=1, keepdims=0),
        helper.make_node("Cast", ["ids"], ["classes"], to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])
    output = helper.make_tensor_value_info("classes", TensorProto.UINT8, [1, height, width])
    graph = helper.make_graph(nodes, "busy", [image], [output], constants)
    opset = helper.make_opsetid("", 17)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())


def scene_npz(image_HW3: Array, classes_HW: Array) -> bytes:
    """A self-test member."""
    file = io.BytesIO()
    np.savez(file, image=image_HW3, classes=classes_HW)
    return file.getvalue()


def noise(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Array:
    """A frame of random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def entry_of(path: str, content: bytes) -> FileEntry:
    """The manifest's record of a member."""
    return FileEntry(path, len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class BundlePlan:
    """A bundle to write: its members in order, and the manifest over them."""

    manifest: Manifest
    members: dict[str, bytes] = field(default_factory=dict)

    def write(self, path: Path, mode: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(path, "w", mode) as archive:
            archive.writestr("manifest.json", self.manifest.to_json())
            for name, content in self.members.items():
                archive.writestr(name, content)
        return path

    def with_artifact(
        self, target: str, content: bytes, format: str = "onnx", **fields: Any
    ) -> "BundlePlan":
        suffix = {"onnx": "onnx", "tflite": "tflite"}.get(format, "bin")
        path = f"artifacts/{target}/model.{suffix}"
        fields = {"precision": "fp32", "requires": {"backend": "onnxruntime"}, **fields}
        artifact = Artifact(
            target=target, format=format, entry=path, files=(entry_of(path, content),), **fields
        )
        manifest = replace(self.manifest, artifacts=(*self.manifest.artifacts, artifact))
        return BundlePlan(manifest, {**self.members, path: content})

    def with_scene(self, image_HW3: Array, classes_HW: Array) -> "BundlePlan":
        path = f"selftest/{len(self.manifest.selftest)}.npz"
        content = scene_npz(image_HW3, classes_HW)
        entries = (*self.manifest.selftest, entry_of(path, content))
        manifest = replace(self.manifest, selftest=entries)
        return BundlePlan(manifest, {**self.members, path: content})


def empty_plan(
    width: int = WIDTH,
    height: int = HEIGHT,
    classes: Sequence[ClassInfo] = CLASSES,
    **fields: Any,
) -> BundlePlan:
    """A bundle without artifacts."""
    fields = {"input": InputSpec(width, height), "output": OutputSpec(), **fields}
    manifest = Manifest(
        name="tiny",
        created="2026-11-23T12:00:00Z",
        tool="tests",
        model=ModelInfo("tiny", 0, 0, "", trained_on="colours", data_licence="CC0"),
        classes=tuple(classes),
        **fields,
    )
    return BundlePlan(manifest)


def full_plan(width: int = WIDTH, height: int = HEIGHT, **fields: Any) -> BundlePlan:
    """A bundle with one ONNX artifact, cpu-fp32, and one self-test scene."""
    image = noise(height, width)
    plan = empty_plan(width, height, **fields).with_artifact("cpu-fp32", argmax_onnx(width, height))
    return plan.with_scene(image, strongest_channel(image))
