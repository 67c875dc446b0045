"""Core ML packages: what is in them, and that they compute what PyTorch does.

The packages are evaluated without macOS (backend_mil.py), so the last part breaks
conversions on purpose to see that the evaluation notices.
"""

import copy
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastseg_exporters.convert.exporter import (
    Conversion,
    ConversionError,
    ExportedArtifact,
    Recipe,
    Request,
    load_exporter,
)
from fastseg_exporters.convert.source import NetworkSource
from fastseg_runtime.arrays.metrics import agreement
from fastseg_runtime.bundle.manifest import Artifact, InputSpec, OutputSpec, numbered_classes
from fastseg_runtime.engines.backend import ModelSource
from fastseg_targets.target import load_target
from torch import Tensor, nn

from fastseg import CheckpointInfo, DeployGraph, FastSegNet, Network
from fastseg.data.generated.street.scene import draw_street
from fastseg.network import hash_weights
from tests.doubles.trained_nano import CLASSES, trained_nano

pytest.importorskip("coremltools", reason="needs coremltools: pip install 'fastseg-edge[coreml]'")
from fastseg_exporters.coreml import to_coreml
from fastseg_exporters.coreml.backend_mil import MilBackend, read_program
from fastseg_exporters.coreml.to_coreml import CONVERSION_DATE, PREVIEW_PARAMS, PREVIEW_TYPE

pytestmark = [
    pytest.mark.slow,  # importing coremltools alone takes five seconds
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Function _TORCH_OPS_REGISTRY:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up <Temporary:ResourceWarning"),
]
TRAINING_SIZE = (128, 64)
AGREEMENT = 0.998


def scenes(count: int, width: int, height: int) -> list[tuple[Any, Any]]:
    """Draw streets: images (H, W, 3) and class ids (H, W), uint8."""
    return [draw_street(np.random.default_rng(seed), width, height) for seed in range(count)]


@pytest.fixture(scope="module")
def trained() -> FastSegNet:
    return trained_nano(8, *TRAINING_SIZE)


class ForeignNet(nn.Module):
    """A small U-Net of layers that FastSegNet has not."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding="same"),
            nn.BatchNorm2d(16),
            nn.Hardswish(),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(16, 32, 3, padding=2, dilation=2, groups=4),
            nn.LeakyReLU(0.1),
            nn.AvgPool2d(2),
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 32, 1), nn.SiLU())
        self.up = nn.ConvTranspose2d(64, 32, 4, 2, 1)
        self.classify = nn.Conv2d(32, num_classes, 1)

    def forward(self, image_N3HW: Tensor) -> Tensor:
        x_NChw = self.down(image_N3HW)
        wide_NChw = F.interpolate(self.pool(x_NChw), x_NChw.shape[-2:], mode="bilinear")
        return self.classify(F.relu6(self.up(torch.cat([x_NChw, wide_NChw], 1))))


class Strange(nn.Module):
    """A layer that no phone has."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def request(
    model: nn.Module,
    width: int = 160,
    height: int = 96,
    precision: str = "fp16",
    target: str = "ios-fp16",
    **changes: Any,
) -> Request:
    info = CheckpointInfo(
        "nano",
        numbered_classes(CLASSES),
        width,
        height,
        trained_on="generated streets",
        data_licence="none needed",
    )
    network = Network(model, info, "street", hash_weights(model.state_dict()))
    recipe = Recipe(NetworkSource("street"), **changes)
    return Request(network, Conversion(recipe, load_target(target), precision))


def keeping(asked: Request, layers: tuple[str, ...]) -> Request:
    conversion = dataclasses.replace(asked.conversion, keep_float=layers)
    return dataclasses.replace(asked, conversion=conversion)


def with_palette(asked: Request, bits: int) -> Request:
    target = dataclasses.replace(asked.conversion.target, options={"palette_bits": bits})
    conversion = dataclasses.replace(asked.conversion, target=target)
    return dataclasses.replace(asked, conversion=conversion)


