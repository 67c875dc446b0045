"""ImageNet weights in the layouts of torchvision and timm, written here from their sources."""

from pathlib import Path

import pytest
import torch
from fastseg_runtime.bundle.manifest import ClassInfo
from safetensors.torch import save_file
from torch import Tensor

from fastseg import (
    CheckpointError,
    CheckpointInfo,
    DeployGraph,
    FastSegNet,
    load_checkpoint,
    save_checkpoint,
)
from fastseg.backbones.mobilenetv2 import MobileNetV2
from fastseg.imagenet_weights import load_backbone

CLASSES = (ClassInfo("road", (128, 64, 128)), ClassInfo("sky", (70, 130, 180)))
# torchvision/models/mobilenetv2.py: expansion, channels, blocks of its inverted residuals.
SETTING = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]


def conv(out_channels: int, in_channels: int, size: int) -> dict[str, Tensor]:
    return {"weight": torch.randn(out_channels, in_channels, size, size) * 0.1}


def norm(channels: int) -> dict[str, Tensor]:
    return {
        "weight": torch.rand(channels) + 0.5,
        "bias": torch.randn(channels) * 0.1,
        "running_mean": torch.randn(channels) * 0.1,
        "running_var": torch.rand(channels) + 0.5,
        "num_batches_tracked": torch.tensor(7),
    }


def classifier(layout: str) -> dict[str, Tensor]:
    """The state dict of a MobileNetV2 for 1000 classes, random, the same for both layouts."""
    torch.manual_seed(0)
    tv = layout == "torchvision"
    layers = {"features.0.0" if tv else "conv_stem": conv(32, 3, 3)}
    layers["features.0.1" if tv else "bn1"] = norm(32)
    in_channels, place = 32, 1
    for stage, (expansion, channels, blocks) in enumerate(SETTING):
        for index in range(blocks):
            hidden = in_channels * expansion
            parts = [conv(hidden, 1, 3), norm(hidden), conv(channels, hidden, 1), norm(channels)]
            ours = ["conv.0.0", "conv.0.1", "conv.1", "conv.2"]
            theirs = ["conv_dw", "bn1", "conv_pw", "bn2"]
            if expansion > 1:
                parts = [conv(hidden, in_channels, 1), norm(hidden), *parts]
                ours = ["conv.0.0", "conv.0.1", "conv.1.0", "conv.1.1", "conv.2", "conv.3"]
                theirs = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
            before = f"features.{place}" if tv else f"blocks.{stage}.{index}"
            names = ours if tv else theirs
            layers |= {f"{before}.{n}": part for n, part in zip(names, parts, strict=True)}
            in_channels, place = channels, place + 1
    layers["features.18.0" if tv else "conv_head"] = conv(1280, 320, 1)
    layers["features.18.1" if tv else "bn2"] = norm(1280)
    tensors = {f"{name}.{key}": v for name, part in layers.items() for key, v in part.items()}
    last = "classifier.1" if tv else "classifier"
    return tensors | {f"{last}.weight": torch.randn(1000, 1280), f"{last}.bias": torch.zeros(1000)}


@pytest.mark.parametrize(("layout", "suffix"), [("torchvision", "pth"), ("timm", "safetensors")])
def test_a_whole_backbone_is_taken_and_the_report_says_what_was_not_used(
    layout: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"imagenet.{suffix}"
    weights = classifier(layout)
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    network = FastSegNet(2, "mobilenetv2")
    report = load_backbone(network, path)
    tensors = len(network.backbone.state_dict())
    assert f"imagenet.{suffix}: {tensors} of {tensors} tensors of mobilenetv2 taken" in report
    assert "0 start anew; 8 not used: " in report
    kernel = classifier("torchvision")["features.17.conv.1.0.weight"]
    torch.testing.assert_close(network.backbone.features[17].conv[1][0].weight, kernel)


def test_our_normalisation_gives_the_maps_that_imagenets_gave(tmp_path: Path) -> None:
    weights = classifier("torchvision")
    torch.save(weights, tmp_path / "w.pth")
    ours, theirs = (FastSegNet(2, "mobilenetv2").eval() for _ in range(2))
    load_backbone(ours, tmp_path / "w.pth")
    theirs.backbone.load_state_dict(weights, strict=False)
    byte_13HW = torch.randint(0, 256, (1, 3, 64, 64)).float()
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (MobileNetV2.pixel_mean, MobileNetV2.pixel_std)
    )
    with torch.inference_mode():
        expected = theirs.backbone.features[0]((byte_13HW - mean) / std)
        got = ours.backbone.features[0]((byte_13HW - 128) / 64)
    inside = (..., slice(1, None), slice(1, None))  # the padding of the border differs
    torch.testing.assert_close(got[inside], expected[inside], atol=1e-4, rtol=1e-4)


def test_missing_layers_are_named_and_foreign_files_refused(tmp_path: Path) -> None:
    part = {k: v for k, v in classifier("torchvision").items() if not k.startswith("features.5.")}
    torch.save(part, tmp_path / "part.pth")
    report = load_backbone(FastSegNet(2, "mobilenetv2"), tmp_path / "part.pth")
    assert "15 start anew: features.5.conv.0.0.weight" in report
    torch.save({"layer1.0.conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"no tensor fits.*features\.0\.0.*got layer1\.0"):
        load_backbone(FastSegNet(2, "mobilenetv2"), tmp_path / "resnet.pth")


def test_weights_of_a_narrower_network_are_refused_not_taken_in_part(tmp_path: Path) -> None:
    narrow = classifier("torchvision")
    narrow["features.3.conv.0.0.weight"] = narrow["features.3.conv.0.0.weight"][:-8]
    torch.save(narrow, tmp_path / "narrow.pth")
    with pytest.raises(CheckpointError, match=r"features\.3\..* is \[136, .*has \[144, .*another"):
        load_backbone(FastSegNet(2, "mobilenetv2"), tmp_path / "narrow.pth")


def test_a_network_with_a_backbone_is_saved_opened_and_deployed_like_any_other(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    network = FastSegNet(2, "mobilenetv2").eval()
    assert [m.shape[1] for m in network.features(torch.zeros(1, 3, 64, 96))] == [80, 80, 80]
    save_checkpoint(tmp_path / "a.safetensors", network, CheckpointInfo("mobilenetv2", CLASSES))
    loaded, info = load_checkpoint(tmp_path / "a.safetensors")
    frame_1HW3 = torch.randint(0, 256, (1, 60, 96, 3), dtype=torch.uint8)
    image_13HW = ((frame_1HW3.float() - 128) / 64).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = network(image_13HW)
        torch.testing.assert_close(loaded(image_13HW), expected)
        ids = DeployGraph(loaded, 96, 60)(frame_1HW3)
    assert (ids == expected.argmax(1)).float().mean() > 0.999
    assert info.variant == "mobilenetv2"
