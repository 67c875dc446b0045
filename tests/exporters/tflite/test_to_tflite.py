"""TFLite files: what is in them, and that LiteRT computes with them what PyTorch does."""

import dataclasses
import os
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastseg_exporters.convert.exporter import (
    Conversion,
    ConversionError,
    ExportedArtifact,
    Recipe,
    Request,
    load_exporter,
)
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_runtime.arrays.metrics import agreement
from fastseg_runtime.bundle.manifest import Artifact, InputSpec, OutputSpec, numbered_classes
from fastseg_runtime.engines.backend import ModelSource
from fastseg_targets.target import load_target
from torch import nn

from fastseg import CheckpointInfo, FastSegNet, Network
from fastseg.data.generated.street.scene import draw_street
from fastseg.network import hash_weights
from tests.doubles.trained_nano import CLASSES, trained_nano

pytest.importorskip("litert_torch", reason="needs pip install 'fastseg-edge[tflite]'")
from ai_edge_litert.interpreter import Interpreter
from fastseg_exporters.tflite import to_tflite
from fastseg_runtime.engines.backend_litert import LiteRTBackend

pytestmark = [
    pytest.mark.slow,  # a conversion takes ten seconds
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the converter's own imports
    pytest.mark.filterwarnings("ignore:Warning. Enabling .experimental_preserve:UserWarning"),
]
WIDTH, HEIGHT = 160, 90  # 90 rows are padded to 96, which adds PAD and SLICE
TARGETS = {"fp32": "android-fp32", "fp16": "android-fp16", "int8": "android-int8"}
GPU_OPERATIONS = {
    *("ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "LOGISTIC", "MEAN", "MUL", "PAD"),
    *("RESIZE_BILINEAR", "SLICE"),
}


def scenes(count: int) -> tuple[Any, Any]:
    """Draw streets: images (N, H, W, 3) and class ids (N, H, W), uint8."""
    pairs = [draw_street(np.random.default_rng(seed), WIDTH, HEIGHT) for seed in range(count)]
    images, labels = zip(*pairs, strict=True)
    return np.stack(images), np.stack(labels)


@pytest.fixture(scope="module")
def trained() -> FastSegNet:
    return trained_nano(16, WIDTH, HEIGHT)


def small_network() -> nn.Module:
    """Make a network that converts quickly."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, CLASSES, 1)
    ).eval()


class Strange(nn.Module):
    """A layer that no phone has."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def request(
    model: nn.Module,
    precision: str = "fp32",
    options: dict[str, Any] | None = None,
    normalise: tuple[float, float] = (128.0, 64.0),
    **changes: Any,
) -> Request:
    mean, std = normalise
    info = CheckpointInfo("nano", numbered_classes(CLASSES), WIDTH, HEIGHT, mean=mean, std=std)
    network = Network(model, info, "street", hash_weights(model.state_dict()))
    target = load_target(TARGETS.get(precision, "android-fp32"))
    if options is not None:
        target = dataclasses.replace(target, options=options)
    recipe = Recipe(NetworkSource("street"), Calibration(count=8), **changes)
    return Request(network, Conversion(recipe, target, precision))


def keeping(asked: Request, layers: tuple[str, ...]) -> Request:
    conversion = dataclasses.replace(asked.conversion, keep_float=layers)
    return dataclasses.replace(asked, conversion=conversion)


@dataclasses.dataclass(frozen=True, eq=False)
class Exported:
    """A file and how it was asked for."""

    asked: Request
    artifact: ExportedArtifact
    path: Path

    def interpreter(self) -> Any:
        return Interpreter(str(self.path))

    def operations(self) -> set[str]:
        # "DELEGATE" stands beside what it replaces, and is none of the file's.
        return {op["op_name"] for op in self.interpreter()._get_ops_details()} - {"DELEGATE"}

    def types(self) -> dict[str, Any]:
        return {t["name"]: t["dtype"] for t in self.interpreter().get_tensor_details()}

    def infer(self, images_NHW3: Any) -> Any:
        """Run it the way the gate does: behind the runtime's contract."""
        info = self.asked.network.info
        backend = LiteRTBackend()
        backend.open(
            ModelSource(
                Artifact("android", "tflite", "", self.artifact.entry, (), self.artifact.io),
                InputSpec(info.width, info.height, mean=info.mean, std=info.std),
                OutputSpec(),
                read=lambda _: self.path.read_bytes(),
                locate=lambda: self.path,
            )
        )
        results = [backend.infer(image[None]).copy() for image in images_NHW3]
        backend.close()
        return np.concatenate(results)

    def expected(self, images_NHW3: Any) -> Any:
        """Return what PyTorch gives: logits channels last."""
        graph = self.asked.graph()
        if "logits" in self.artifact.io:
            graph.output = "logits"
        with torch.inference_mode():
            result = graph(torch.from_numpy(images_NHW3))
        return (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).numpy()

    def agreement(self) -> float:
        images_NHW3, _ = scenes(4)
        return agreement(self.infer(images_NHW3), self.expected(images_NHW3))

    def relative_error(self) -> float:
        images_NHW3, _ = scenes(2)
        expected = self.expected(images_NHW3)
        return float(np.abs(self.infer(images_NHW3) - expected).max() / np.abs(expected).max())


