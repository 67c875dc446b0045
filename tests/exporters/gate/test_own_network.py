"""A network of one's own through every exporter: proven like ours, or refused by its module."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastseg_exporters.convert.exporter import Recipe, find_exporter
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_targets.target import load_target, target_names

from fastseg import (
    CheckpointError,
    CheckpointInfo,
    FastSegNet,
    Network,
    open_network,
    save_checkpoint,
)
from fastseg.data.camvid import CLASSES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the converters' own imports
]
DATA = "synthetic:size=96x64,train=4,val=2,test=2"
SIZE = (96, 64)
# A U-Net in small, as people write them: nothing of it is FastSegNet's.
CODE = """
import torch
from torch import nn

def step(inputs, outputs, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
                         nn.BatchNorm2d(outputs), nn.SiLU())

class UNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.enter, self.down = step(3, 8), nn.Sequential(nn.MaxPool2d(2), step(8, 16))
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.leave = nn.Sequential(step(16, 8), nn.Conv2d(8, num_classes, 1))

    def forward(self, image):
        fine = self.enter(image)
        return self.leave(torch.cat([fine, self.up(self.down(fine))], dim=1))

class Shared(nn.Module):  # one convolution under two norms, as in detectors' heads
    def __init__(self, num_classes):
        super().__init__()
        self.enter, self.same = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.one, self.two = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.one.running_var.fill_(0.04)
        self.two.running_mean.fill_(-0.3)
        self.leave = nn.Conv2d(16, num_classes, 1)

    def forward(self, image):
        x = self.enter(image)
        both = [self.one(self.same(x)), self.two(self.same(1 - x))]
        return self.leave(torch.cat(both, dim=1))

class Guessing(nn.Conv2d):
    def __init__(self, num_classes):
        super().__init__(3, num_classes, 3, padding=1)

    def forward(self, image):
        return super().forward(nn.functional.dropout(image))

class Spectrum(nn.Module):
    def forward(self, x):
        return nn.functional.interpolate(torch.fft.rfft2(x).real, size=x.shape[2:])

class Unpooling(nn.Module):  # as ENet and SegNet, with the norms of one
    def __init__(self, num_classes):
        super().__init__()
        self.enter = nn.Sequential(step(3, 8), *(step(8, 8) for _ in range(24)))
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.grow = nn.ModuleList([nn.MaxUnpool2d(2)])
        self.leave = nn.Conv2d(8, num_classes, 1)

    def forward(self, image):
        small, indices = self.pool(self.enter(image))
        return self.leave(self.grow[0](small, indices))