def infer(exported: ExportedArtifact, folder: Path, images: list[Any]) -> list[Any]:
    """Run a package the way the gate does: behind the runtime's contract."""
    height, width = images[0].shape[:2]
    backend = MilBackend()
    backend.open(
        ModelSource(
            Artifact("ios", exported.format, "fp16", exported.entry, (), exported.io),
            InputSpec(width, height),
            OutputSpec(),
            read=lambda path: (folder / path).read_bytes(),
            locate=lambda: folder / exported.entry,
        )
    )
    results = [backend.infer(image[None]) for image in images]
    backend.close()
    return results


def torch_infer(asked: Request, images: list[Any]) -> list[Any]:
    with torch.inference_mode():
        return [asked.graph()(torch.from_numpy(image[None])).numpy() for image in images]


def measure(asked: Request, folder: Path, count: int = 3) -> float:
    """Export, run on scenes, and return the fraction of pixels that agree with PyTorch."""
    info = asked.network.info
    images = [image for image, _ in scenes(count, info.width, info.height)]
    results = infer(to_coreml.export(asked, folder), folder, images)
    return agreement(np.stack(results), np.stack(torch_infer(asked, images)))


def file_bytes(folder: Path) -> dict[Path, bytes]:
    return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize(("width", "height"), [(480, 360), (1024, 512), (100, 60)])
def test_class_maps_agree_with_pytorch(
    trained: FastSegNet, width: int, height: int, tmp_path: Path
) -> None:
    assert measure(request(trained, width, height), tmp_path) >= AGREEMENT


@pytest.mark.parametrize("mask_stride", [2, 4])
def test_small_masks_agree_with_pytorch(
    trained: FastSegNet, mask_stride: int, tmp_path: Path
) -> None:
    asked = request(trained, 480, 352, mask_stride=mask_stride)
    assert measure(asked, tmp_path) >= AGREEMENT