def export(asked: Request, folder: Path) -> Exported:
    folder.mkdir(exist_ok=True)
    artifact = to_tflite.export(asked, folder)
    return Exported(asked, artifact, folder / artifact.entry)


@pytest.fixture(scope="module")
def fp32(trained: FastSegNet, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(request(trained), tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def int8(trained: FastSegNet, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(request(trained, "int8"), tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def gpu(trained: FastSegNet, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(request(trained, "fp16"), tmp_path_factory.mktemp("gpu"))


def test_a_float_file_gives_pytorchs_class_maps(fp32: Exported) -> None:
    assert fp32.artifact.io == {"image": "uint8 NHWC", "classes": "uint8"}
    assert fp32.agreement() >= 0.998


@pytest.mark.skipif("FASTSEG_CAMVID" not in os.environ, reason="FASTSEG_CAMVID is not set")
def test_a_shipped_network_agrees_on_camvids_test_images(tmp_path: Path) -> None:
    from fastseg import open_network, pretrained
    from fastseg.data import open_dataset

    names = [name for name in pretrained.names() if name.endswith("-camvid")]
    if not names:
        pytest.skip("no weights trained on CamVid are shipped")
    network = open_network(names[0], size=(480, 360))  # that of the pictures
    exported = export(dataclasses.replace(request(network.model), network=network), tmp_path)
    dataset = open_dataset(f"camvid:{os.environ['FASTSEG_CAMVID']}", "test")
    images = [dataset[index].image_HW3[None] for index in range(0, len(dataset), 20)]
    same = [agreement(exported.infer(image), exported.expected(image)) for image in images]
    assert np.mean(same) >= 0.998


def test_an_int8_file_gives_nearly_pytorchs_class_maps(int8: Exported) -> None:
    assert int8.artifact.io == {"image": "int8 NHWC", "classes": "uint8"}
    assert int8.agreement() >= 0.95


def test_no_file_transposes(fp32: Exported, int8: Exported, gpu: Exported) -> None:
    for exported in (fp32, int8, gpu):
        assert "CONV_2D" in exported.operations()
        assert "TRANSPOSE" not in exported.operations()


def test_an_int8_file_computes_in_int8_from_end_to_end(int8: Exported) -> None:
    assert not {"QUANTIZE", "DEQUANTIZE"} & int8.operations()


def test_the_int8_input_is_the_bytes_minus_128(int8: Exported) -> None:
    (image,) = int8.interpreter().get_input_details()
    assert image["quantization"] == (1 / 64, 0)


def test_the_gpu_delegates_file_has_float_in_logits_out_and_only_what_a_gpu_runs(
    gpu: Exported,
) -> None:
    assert gpu.artifact.io == {"image": "float32 NHWC", "logits": "float32 NHWC"}
    assert gpu.operations() <= GPU_OPERATIONS
    assert gpu.relative_error() < 0.01


def test_smaller_numbers_make_smaller_files(fp32: Exported, int8: Exported, gpu: Exported) -> None:
    whole, half, quarter = (e.path.stat().st_size for e in (fp32, gpu, int8))
    assert half < 0.55 * whole
    assert quarter < 0.30 * whole


def test_layers_are_named_after_modules_in_the_order_of_the_graph(int8: Exported) -> None:
    layers = int8.artifact.layers
    assert len(set(layers)) == len(layers)
    assert layers[0].startswith("core.stem.0.")
    assert layers[-1].startswith("core.head.1:")


def test_layers_can_be_kept_in_float(tmp_path: Path) -> None:
    asked = request(small_network(), "int8", output="logits")
    whole = export(asked, tmp_path / "int8")
    *others, kept = whole.artifact.layers
    mixed = export(keeping(asked, (kept,)), tmp_path / "mixed")
    assert mixed.artifact.layers == tuple(others)
    assert whole.types()[kept] == np.int8
    assert mixed.types()[kept] == np.float32
    assert {mixed.types()[layer] for layer in others} == {np.int8}


def test_int8_can_give_logits(tmp_path: Path) -> None:
    exported = export(request(small_network(), "int8", output="logits"), tmp_path)
    assert exported.artifact.io == {"image": "int8 NHWC", "logits": "float32 NHWC"}
    assert exported.relative_error() < 0.05


def test_a_normalisation_of_ones_own_is_as_exact(tmp_path: Path) -> None:
    asked = request(small_network(), "int8", output="logits", normalise=(110.0, 58.0))
    exported = export(asked, tmp_path)
    (image,) = exported.interpreter().get_input_details()
    assert image["quantization"] == (pytest.approx(1 / 58), 110 - 128)
    assert exported.relative_error() < 0.05


def test_an_operation_that_tflite_lacks_is_named_with_its_module(tmp_path: Path) -> None:
    odd = nn.Sequential(nn.Conv2d(3, CLASSES, 1), Strange(torch.special.i0))
    with pytest.raises(ConversionError, match=r"aten\.i0\.default in 1 \(.*Strange\)"):
        to_tflite.export(request(odd), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_network_that_torch_cannot_trace_is_one_clear_error(tmp_path: Path) -> None:
    stubborn = Strange(lambda x: x if x.sum().item() > 0 else -x)
    with pytest.raises(ConversionError, match="TFLite cannot take the network: its Python looks"):
        to_tflite.export(request(nn.Sequential(nn.Conv2d(3, CLASSES, 1), stubborn)), tmp_path)


@pytest.mark.parametrize(
    ("precision", "options", "message"),
    [
        ("palettized", {}, "makes .*'fp32', 'fp16', 'int8'.*, not palettized"),
        ("int8", {"gpu_delegate": True}, "gpu_delegate is for float files"),
        ("fp32", {"gpu": True}, r"unknown keys \['gpu'\]; valid keys are \['gpu_delegate'\]"),
        ("fp32", {"gpu_delegate": 1}, "options: gpu_delegate: expected bool, got 1"),
    ],
)
def test_what_does_not_exist_is_refused(
    precision: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        load_exporter("tflite")(request(small_network(), precision, options), tmp_path)


def test_int8_refuses_a_mean_between_two_bytes(tmp_path: Path) -> None:
    asked = request(small_network(), "int8", normalise=(127.5, 64.0))
    with pytest.raises(ValueError, match="mean is 127.5"):
        to_tflite.export(asked, tmp_path)


@pytest.fixture(scope="session")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make an environment with the last tflite-runtime, whose numpy is older than ours."""
    folder = tmp_path_factory.mktemp("tflite_runtime")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    packages = ["tflite-runtime==2.14.0", "numpy<2"]
    pip = [str(python), "-m", "pip", "install", "-q", *packages]
    if subprocess.run(pip, capture_output=True, timeout=300).returncode:
        pytest.skip("tflite-runtime 2.14 cannot be installed here: no package index, or no wheel")
    yield python


OPEN_AND_RUN = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
(image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
interpreter.set_tensor(image["index"], np.load(sys.argv[2]))
interpreter.invoke()
np.save(sys.argv[3], interpreter.get_tensor(output["index"]))
"""


def test_tflite_runtime_2_14_runs_the_same_files(
    old_python: Path, fp32: Exported, int8: Exported, tmp_path: Path
) -> None:
    images_NHW3, _ = scenes(1)
    inputs = {fp32: images_NHW3, int8: (images_NHW3.astype(np.int16) - 128).astype(np.int8)}
    for number, (exported, given) in enumerate(inputs.items()):
        np.save(tmp_path / "given.npy", given)
        result = tmp_path / f"{number}.npy"
        arguments = [str(exported.path), str(tmp_path / "given.npy"), str(result)]
        subprocess.run([str(old_python), "-c", OPEN_AND_RUN, *arguments], check=True, timeout=60)
        assert agreement(np.load(result), exported.infer(images_NHW3)) >= 0.99
