from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastseg import DeployGraph, FastSegNet
from fastseg.normalization import Normalization
from fastseg.outputs import Reading


class ForeignNet(nn.Module):
    """A small network that is not ours: batch norms as attributes, logits at 1/4."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, num_classes, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv2(torch.relu(self.bn1(self.conv1(x))))
        return logits


def reference(network: nn.Module, image_NHW3: Tensor) -> Tensor:
    image_N3HW = ((image_NHW3.float() - 128) / 64).permute(0, 3, 1, 2)
    return network(image_N3HW).argmax(dim=1)


def with_statistics(network: nn.Module) -> nn.Module:
    """Give batch norms running statistics that folding must respect."""
    torch.manual_seed(0)
    network.train()
    for _ in range(3):
        network(torch.randn(2, 3, 64, 64))
    return network.eval()


@pytest.mark.parametrize("size", [(96, 64), (60, 44), (480, 360)])
def test_it_gives_the_ids_that_the_network_gives(size: tuple[int, int]) -> None:
    network = with_statistics(FastSegNet(7, "nano"))
    image = torch.randint(0, 256, (1, size[1], size[0], 3), dtype=torch.uint8)
    with torch.inference_mode():
        classes = DeployGraph(network, *size)(image)
        expected = reference(network, image)
    assert classes.dtype == torch.uint8
    assert classes.shape == expected.shape
    assert (classes == expected).float().mean() > 0.9995


def test_all_batch_norms_of_ours_are_folded_and_the_network_itself_is_left_alone() -> None:
    network = FastSegNet(7, "nano").train()
    graph = DeployGraph(network, 64, 64)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in graph.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    assert network.training


class FrozenNorms(ForeignNet):
    """As people freeze batch norms; nothing that it overrides returns the module."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.bn1.eval()

    def float(self) -> None:  # type: ignore[override]
        super().float()


def test_a_network_whose_train_returns_nothing_gets_a_graph() -> None:
    network, image = FrozenNorms(5), torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    network.eval()
    with torch.inference_mode():
        logits = DeployGraph(network, 96, 64, output="logits")(image)
        expected = network(((image.float() - 128) / 64).permute(0, 3, 1, 2))
    torch.testing.assert_close(logits, expected)


