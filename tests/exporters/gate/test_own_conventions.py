"""What a network of one's own takes and gives, in every format: its own class map comes out."""

import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from fastseg_exporters.convert.exporter import Conversion, Recipe, Request, load_exporter
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.compare import compare_bundle
from fastseg_exporters.gate.workshop import proving_backend
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import ClassInfo, numbered_classes
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_targets.target import load_target
from onnx import numpy_helper

from fastseg import Network
from fastseg.normalization import Normalization, parse_normalization

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the converters' own imports
]
SIZE = (128, 64)
FORMATS = ("cpu-fp32", "jetson-fp16", "android-fp32", "ios-fp16")  # ONNX, TensorRT's, TFLite, MIL
CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        torch.manual_seed(0)
        # Padded with zeros twice: a normalisation that is folded is wrong at the border.
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 5, 2, 2))
        self.head, self.aux = nn.Conv2d(16, classes, 1), nn.Conv2d(16, classes, 1)

    def forward(self, x):
        return self.head(self.stem(x))

class Two(Net):
    def forward(self, x):
        y = self.stem(x)
        return [self.aux(y), self.head(y)]

def net(num_classes):
    return Net(num_classes)

def two(num_classes):
    return Two(num_classes)

def one_logit():
    return Net(1)

def sigmoid():
    return nn.Sequential(Net(1), nn.Sigmoid())

def broken(num_classes):
    net = Net(num_classes)
    net.forward = lambda x: {}["features"]
    return net

class Running(Net):  # ONNX has no such operation
    def forward(self, x):
        return super().forward(x.cummax(1).values)

def running(num_classes):
    return Running(num_classes)

def odd_height(num_classes):
    net = Net(num_classes)
    def forward(x):
        assert x.shape[2] % 2, "height must be odd"
        return Net.forward(net, x)
    net.forward = forward
    return net