@pytest.mark.parametrize("variant", ["small", "base"])
def test_logits_of_every_variant_are_pytorchs_up_to_fp16(variant: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    asked = request(FastSegNet(CLASSES, variant).eval(), output="logits")
    image = scenes(1, 160, 96)[0][0]
    exported = to_coreml.export(asked, tmp_path)
    (result,), (expected,) = infer(exported, tmp_path, [image]), torch_infer(asked, [image])
    assert exported.io == {"image": "image", "logits": "float32 NCHW"}
    assert result.dtype == np.float32
    assert np.abs(result - expected).max() < 0.02 * np.abs(expected).max()


def test_a_network_of_ones_own_converts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    asked = request(ForeignNet(CLASSES).eval(), output="logits")
    image = scenes(1, 160, 96)[0][0]
    exported = to_coreml.export(asked, tmp_path)
    (result,), (expected,) = infer(exported, tmp_path, [image]), torch_infer(asked, [image])
    assert np.abs(result - expected).max() < 0.01 * np.abs(expected).max()
    classes = request(asked.network.model)
    assert measure(classes, tmp_path / "classes") >= 0.99  # its weights are noise: near ties


def test_a_normalisation_of_ones_own_is_built_in(trained: FastSegNet, tmp_path: Path) -> None:
    asked = request(trained)
    info = dataclasses.replace(asked.network.info, mean=110.0, std=58.0)
    asked = dataclasses.replace(asked, network=dataclasses.replace(asked.network, info=info))
    assert measure(asked, tmp_path) >= AGREEMENT


def test_an_operation_that_core_ml_lacks_is_named_with_its_module(tmp_path: Path) -> None:
    head = nn.Sequential(nn.Conv2d(3, CLASSES, 1), Strange(torch.special.gammaln))
    with pytest.raises(ConversionError, match=r"gammaln.* in 1 \(.*Strange\)"):
        to_coreml.export(request(head), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_operation_whose_converter_fails_is_named_with_its_module(tmp_path: Path) -> None:
    down, up = nn.Conv2d(3, 3, 3, 4, 1), nn.ConvTranspose2d(3, CLASSES, 2, 2, output_padding=1)
    with pytest.raises(ConversionError, match=r"conv_transpose2d.* in 1 \(.*ConvTranspose2d\)"):
        to_coreml.export(request(nn.Sequential(down, up)), tmp_path)


def test_an_operation_that_cannot_be_proven_here_is_named_with_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    head = nn.Sequential(nn.Conv2d(3, CLASSES, 1), Strange(lambda x: x.cumsum(1)))
    with pytest.raises(ConversionError, match=r"cumsum, from aten.cumsum.* in 1 \(.*Strange\)"):
        to_coreml.export(request(head), tmp_path)


def test_a_network_that_torch_cannot_trace_is_an_error_that_says_so(tmp_path: Path) -> None:
    stubborn = Strange(lambda x: x if x.sum().item() > 0 else -x)
    with pytest.raises(
        ConversionError, match="cannot trace the network: its Python looks at values"
    ):
        to_coreml.export(request(nn.Sequential(nn.Conv2d(3, CLASSES, 1), stubborn)), tmp_path)


@pytest.mark.parametrize(
    ("precision", "target", "largest_share", "agreeing"),
    [
        ("int8-weights", "ios-int8", 0.6, 0.98),
        ("palettized", "ios-palettized", 0.5, 0.95),
    ],
)
def test_compressed_weights_are_smaller_and_nearly_as_good(
    trained: FastSegNet,
    precision: str,
    target: str,
    largest_share: float,
    agreeing: float,
    tmp_path: Path,
) -> None:
    to_coreml.export(request(trained), tmp_path / "fp16")
    asked = with_palette(request(trained, precision=precision, target=target), 6)
    assert measure(asked, tmp_path / "small") >= agreeing
    sizes = [sum(map(len, file_bytes(tmp_path / n).values())) for n in ("small", "fp16")]
    assert sizes[0] < largest_share * sizes[1]


def test_layers_can_be_kept_out_of_int8(trained: FastSegNet, tmp_path: Path) -> None:
    asked = request(trained, precision="int8-weights", target="ios-int8")
    layers = to_coreml.export(asked, tmp_path / "all").layers
    kept = (layers[0], layers[-1])
    fewer = to_coreml.export(keeping(asked, kept), tmp_path / "fewer")
    assert fewer.layers == layers[1:-1]


def test_a_palette_that_ios_lacks_is_refused(trained: FastSegNet, tmp_path: Path) -> None:
    asked = with_palette(request(trained, precision="palettized"), 5)
    with pytest.raises(ValueError, match="palette_bits is 5; choose one of"):
        to_coreml.export(asked, tmp_path)


def test_a_precision_that_core_ml_lacks_is_refused(trained: FastSegNet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="coreml exporter makes .*, not int8"):
        load_exporter("coreml")(request(trained, precision="int8"), tmp_path)


def test_xcode_finds_texts_classes_and_colours(trained: FastSegNet, tmp_path: Path) -> None:
    import coremltools

    asked = request(trained)
    exported = to_coreml.export(asked, tmp_path)
    spec = coremltools.utils.load_spec(str(tmp_path / exported.entry))
    metadata, user = spec.description.metadata, spec.description.metadata.userDefined
    assert "11 classes" in metadata.shortDescription
    assert "trained on generated streets" in metadata.shortDescription
    assert metadata.author.startswith("fastseg-edge ")
    assert metadata.license == "Weights: use not stated. Data: none needed"
    assert metadata.versionString == asked.network.sha256[:12]
    assert user[PREVIEW_TYPE] == "imageSegmenter"
    preview = json.loads(user[PREVIEW_PARAMS])
    assert preview["labels"] == [entry.name for entry in asked.network.info.classes]
    assert preview["colors"][:3] == ["#000000", "#800000", "#008000"]
    assert spec.specificationVersion == 7  # iOS 16
    assert spec.description.input[0].shortDescription.startswith("RGB image")
    assert "0 to 10" in spec.description.output[0].shortDescription
    assert CONVERSION_DATE not in user


def test_a_package_holds_what_its_manifest_lists_and_nothing_else(
    trained: FastSegNet, tmp_path: Path
) -> None:
    exported = to_coreml.export(request(trained), tmp_path)
    package = tmp_path / exported.entry
    listed = json.loads((package / "Manifest.json").read_text())["itemInfoEntries"].values()
    files = {str(file.relative_to(package)) for file in package.rglob("*") if file.is_file()}
    weights = "Data/com.apple.CoreML/weights"
    assert {f"Data/{item['path']}" for item in listed} == {
        "Data/com.apple.CoreML/model.mlmodel",
        weights,
    }
    assert files == {
        "Manifest.json",
        "Data/com.apple.CoreML/model.mlmodel",
        f"{weights}/weight.bin",
    }


def test_a_package_with_another_kind_of_input_is_refused(tmp_path: Path) -> None:
    import coremltools

    program = torch.export.export(nn.ReLU(), (torch.zeros(1, 4),)).run_decompositions({})
    path = tmp_path / "other.mlpackage"
    coremltools.convert(program, minimum_deployment_target=coremltools.target.iOS16).save(str(path))
    with pytest.raises(ValueError, match="expected an RGB or BGR image as its input"):
        read_program(path)


# Broken on purpose: the agreement must collapse.


def swap_image_type(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    made = to_coreml.ct.ImageType
    monkeypatch.setattr(to_coreml.ct, "ImageType", lambda **given: made(**{**given, **changes}))


def test_a_wrong_mean_is_caught(
    trained: FastSegNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap_image_type(monkeypatch, bias=[0.0] * 3)
    assert measure(request(trained), tmp_path) < 0.9


def test_a_scale_ten_percent_off_is_caught(
    trained: FastSegNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap_image_type(monkeypatch, scale=1.1 / 64)
    assert measure(request(trained), tmp_path) < AGREEMENT


def test_swapped_channels_are_caught(
    trained: FastSegNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap_image_type(monkeypatch, color_layout=to_coreml.ct.colorlayout.BGR)
    assert measure(request(trained), tmp_path) < 0.98


def test_aligned_corners_are_caught(
    trained: FastSegNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = DeployGraph.upsample

    def trace_wrongly(graph: DeployGraph) -> Any:
        broken = copy.deepcopy(graph)
        broken.upsample = lambda logits: F.interpolate(  # type: ignore[method-assign]
            logits, (graph.height, graph.width), mode="bilinear", align_corners=True
        )
        return to_coreml_trace(broken)

    to_coreml_trace = to_coreml.trace
    monkeypatch.setattr(to_coreml, "trace", trace_wrongly)
    assert measure(request(trained), tmp_path) < 0.99
    assert DeployGraph.upsample is right


@pytest.mark.skipif("FASTSEG_CAMVID" not in os.environ, reason="FASTSEG_CAMVID is not set")
def test_a_shipped_network_agrees_on_camvids_test_images(tmp_path: Path) -> None:
    from fastseg import open_network, pretrained
    from fastseg.data import open_dataset

    names = [name for name in pretrained.names() if name.endswith("-camvid")]
    if not names:
        pytest.skip("no weights trained on CamVid are shipped")
    network = open_network(names[0], size=(480, 360))  # that of the pictures
    asked = dataclasses.replace(request(network.model), network=network)
    dataset = open_dataset(f"camvid:{os.environ['FASTSEG_CAMVID']}", "test")
    images = [dataset[index].image_HW3 for index in range(0, len(dataset), 10)]
    results = infer(to_coreml.export(asked, tmp_path), tmp_path, images)
    assert agreement(np.stack(results), np.stack(torch_infer(asked, images))) >= AGREEMENT
