import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastseg import VARIANTS, FastSegNet, profile


@pytest.mark.parametrize("variant", VARIANTS)
def test_multiply_adds_agree_with_torchs_flop_counter(variant: str) -> None:
    model = FastSegNet(19, variant).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, 64, 128))
    assert profile(model, (128, 64)).macs == counter.get_total_flops() / 2


def test_a_foreign_network_with_a_transposed_convolution_is_counted_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 2, 2, 2))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, 32, 32))
    assert profile(model, (32, 32)).macs == counter.get_total_flops() / 2


def test_parameters_are_those_that_an_exported_network_holds() -> None:
    counted = profile(FastSegNet(19, "nano"), (64, 64)).parameters
    bare = FastSegNet(19, "nano", auxiliary=False)
    assert counted == sum(p.numel() for p in bare.parameters())


def test_the_table_names_each_stage_and_the_total() -> None:
    text = str(profile(FastSegNet(19, "nano"), (128, 64)))
    assert all(word in text for word in ("128x64", "stem", "stage_8", "fuse", "head", "total"))


def test_profiling_leaves_the_model_as_it_was() -> None:
    model = FastSegNet(3, "nano").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    profile(model, (64, 64))
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


class WeightsAsBuffers(nn.Module):
    """One convolution without a parameter, whose train() returns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(2, 3, 1, 1))

    def train(self, mode: bool = True) -> None:  # type: ignore[override]  # as people write it
        super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.get_buffer("weight"))


def test_a_network_without_parameters_is_profiled() -> None:
    assert profile(WeightsAsBuffers(), (64, 64)).parameters == 0
