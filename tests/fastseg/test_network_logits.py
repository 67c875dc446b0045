"""Network.logits, the reference: the author's module as its author calls it."""

import dataclasses
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastseg_runtime.bundle.manifest import numbered_classes
from torch import Tensor, nn

from fastseg import CheckpointError, CheckpointInfo, FastSegNet, Network
from fastseg.normalization import NAMED, Normalization

IMAGE = torch.randint(0, 256, (2, 32, 64, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
Pair = namedtuple("Pair", ["aux", "main"])


class Answering(nn.Module):
    """A network that keeps what it was given and answers with a function of its logits."""

    def __init__(self, answer: Callable[[Tensor], Any], channels: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, channels, 3, stride=4, padding=1)
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        self.given = x
        return self.answer(self.conv(x))


def network(
    model: nn.Module, classes: int = 5, normalization: Normalization | None = None, **own: Any
) -> Network:
    info = CheckpointInfo("own", numbered_classes(classes), 64, 32, normalization=normalization)
    return Network(model.eval(), info, "own", "", **own)


def test_the_module_gets_its_own_normalisation() -> None:
    model = Answering(lambda logits: logits)
    logits_NKhw = network(model, normalization=NAMED["imagenet"]).logits(IMAGE)
    mean_311, std_311 = (
        torch.tensor(values).view(3, 1, 1)
        for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    normalised = (IMAGE.permute(0, 3, 1, 2) / 255 - mean_311) / std_311
    torch.testing.assert_close(model.given, normalised)
    assert torch.equal(logits_NKhw, model.conv(model.given))


def test_fastsegnet_gives_what_its_forward_gives() -> None:
    torch.manual_seed(0)
    model = FastSegNet(5, "nano").eval()
    expected = model(((IMAGE.float() - 128) / 64).permute(0, 3, 1, 2))
    torch.testing.assert_close(network(model).logits(IMAGE), expected)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_one_logit_is_two_classes_by_the_threshold(threshold: float) -> None:
    model = Answering(lambda logits: logits, channels=1)
    logits_N2hw = network(model, 2, threshold=threshold).logits(IMAGE)
    probability_Nhw = model.conv(model.given)[:, 0].sigmoid()
    assert torch.equal(logits_N2hw.argmax(1) == 1, probability_Nhw > threshold)
    if threshold == 0.5:
        torch.testing.assert_close(logits_N2hw.softmax(1)[:, 1], probability_Nhw)


@dataclasses.dataclass
class Answer:
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x,
        lambda x: [x],
        lambda x: {"out": x, "aux": -x},
        lambda x: OrderedDict(loss=None, logits=x, hidden_states=(x[:, :2], -x)),
        lambda x: {"seg": x, "features": x[:, :3]},
        lambda x: (F.avg_pool2d(x, 2)[:, :2], x),
        lambda x: Answer(x, (-x,)),
        lambda x: {"outputs": [x[:, :3], x]},
    ],
)
def test_the_logits_are_found_where_they_can_only_be(answer: Callable[[Tensor], Any]) -> None:
    model = Answering(answer)
    assert torch.equal(network(model).logits(IMAGE), model.conv(model.given))


def test_of_two_that_can_be_the_logits_one_has_to_be_named() -> None:
    model = Answering(lambda x: [-F.avg_pool2d(x, 2), x, x[:, :1]])
    with pytest.raises(
        CheckpointError, match=r"0: \(2, 5, 4, 8\), 1: \(2, 5, 8, 16\).*--output-na"
    ):
        network(model).logits(IMAGE)
    assert torch.equal(network(model, output_name="1").logits(IMAGE), model.conv(model.given))
    with pytest.raises(CheckpointError, match=r"output 2 gives one logit, \(2, 1, 8, 16\)"):
        network(model, output_name="2").logits(IMAGE)
    with pytest.raises(CheckpointError, match="no output '3'; it gives 0: "):
        network(model, output_name="3").logits(IMAGE)


@pytest.mark.parametrize("name", ["main", "1"])
def test_a_named_tuple_is_asked_by_name_or_index(name: str) -> None:
    model = Answering(lambda x: Pair(-x, x))
    assert torch.equal(network(model, output_name=name).logits(IMAGE), model.conv(model.given))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x.argmax(1), r"\(2, 8, 16\) in int64, class ids already.*leave the argmax out"),
        (lambda x: x[0], r"\(5, 8, 16\); expected logits"),
        (
            lambda x: x.argmax(1).float(),
            r"\(2, 8, 16\); .*ids .* have to be integers",
        ),
        (lambda x: x > 0, r"\(2, 5, 8, 16\) in bool; export its logits, or ids as integers"),
        (lambda x: x[:1], r"\(1, 5, 8, 16\) for a batch of 2"),
        (lambda x: x.transpose(2, 3), "does not lie evenly over a picture of 64x32"),
        (lambda x: F.interpolate(x, size=(34, 66)), "64x32; choose a --size that its strides"),
        (lambda x: x.mean((2, 3), keepdim=True), "does not lie evenly"),
        (lambda x: x.permute(0, 2, 3, 1), r"its classes last; .*permute\(0, 3, 1, 2\)"),
        (lambda x: x[:, :3], "tells 3 classes apart, expected 5; .*num_classes"),
        (lambda x: x[:, :1], "one logit, .*tells two classes apart, expected 5"),
        (lambda x: "text", "gives str; expected logits"),
        (lambda x: None, "gives nothing"),
        (lambda x: {}, "gives nothing"),
        (lambda x: {"a": x[:, :2], "b": 3}, r"a: \(2, 2, 8, 16\), b: int; none can be"),
    ],
)
def test_what_is_no_logits_is_refused_in_one_line(
    answer: Callable[[Tensor], Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        network(Answering(answer)).logits(IMAGE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("odd\nsize"), TypeError("bad"), KeyError("key"), IndexError("far"),
        AttributeError("gone"), SystemExit(3), RecursionError("deep"), NotImplementedError(),
    ],
)  # fmt: skip
def test_an_error_of_the_users_code_is_one_line_with_its_place(error: BaseException) -> None:
    def answer(x: Tensor) -> Tensor:
        raise error

    with pytest.raises(CheckpointError) as caught:
        network(Answering(answer)).logits(IMAGE)
    line = answer.__code__.co_firstlineno + 1
    assert str(caught.value).startswith(f"own at 64x32: {type(error).__name__}")
    assert f"({__file__}:{line})" in str(caught.value)
    assert "\n" not in str(caught.value)


class KeepingAGrid(nn.Module):
    """Keeps positions by size, as a network that is run at several sizes may."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.grids = nn.Conv2d(3, 5, 4, stride=4), dict[int, Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if y.shape[3] not in self.grids:
            self.grids[y.shape[3]] = torch.arange(y.shape[3]).float() + 1
        return y * self.grids[y.shape[3]]


def test_a_network_that_keeps_what_it_made_in_a_check_can_be_trained_after_it() -> None:
    module = KeepingAGrid()
    made = network(module)
    made.check()
    made.logits(IMAGE)
    width, height = made.info.width, made.info.height
    module(torch.zeros(1, 3, height, width)).sum().backward()
    assert module.conv.weight.grad is not None


def test_a_view_that_minds_channels_last_is_told_what_it_minds() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 4, stride=4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y.view(y.shape[0], 2, -1).mean(-1)[:, :, None, None].expand(-1, 2, 8, 16)

    with pytest.raises(CheckpointError, match=r"channels last in memory here, which .reshape\(\)"):
        network(Grouped()).check()


def test_a_sample_of_many_logits_reaches_their_ends_alone() -> None:
    model = Answering(lambda y: y.mean().expand(1, 19, 720, 1280))  # more than float32 can count
    info = CheckpointInfo("own", numbered_classes(19), 1280, 720)
    assert len(Network(model.eval(), info, "own", "").sample()) == 64