class Strange(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, num_classes, 3, 4, 1), Spectrum())

    def forward(self, image):
        return self.head(image)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with my_nets.py, unet.pth and classes.txt, as the user's own."""
    (tmp_path / "my_nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    torch.save(open_network("my_nets:UNet", CLASSES).model.state_dict(), "unet.pth")
    return tmp_path


def plan(spec: str, weights: str | None, folder: Path, targets: list[str]) -> Plan:
    return Plan(
        Recipe(NetworkSource(spec, CLASSES, weights, SIZE), Calibration(DATA, 4)),
        tuple(map(load_target, targets)),
        folder / "own.fastseg",
        DATA,
        verify_images=2,
    )


def test_a_network_of_other_classes_is_refused_before_anything_is_converted(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="tells 3 classes apart, expected 11"):
        export_bundle(plan("torch.nn:Identity", None, folder, ["cpu-fp32"]))
    assert not (folder / "own.fastseg").exists()


def test_a_network_that_unpools_is_refused_before_anything_is_tried(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "graph", None)  # none is made
    with pytest.raises(ValueError, match=r"max_unpool2d in grow\.0 \(MaxUnpool2d\) is") as said:
        export_bundle(plan("my_nets:Unpooling", None, folder, target_names()))
    assert "\n" not in str(said.value)
    assert not (folder / "own.fastseg").exists()


def test_a_network_that_cannot_be_judged_is_refused_before_anything_is_converted(
    folder: Path,
) -> None:
    torch.save(open_network("my_nets:Guessing", CLASSES).model.state_dict(), "guessing.pth")
    with pytest.raises(ValueError, match="guessing cannot be exported: it gives another answer"):
        export_bundle(plan("my_nets:Guessing", "guessing.pth", folder, ["cpu-fp32"]))
    assert not (folder / "own.fastseg").exists()


def test_an_artifact_gives_what_the_module_itself_gives(folder: Path) -> None:
    torch.save(open_network("my_nets:Shared", CLASSES).model.state_dict(), "shared.pth")
    asked = plan("my_nets:Shared", "shared.pth", folder, ["cpu-fp32"])
    assert export_bundle(asked).failed == {}
    image_HW3 = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    x_13HW = ((torch.from_numpy(image_HW3)[None].float() - 128) / 64).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits_1Khw = asked.recipe.source.open().model(x_13HW)
        full_1KHW = F.interpolate(logits_1Khw, size=SIZE[::-1], mode="bilinear")
    with RealtimeSegmentation(folder / "own.fastseg") as session:
        assert (session.infer(image_HW3) == full_1KHW.argmax(1)[0].numpy()).mean() > 0.999


def toolchain_of(target: str) -> str:
    """Return which toolchain of a vendor a target lacks here; they have tests of their own."""
    return find_exporter(load_target(target).exporter).missing_toolchain


@pytest.mark.usefixtures("converted_here")
def test_every_format_takes_a_network_of_ones_own_and_is_proven(folder: Path) -> None:
    every = [name for name in target_names() if name != "pytorch" and not toolchain_of(name)]
    outcome = export_bundle(plan("my_nets:UNet", "unet.pth", folder, every))
    assert outcome.failed == {}
    with open_bundle(folder / "own.fastseg") as bundle:
        artifacts = bundle.manifest.artifacts
        assert bundle.manifest.model.variant == "my_nets:UNet"
    assert {artifact.target for artifact in artifacts} == set(every)
    for artifact in artifacts:
        least = 0.99 if artifact.precision in ("fp32", "fp16") else 0.8
        assert (artifact.verification or {})["agreement"] >= least, artifact.target


@pytest.mark.usefixtures("converted_here")
@pytest.mark.parametrize("variant", ["mobilenetv2", "lite"])
def test_a_backbone_of_others_is_exported_like_our_own_networks(variant: str, folder: Path) -> None:
    torch.manual_seed(0)
    network = FastSegNet(len(CLASSES), variant)
    info = CheckpointInfo(variant, CLASSES, *SIZE)
    save_checkpoint(folder / "backbone.safetensors", network, info)
    targets = ["cpu-fp32", "cpu-int8", "android-fp32", "jetson-fp16", "pytorch"]
    outcome = export_bundle(plan("backbone.safetensors", None, folder, targets))
    assert outcome.failed == {}
    for artifact in outcome.manifest.artifacts:
        assert (artifact.verification or {})["agreement"] >= 0.8, artifact.target


def test_its_code_cannot_go_into_a_bundle_and_that_is_said(folder: Path) -> None:
    outcome = export_bundle(plan("my_nets:UNet", "unet.pth", folder, ["pytorch"]))
    assert "the code of my_nets:UNet cannot go into a bundle" in outcome.failed["pytorch"]


@pytest.mark.parametrize("target", ["cpu-fp32", "jetson-fp16", "android-fp32", "ios-fp16"])
def test_an_operation_that_a_format_lacks_is_named_with_its_module(
    target: str, folder: Path
) -> None:
    torch.save(open_network("my_nets:Strange", CLASSES).model.state_dict(), "strange.pth")
    outcome = export_bundle(plan("my_nets:Strange", "strange.pth", folder, [target]))
    assert "fft_rfft2" in outcome.failed[target].replace("fft_r2c", "fft_rfft2")
    assert "head.1" in outcome.failed[target]
    assert not (folder / "own.fastseg").exists()
    assert json.dumps(outcome.failed)