"""
CAFFE = Normalization((103.939, 116.779, 123.68), (57.0, 57.4, 58.4), 255, "bgr")
OBJECT = (ClassInfo("object", (255, 0, 0)),)
NETWORKS = {
    "imagenet": NetworkSource(
        "nets:net", numbered_classes(5), None, SIZE, parse_normalization("imagenet")
    ),
    "unit": NetworkSource("nets:net", numbered_classes(5), None, SIZE, parse_normalization("unit")),
    "bgr, the second of two": NetworkSource(
        "nets:two", numbered_classes(5), None, SIZE, CAFFE, output_name="1"
    ),
    "one logit": NetworkSource("nets:one_logit", OBJECT, None, SIZE, threshold=0.55),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def plan(source: NetworkSource, targets: tuple[str, ...], mask_stride: int = 1) -> Plan:
    data = f"synthetic:size={SIZE[0]}x{SIZE[1]},train=4,val=2,test=2"
    chosen = tuple(map(load_target, targets))
    recipe = Recipe(source, Calibration(data, 4), mask_stride=mask_stride)
    return Plan(recipe, chosen, Path("own.fastseg"), verify_images=2)


def own_class_map(network: Network, image_HW3: Array) -> Array:
    logits_NKhw = network.logits(torch.from_numpy(image_HW3)[None])
    full_NKHW = F.interpolate(logits_NKhw, size=SIZE[::-1], mode="bilinear")
    ids_HW: Array = full_NKHW.argmax(1)[0].numpy()
    return ids_HW


@pytest.mark.usefixtures("converted_here")
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_format_gives_the_modules_own_class_map(kind: str) -> None:
    source = NETWORKS[kind]
    outcome = export_bundle(plan(source, FORMATS))
    assert outcome.failed == {}
    network = source.open()
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8) for _ in range(3)]
    with open_bundle(Path("own.fastseg")) as bundle:
        manifest = bundle.manifest
    assert manifest.model.normalization == network.info.normalization_table()
    for artifact in manifest.artifacts:
        backend = proving_backend(artifact)
        with RealtimeSegmentation("own.fastseg", backend, target=artifact.target) as session:
            same = [np.mean(session.infer(f) == own_class_map(network, f)) for f in frames]
        assert np.mean(same) >= 0.999, artifact.target
    assert len(np.unique(own_class_map(network, frames[0]))) > 1


@pytest.mark.usefixtures("converted_here")
@pytest.mark.parametrize("mask_stride", [2, 4])
def test_a_smaller_mask_is_held_against_the_modules_own_smaller_mask(mask_stride: int) -> None:
    source, targets = NETWORKS["unit"], ("cpu-fp32", "jetson-fp16")
    outcome = export_bundle(plan(source, targets, mask_stride))
    assert outcome.failed == {}
    for artifact in outcome.manifest.artifacts:
        assert (artifact.verification or {})["agreement"] >= 0.999, artifact.target
    against = compare_bundle(Path("own.fastseg"), source.open(), count=2)
    assert all(row.found is None or row.found.agreement >= 0.999 for row in against.rows)


@pytest.mark.usefixtures("converted_here")
def test_another_threshold_is_another_network(folder: Path) -> None:
    export_bundle(plan(NETWORKS["one logit"], ("cpu-fp32",)))
    with open_bundle(folder / "own.fastseg") as bundle:
        assert bundle.manifest.model.logits == {"output": "", "threshold": 0.55}
        assert [c.name for c in bundle.manifest.classes] == ["background", "object"]
    other = NetworkSource("nets:one_logit", OBJECT, None, SIZE)
    with pytest.raises(ValueError, match="holds another network"):
        export_bundle(plan(other, ("cpu-int8",)))


@pytest.mark.usefixtures("converted_here")
def test_the_same_weights_under_edited_code_are_another_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_bundle(plan(NETWORKS["unit"], ("cpu-fp32",)))
    edited = CODE.replace("self.head(self.stem(x))", "self.head(self.stem(1 - x))")
    (folder / "nets.py").write_text(edited)
    monkeypatch.delitem(sys.modules, "nets")
    with pytest.raises(ValueError, match=r"answers otherwise .*% of the pixels .*--force"):
        export_bundle(plan(NETWORKS["unit"], ("jetson-fp16",)))
    (folder / "nets.py").write_text(CODE + "# a comment\n")
    monkeypatch.delitem(sys.modules, "nets")
    joined = export_bundle(plan(NETWORKS["unit"], ("jetson-fp16",))).manifest
    assert [artifact.target for artifact in joined.artifacts] == ["cpu-fp32", "jetson-fp16"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (NetworkSource("nets:two", numbered_classes(5), None, SIZE), "0: .* 1: .* say which are"),
        (NetworkSource("nets:sigmoid", OBJECT, None, SIZE), "leave the sigmoid out"),
        (NetworkSource("nets:broken", numbered_classes(5), None, SIZE), r"KeyError: .*nets.py:\d+"),
        (NetworkSource("nets:odd_height", numbered_classes(5), None, SIZE), r"nets.py:\d+"),
        (NetworkSource("nets:net", numbered_classes(5), None, SIZE, threshold=0.3), "leave it out"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_converted(
    source: NetworkSource, message: str, folder: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        export_bundle(plan(source, ("cpu-fp32",)))
    assert "\n" not in str(caught.value)
    assert not (folder / "own.fastseg").exists()


def test_what_a_converter_cannot_take_is_one_line(folder: Path) -> None:
    source = NetworkSource("nets:running", numbered_classes(5), None, SIZE)
    refused = export_bundle(plan(source, ("cpu-fp32",))).failed["cpu-fp32"]
    assert "ONNX cannot express" in refused and "cummax" in refused
    assert "\n" not in refused


@pytest.mark.parametrize("target", ["cpu-int8", "jetson-int8"])
def test_int8_that_was_calibrated_on_grey_still_knows_black_and_white(
    target: str, folder: Path
) -> None:
    (folder / "grey").mkdir()
    for shade in (118, 138):
        cv2.imwrite(f"grey/{shade}.png", np.full((SIZE[1], SIZE[0], 3), shade, np.uint8))
    source, chosen = NETWORKS["imagenet"], load_target(target)
    network, export = source.open(), load_exporter(chosen.exporter)
    conversion = Conversion(Recipe(source, Calibration("grey", 2)), chosen, "int8")
    made = export(Request(network, conversion), folder)
    model = onnx.load(folder / made.entry)
    values = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    entered = "/core/enter/Conv_output_0"
    (quantizer,) = (node for node in model.graph.node if [*node.input][:1] == [entered])
    scale, zero_point = (values[name] for name in quantizer.input[1:])
    limits = np.iinfo(zero_point.dtype)
    least, most = ((end - float(zero_point)) * scale for end in (limits.min, limits.max))
    assert network.info.normalization is not None
    low_3, high_3 = network.info.normalization.limits()
    assert least - scale < min(low_3) and max(high_3) < most + scale
    assert most - least < 2 * (max(high_3) - min(low_3))
