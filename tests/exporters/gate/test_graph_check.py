"""The graph to convert is compared with the author's own module, before anything is converted."""

import copy
import re
import threading
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastseg_exporters.gate.graph_check import (
    MOST_TRIES,
    ROUNDING,
    check_graph,
    differ,
    refuse_unpooling,
)
from fastseg_exporters.gate.reference import pytorch_runner
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import numbered_classes
from torch import Tensor, nn

from fastseg import CheckpointError, CheckpointInfo, DeployGraph, FastSegNet, Network
from fastseg.normalization import NAMED
from tests.doubles.folding_networks import CHANNELS, CLASSES, HABITS, Habit, conv, norm, with_habit

WIDTH, HEIGHT = 64, 48
NORMS = 32


def network_of(model: nn.Module) -> Network:
    info = CheckpointInfo("own", numbered_classes(CLASSES), WIDTH, HEIGHT)
    return Network(model.eval(), info, "own", "")


def images() -> list[Array]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8) for _ in range(2)]


def check(model: nn.Module) -> tuple[tuple[str, ...], list[str]]:
    told: list[str] = []
    return check_graph(network_of(model), images(), told.append), told


@pytest.mark.parametrize("habit", HABITS)
def test_every_network_that_is_folded_rightly_passes(habit: str) -> None:
    assert check(with_habit(habit)) == ((), [])


def test_our_own_networks_pass() -> None:
    torch.manual_seed(0)
    assert check(FastSegNet(CLASSES, "nano")) == ((), [])


def _by_hand(n: Habit, x: Tensor) -> Tensor:
    y = torch.relu(n.norm(n.conv(x))) - F.conv2d(x, n.conv.weight, padding=1)
    return torch.relu(n.norm_2(n.conv_2(y)))


def test_a_fold_that_changes_the_answer_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastseg.fold._Uses.is_private", lambda uses, pair: True)
    torch.manual_seed(0)
    model = Habit(_by_hand, conv=conv(), conv_2=conv(), norm=norm(), norm_2=norm())
    kept, told = check(model)
    assert kept == ("network.norm",)
    assert told == ["not folded, which would change the network's answer: network.norm"]


def _chain(reading: Collection[int], last: Callable[[Tensor], Tensor]) -> Habit:
    """Many convolutions with norms; the weights of some are read beside their call."""

    def forward(n: Habit, x: Tensor) -> Tensor:
        for i in range(NORMS):
            layer = getattr(n, f"conv_{i}")
            read = F.conv2d(x, layer.weight, padding=1) if i in reading else 0
            x = x + torch.tanh(getattr(n, f"norm_{i}")(layer(x))) - read
        return last(x)

    torch.manual_seed(0)
    layers = {f"conv_{i}": conv() for i in range(NORMS)}
    return Habit(forward, **layers, **{f"norm_{i}": norm(1.0) for i in range(NORMS)})


def _check_counting(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[str, ...], int]:
    """Return the norms that are kept, and how many graphs were made to find them."""
    graphs, real = [], Network.graph

    def graph(self: Network, **changes: Any) -> DeployGraph:
        graphs.append(changes)
        return real(self, **changes)

    monkeypatch.setattr(Network, "graph", graph)
    return check(model)[0], len(graphs)


@pytest.mark.parametrize("harmful", [{7}, {0, NORMS - 1}])
def test_few_harmful_norms_among_many_are_found(
    harmful: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastseg.fold._Uses.is_private", lambda uses, pair: True)
    kept, graphs = _check_counting(_chain(harmful, torch.relu), monkeypatch)
    assert kept == tuple(f"network.norm_{i}" for i in sorted(harmful))
    assert graphs <= 3 + MOST_TRIES


def test_where_each_fold_does_harm_it_is_said_after_few_graphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _chain((), lambda x: (x * 2**20).remainder(1.0))  # what rounding leaves
    kept, graphs = _check_counting(model, monkeypatch)
    assert kept == tuple(f"network.norm_{i}" for i in range(NORMS))
    assert graphs <= 3 + MOST_TRIES < NORMS


class Unpools(nn.Module):
    """Unpools in a function of its own, with no module for it."""

    def forward(self, image: Tensor) -> Tensor:
        small, indices = F.max_pool2d(image, 2, return_indices=True)
        logits: Tensor = F.max_unpool2d(small, indices, [2, 2]).repeat(1, 2, 1, 1)[:, :CLASSES]
        return logits


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (Unpools(), "the network (Unpools)"),
        (nn.Sequential(nn.Identity(), Unpools()), "1 (Unpools)"),
    ],
)
def test_max_unpooling_is_refused_by_its_module(model: nn.Module, where: str) -> None:
    said = f"own cannot be exported: max_unpool2d in {where} is taken in no format; "
    with pytest.raises(ValueError, match=re.escape(said)):
        refuse_unpooling(network_of(model))


@pytest.mark.parametrize("habit", HABITS)
def test_what_does_not_unpool_is_not_refused(habit: str) -> None:
    refuse_unpooling(network_of(with_habit(habit)))


class Dropping(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x))  # training=True is its default


def test_a_network_that_answers_by_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="own cannot be exported: it gives another answer each"):
        check(Dropping(3, CLASSES, 3, padding=1))