class InDoubles(ForeignNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.ones(1, dtype=torch.float64)


def test_logits_in_doubles_are_given_as_floats() -> None:
    graph = DeployGraph(InDoubles(5), 96, 64, output="logits")
    assert graph(torch.zeros(1, 64, 96, 3, dtype=torch.uint8)).dtype == torch.float32


def test_a_foreign_network_gets_the_same_graph() -> None:
    network = with_statistics(ForeignNet(5))
    graph = DeployGraph(network, 64, 48)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in graph.modules())
    image = torch.randint(0, 256, (1, 48, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        classes, logits = graph(image), network(((image.float() - 128) / 64).permute(0, 3, 1, 2))
        upsampled = nn.functional.interpolate(logits, size=(48, 64), mode="bilinear")
    assert (classes == upsampled.argmax(1)).float().mean() > 0.999


@pytest.mark.parametrize("size", [(60, 44), (61, 46), (64, 46)])
def test_logits_of_others_are_spread_over_the_whole_image(size: tuple[int, int]) -> None:
    network = nn.Sequential(with_statistics(ForeignNet(5)), nn.AvgPool2d(2, ceil_mode=True))
    image = torch.randint(0, 256, (1, size[1], size[0], 3), dtype=torch.uint8)
    with torch.inference_mode():
        logits = network(((image.float() - 128) / 64).permute(0, 3, 1, 2))
        expected = nn.functional.interpolate(logits, size=size[::-1], mode="bilinear").argmax(1)
        assert (DeployGraph(network, *size)(image) == expected).float().mean() > 0.999


class ManyHeadedNet(ForeignNet):
    """One that gives more than its main logits, in one of the usual ways."""

    def __init__(self, kind: str) -> None:
        super().__init__(5)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        answers = {"list": [logits, -logits], "tuple": (logits, -logits)}
        return answers.get(self.kind, {"out": logits, "aux": -logits})


@pytest.mark.parametrize(("kind", "name"), [("list", "0"), ("tuple", "0"), ("dict", "")])
def test_of_several_outputs_the_main_logits_are_taken(kind: str, name: str) -> None:
    network = ManyHeadedNet(kind).eval()
    alone = ForeignNet(5).eval()
    alone.load_state_dict(network.state_dict())
    graph = DeployGraph(network, 64, 48, reading=Reading(5, name))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in graph.modules())
    image = torch.randint(0, 256, (1, 48, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(graph(image), DeployGraph(alone, 64, 48)(image))


@pytest.mark.parametrize("kind", ["list", "tuple"])
def test_where_two_outputs_can_be_the_logits_none_is_guessed(kind: str) -> None:
    with pytest.raises(ValueError, match=r"0: \(1, 5, 12, 16\), 1: .* say which are"):
        DeployGraph(ManyHeadedNet(kind).eval(), 64, 48)


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.6])
def test_one_logit_is_two_classes_by_the_threshold(threshold: float) -> None:
    torch.manual_seed(3)
    network = with_statistics(ForeignNet(1))
    network.conv2.weight.data *= 20  # logits on both sides of each threshold
    network.conv2.bias.data.fill_(0.0)
    graph = DeployGraph(network, 64, 48, reading=Reading(2, "", threshold))
    image = torch.randint(0, 256, (1, 48, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        logits = network(((image.float() - 128) / 64).permute(0, 3, 1, 2))
        upsampled = nn.functional.interpolate(logits, size=(48, 64), mode="bilinear")
        expected = (upsampled[:, 0].sigmoid() > threshold).byte()
        assert 0 < expected.float().mean() < 1
        assert (graph(image) == expected).float().mean() > 0.999


OWN = [
    Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1),
    Normalization((0.0,) * 3, (1.0,) * 3, 1),
    Normalization((103.939, 116.779, 123.68), (1.0,) * 3, 255, "bgr"),
]


@pytest.mark.parametrize("own", OWN, ids=str)
@pytest.mark.parametrize("pair", [(128, 64), (0, 255)])
def test_a_networks_own_normalisation_is_inside_and_right_at_the_border(
    own: Normalization, pair: tuple[float, float]
) -> None:
    network = with_statistics(ForeignNet(5))
    graph = DeployGraph(network, 64, 48, *pair, output="logits", normalization=own)
    image = torch.randint(0, 256, (1, 48, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = network(own.normalise(image))
        torch.testing.assert_close(graph(image), expected, rtol=1e-4, atol=1e-4)


def test_fastsegnet_with_a_normalisation_of_its_own_gets_it_too() -> None:
    network = with_statistics(FastSegNet(7, "nano"))
    graph = DeployGraph(network, 60, 44, normalization=OWN[0])
    image = torch.randint(0, 256, (1, 44, 60, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = network(OWN[0].normalise(image)).argmax(1)
        assert (graph(image) == expected).float().mean() > 0.9995


class SlicingNet(nn.Module):
    """One whose forward slices an nn.Sequential, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers[:2](x)
        return logits


def test_a_network_that_cannot_be_traced_is_folded_too() -> None:
    network = with_statistics(SlicingNet())
    graph = DeployGraph(network, 32, 32)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in graph.modules())
    image = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert (graph(image)[0] == reference(network, image)[0]).float().mean() > 0.999


def test_a_smaller_mask_is_the_argmax_of_less_upsampled_logits() -> None:
    network = with_statistics(FastSegNet(7, "nano"))
    image = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert DeployGraph(network, 96, 64, mask_stride=4)(image).shape == (1, 16, 24)


def test_logits_can_be_had_instead() -> None:
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    graph = DeployGraph(FastSegNet(7, "nano"), 96, 64, output="logits")
    assert graph(image).shape == (1, 7, 8, 12)
    assert graph(image).dtype == torch.float32


def test_a_mask_stride_that_does_not_divide_the_size_is_refused() -> None:
    with pytest.raises(ValueError, match="choose a size that it divides"):
        DeployGraph(FastSegNet(7, "nano"), 98, 64, mask_stride=4)
