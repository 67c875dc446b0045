import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg import DeployGraph, FastSegNet
from fastseg.fold import fold_batch_norms, foldable_pairs
from tests.doubles.folding_networks import HABITS, with_habit

SIZE = (64, 48)


def image_N3HW() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, SIZE[1], SIZE[0], generator=generator)


def logits_of(network: nn.Module) -> Tensor:
    result = network(image_N3HW())
    logits_NKhw: Tensor = result[0] if isinstance(result, tuple) else result
    return logits_NKhw


@pytest.mark.parametrize("habit", HABITS)
def test_folding_changes_no_logit(habit: str) -> None:
    network = with_habit(habit)
    with torch.inference_mode():
        expected = logits_of(network)
        assert expected.std() > 0.05
        folded = DeployGraph(network, *SIZE).core(image_N3HW())
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "habit",
    [
        "a norm without affine part",
        "a convolution without bias",
        "a branch on the size",
        "a parametrized convolution",
        "layers under two names",
        "layers in a plain list",
    ],
)
def test_what_is_used_once_is_folded(habit: str) -> None:
    graph = DeployGraph(with_habit(habit), *SIZE)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in graph.modules())


@pytest.mark.parametrize(
    "habit",
    [
        "a convolution called twice",
        "a norm behind two convolutions",
        "a norm without statistics",
        "a convolution read elsewhere",
        "a convolution that is an output",
        "a weight used by hand",
        "a hook on the norm",
        "a convolution of one's own",
    ],
)
def test_what_is_used_elsewhere_too_is_left_alone(habit: str) -> None:
    assert foldable_pairs(with_habit(habit), image_N3HW()) == []


@pytest.mark.parametrize("habit", ["layers under two names", "a parametrized convolution"])
def test_the_network_itself_is_left_alone(habit: str) -> None:
    network = with_habit(habit)
    before = copy.deepcopy(network.state_dict())
    expected = logits_of(network)
    DeployGraph(network, *SIZE)
    assert torch.equal(logits_of(network), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(layer._forward_hooks for layer in network.modules())


def test_a_norm_can_be_kept_by_name() -> None:
    network = fold_batch_norms(
        FastSegNet(3, "nano", auxiliary=False).eval(),
        torch.zeros(1, 3, 64, 64),
        keep_norms=["stem.0.1"],
    )
    kept = [name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert kept == ["stem.0.1"]


class Recording(nn.Module):
    """Keeps a map from a hook, as people take features out of a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.maps: list[Tensor] = []
        self.conv.register_forward_hook(self.keep)

    def keep(self, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.maps.append(output)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return F.relu(y) + self.maps.pop()


def test_maps_that_a_hook_keeps_are_what_they_were() -> None:
    torch.manual_seed(0)
    network = Recording().eval()
    network.norm.running_mean.fill_(1)
    with torch.inference_mode():
        expected = network(image_N3HW())
        torch.testing.assert_close(DeployGraph(network, *SIZE).core(image_N3HW()), expected)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_network_that_computes_its_weights_at_each_call_is_copied_and_left_alone() -> None:
    torch.manual_seed(0)
    conv = nn.utils.weight_norm(nn.Conv2d(3, 5, 3, padding=1))
    network = nn.Sequential(conv, nn.BatchNorm2d(5)).eval()
    network[1].running_mean.fill_(1)
    with torch.inference_mode():
        expected = network(image_N3HW())
        torch.testing.assert_close(DeployGraph(network, *SIZE).core(image_N3HW()), expected)