class Leaking(nn.Module):
    """Hands a map on through a hook that knows the module it was put on, and not its copy."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, CHANNELS, 3, 4, 1), nn.Conv2d(CHANNELS, CLASSES, 1)
        self.maps: dict[str, Tensor] = {}
        self.stem.register_forward_hook(lambda layer, x, y: self.maps.update(last=y.clone()))

    def forward(self, x: Tensor) -> Tensor:
        self.stem(x)
        return self.head(self.maps["last"])


def test_a_network_whose_copy_is_another_network_is_refused() -> None:
    model = Leaking()
    model(torch.zeros(1, 3, HEIGHT, WIDTH))
    assert model.maps["last"].requires_grad
    with pytest.raises(ValueError, match="own cannot be exported: the graph .* does not copy"):
        check(model)


def test_a_network_of_nan_is_refused() -> None:
    model = nn.Conv2d(3, CLASSES, 1)
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(ValueError, match="no numbers"):
        check(model)


def test_logits_without_a_lower_limit_are_not_called_nan() -> None:
    model = nn.Conv2d(3, CLASSES, 1, stride=2)
    with torch.no_grad():
        assert model.bias is not None
        model.bias[1] = float("-inf")
    with pytest.raises(ValueError, match="infinite, of which upsampling makes NaN"):
        check(model)


class Stepping(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) * 2**22).remainder(4.0)  # what rounding leaves


def test_a_network_whose_answer_rounding_decides_is_told_so() -> None:
    info = CheckpointInfo(
        "own", numbered_classes(CLASSES), WIDTH, HEIGHT, normalization=NAMED["imagenet"]
    )
    network = Network(Stepping(3, CLASSES, 1).eval(), info, "own", "")
    with pytest.raises(ValueError, match="its answer changes with the rounding of its picture"):
        check_graph(network, images(), print)


class Masking(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y.masked_fill(y.amax(1, keepdim=True) < y.mean(), float("-inf"))


def test_pixels_without_any_finite_logit_are_not_called_random() -> None:
    with pytest.raises(ValueError, match="largest logit is infinite"):
        check(Masking(3, CLASSES, 1))


def test_a_network_that_cannot_be_copied_is_refused_in_one_line() -> None:
    model = nn.Conv2d(3, CLASSES, 1)
    model.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match="Conv2d cannot be copied: TypeError: .*lock"):
        check(model)


def logits(*values: float) -> Tensor:
    return torch.tensor(values)[None, :, None, None]


def test_logits_may_differ_by_rounding_and_by_no_more() -> None:
    expected = logits(10, 9, -5)
    assert differ(expected + 0.9 * ROUNDING * 10, expected) == ""
    assert "logits differ by 0.01%" in differ(expected + 1.1 * ROUNDING * 10, expected)


def test_a_class_far_below_neither_hides_a_fault_nor_makes_one() -> None:
    expected = logits(10, 9, -1e9)
    assert differ(logits(10, 9, -2e9), expected) == ""
    assert differ(logits(10, 9, float("-inf")), expected) == ""
    assert "100.0% of the pixels" in differ(logits(10, 9, 11), expected)
    assert differ(logits(10, 9.1, -1e9), expected) != ""


@pytest.mark.parametrize("mask_stride", [1, 2])
def test_the_reference_is_the_module_called_as_it_is(mask_stride: int) -> None:
    model = with_habit("a convolution called twice")
    (image_1HW3, _) = images()
    image_N3HW = ((torch.from_numpy(image_1HW3).float() - 128) / 64).permute(0, 3, 1, 2)
    with torch.inference_mode():
        size = (HEIGHT // mask_stride, WIDTH // mask_stride)
        logits_1KHW = F.interpolate(model(image_N3HW), size=size, mode="bilinear")
    mask_HW = logits_1KHW.argmax(1)[0].numpy()
    found_HW = pytorch_runner(network_of(model), mask_stride).infer_new(image_1HW3[0])
    assert np.array_equal(found_HW, mask_HW.repeat(mask_stride, 0).repeat(mask_stride, 1))


class NormOfOnePicture(nn.Module):
    """Divides by nearly nothing where a picture is plain, and so do its roundings grow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(3, 24, 5, 2, padding=2, padding_mode="reflect")
        self.norm = nn.InstanceNorm2d(24, affine=True)
        self.last = nn.Conv2d(24, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        y = F.mish(self.norm(self.first(image)))
        size = y.pow(2).sum((2, 3), keepdim=True).sqrt()
        logits: Tensor = self.last(y * (size / (size.mean(1, keepdim=True) + 1e-6)))
        return logits


def norm_of_one_picture() -> Network:
    classes = numbered_classes(CLASSES)
    info = CheckpointInfo("own", classes, WIDTH, HEIGHT, normalization=NAMED["imagenet"])
    return Network(NormOfOnePicture().eval(), info, "own", "")


def test_roundings_that_the_network_itself_enlarges_are_no_other_answer() -> None:
    network = norm_of_one_picture()
    plain = [np.full((1, HEIGHT, WIDTH, 3), value, np.uint8) for value in range(0, 256, 5)]
    assert check_graph(network, plain, print) == ()


def test_what_a_network_enlarges_excuses_no_other_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    network = norm_of_one_picture()
    real = network.graph

    def other(**changes: Any) -> DeployGraph:
        graph = copy.deepcopy(real(**changes))
        (last,) = [m for m in graph.core.modules() if getattr(m, "out_channels", 0) == CLASSES]
        last.bias = nn.Parameter(last.bias * 1.02)  # of black, nothing else is left
        return graph

    monkeypatch.setattr(Network, "graph", lambda self, **changes: other(**changes))
    plain = [np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)]
    with pytest.raises(ValueError, match="another answer than the module itself"):
        check_graph(network, plain, print)
