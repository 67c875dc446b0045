"""check_logits: networks that are tried on noise."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastseg import CheckpointError
from fastseg.logit_check import check_logits
from fastseg.outputs import Reading


class Giving(nn.Module):
    """Gives what a function makes of logits, of as many classes as there are channels."""

    def __init__(self, answer: Callable[[Tensor], Any], channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.answer = nn.Conv2d(3, channels, 3, 1, 1), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.conv(x))


class TwoPictures(nn.Conv2d):
    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return super().forward(x - before)


def check(model: nn.Module, threshold: float = 0.5, for_training: bool = False) -> list[str]:
    reading = Reading(2, "", threshold)
    return check_logits("it", model.eval(), reading, (64, 48), for_training=for_training)


def level() -> nn.Module:
    """Return a network whose one logit is about 5.5, whatever it is shown."""
    last = nn.Conv2d(1, 1, 1)
    nn.init.constant_(last.weight, 0.01)
    nn.init.constant_(last.bias, 5.5)
    return Giving(nn.Sequential(nn.InstanceNorm2d(1), last))


def faint() -> nn.Module:
    """Return a network whose one logit is from 0 to 1 for noise."""
    model = nn.Conv2d(3, 1, 1)
    nn.init.constant_(model.weight, 0.01)
    nn.init.constant_(model.bias, 0.5)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Conv2d(3, 3, 3), "it tells 3 classes apart, expected 2; .* num_classes"),
        (
            Giving(lambda z: {"seg": z, "aux": z}, 3),
            r"gives seg: .1, 3, 48, 64., aux: .*none can be the logits",
        ),
        (
            Giving(lambda z: z[0], 3),
            r"gives \(3, 48, 64\); expected logits \(N, classes, height, width\)",
        ),
        (Giving(lambda z: ["logits"]), "gives str; expected logits"),
        (Giving(lambda z: z + torch.zeros(1, 2, 32, 32)), "it, tried at 64x48: .* must match"),
        (Giving(lambda z: z, 256), "tells 256 classes apart; ids are bytes, so 255 at most"),
    ],
)
def test_a_network_without_logits_for_each_class_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check(model)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.sigmoid, r"it gives probabilities \(.*; leave the sigmoid out of its forward"),
        (lambda z: (z > 0).float(), "gives probabilities"),
        (lambda z: 255 * z.sigmoid(), r"one logit that is never below 0 \(.* but 0 is the second"),
        (lambda z: -9 * z.sigmoid(), r"one logit that is never above 0 \(.* but 0 is the first"),
    ],
)
def test_outputs_that_are_no_logits_are_recognised(
    answer: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        check(Giving(answer))


def test_trying_a_network_leaves_the_chances_of_a_training_to_its_seed() -> None:
    model = nn.Conv2d(3, 2, 3, padding=1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check(model)
    assert torch.equal(torch.rand(3), expected)


def test_a_forward_that_needs_more_is_named_with_its_place() -> None:
    place = rf"{__file__}:\d+"
    with pytest.raises(CheckpointError, match=rf"missing 1 .*'before' \({place}\)"):
        check(TwoPictures(3, 2, 1))


def test_a_softmax_is_said_and_refused_where_logits_are_needed() -> None:
    model = Giving(nn.Softmax(dim=1), 2)
    (note,) = check(model)
    assert "it gives probabilities (softmax)" in note
    with pytest.raises(CheckpointError, match="leave the softmax out"):
        check(model, for_training=True)


@pytest.mark.parametrize("answer", [nn.ReLU(), nn.Softplus(), torch.exp, nn.LogSigmoid()])
def test_a_logit_on_one_side_that_may_be_meant_is_told(answer: Callable[[Tensor], Tensor]) -> None:
    (note,) = check(Giving(answer))
    assert "it gives one logit that is never " in note


def test_a_logit_far_on_one_side_of_0_has_no_end_there_and_is_as_meant() -> None:
    assert check(level()) == []


def test_a_logit_on_one_side_is_as_meant_where_a_threshold_is_named() -> None:
    model = Giving(lambda z: 10 * z.sigmoid())
    assert check(model, threshold=0.9933) == []


def test_a_threshold_is_for_one_logit() -> None:
    with pytest.raises(CheckpointError, match="a logit for each class; --threshold is for one"):
        check(Giving(lambda z: z, 2), threshold=0.4)


def test_a_logit_that_is_bounded_cannot_be_trained() -> None:
    with pytest.raises(CheckpointError, match="never below 0"):
        check(Giving(nn.ReLU()), for_training=True)


def test_a_logit_that_falls_to_0_can_be_trained() -> None:
    (note,) = check(Giving(nn.Softplus()), for_training=True)
    assert "never below 0" in note


def test_faint_logits_are_no_probabilities() -> None:
    assert check(faint()) == []
