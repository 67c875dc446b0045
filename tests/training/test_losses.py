import inspect
import math
import re

import pytest
import torch
import torch.nn.functional as F
from fastseg_training.losses import (
    LOSSES,
    BorderLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    LossOptions,
    LovaszLoss,
    OHEMLoss,
    build_loss,
    enet_weights,
    weights_of,
)
from torch import Tensor, nn

WEIGHT_K = torch.tensor([1.0, 5.0, 0.5, 2.0])


@pytest.fixture
def logits_NKHW() -> Tensor:
    return torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def label_NHW() -> Tensor:
    label_NHW = torch.randint(0, 4, (2, 6, 5), generator=torch.Generator().manual_seed(1))
    label_NHW[0, :2] = 255
    return label_NHW


@pytest.mark.parametrize("weight_K", [None, WEIGHT_K])
def test_cross_entropy_is_that_of_torch(
    logits_NKHW: Tensor, label_NHW: Tensor, weight_K: Tensor | None
) -> None:
    expected = F.cross_entropy(logits_NKHW, label_NHW, weight_K, ignore_index=255)
    torch.testing.assert_close(CrossEntropyLoss(weight_K)(logits_NKHW, label_NHW), expected)


def test_focal_loss_follows_its_formula(logits_NKHW: Tensor, label_NHW: Tensor) -> None:
    chance_NKHW, total, judged = logits_NKHW.softmax(1), 0.0, 0
    for n, y, x in (label_NHW != 255).nonzero().tolist():
        p = chance_NKHW[n, int(label_NHW[n, y, x]), y, x].item()
        total -= (1 - p) ** 2 * math.log(p)
        judged += 1
    loss = FocalLoss(gamma=2.0)(logits_NKHW, label_NHW)
    assert loss.item() == pytest.approx(total / judged, rel=1e-5)


def test_focal_loss_without_focus_is_cross_entropy(logits_NKHW: Tensor, label_NHW: Tensor) -> None:
    expected = F.cross_entropy(logits_NKHW, label_NHW, ignore_index=255)
    torch.testing.assert_close(FocalLoss(gamma=0.0)(logits_NKHW, label_NHW), expected)


def test_dice_of_a_perfect_prediction_is_zero_and_of_a_wrong_one_almost_one() -> None:
    label_NHW = torch.randint(0, 3, (1, 40, 40), generator=torch.Generator().manual_seed(2))
    right_NKHW = F.one_hot(label_NHW, 3).movedim(-1, 1) * 50.0
    wrong_NKHW = F.one_hot((label_NHW + 1) % 3, 3).movedim(-1, 1) * 50.0
    assert DiceLoss()(right_NKHW, label_NHW).item() == pytest.approx(0, abs=1e-4)
    assert DiceLoss()(wrong_NKHW, label_NHW).item() > 0.99


def test_dice_follows_its_formula_for_one_class(logits_NKHW: Tensor) -> None:
    label_NHW = torch.full((2, 6, 5), 2)
    chance = logits_NKHW.softmax(1)[:, 2]
    expected = 1 - (2 * chance.sum() + 1) / (chance.sum() + chance.numel() + 1)
    torch.testing.assert_close(DiceLoss()(logits_NKHW, label_NHW), expected)


def hand_made_ohem(pred: Tensor, target: Tensor, thresh: float, min_kept: int) -> float:
    losses = []
    for n, y, x in (target != 255).nonzero().tolist():
        losses.append(-pred[n, :, y, x].log_softmax(0)[target[n, y, x]].item())
    losses.sort(reverse=True)
    hard = [loss for loss in losses if loss >= -math.log(thresh)]
    kept = hard if len(hard) >= min_kept else losses[:min_kept]
    return sum(kept) / len(kept)


@pytest.mark.parametrize(
    ("thresh", "min_kept"), [(0.7, 1), (0.7, 40), (0.05, 10), (0.3, 3), (0.7, 100_000)]
)
def test_ohem_keeps_hard_pixels_and_never_too_few(
    logits_NKHW: Tensor, label_NHW: Tensor, thresh: float, min_kept: int
) -> None:
    expected = hand_made_ohem(logits_NKHW, label_NHW, thresh, min_kept)
    loss = OHEMLoss(thresh=thresh, min_kept=min_kept)(logits_NKHW, label_NHW)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropyLoss(),
        CrossEntropyLoss(WEIGHT_K),
        FocalLoss(),
        DiceLoss(),
        OHEMLoss(),
        BorderLoss(),
        LovaszLoss(),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_ignored_pixels_change_nothing_and_a_batch_of_them_gives_zero(
    loss: nn.Module, logits_NKHW: Tensor, label_NHW: Tensor
) -> None:
    other_NKHW = torch.where((label_NHW == 255)[:, None], 9.0, logits_NKHW)
    torch.testing.assert_close(loss(other_NKHW, label_NHW), loss(logits_NKHW, label_NHW))
    logits_NKHW.requires_grad_()
    nothing = loss(logits_NKHW, torch.full_like(label_NHW, 255))
    nothing.backward()
    assert nothing.item() == 0
    assert logits_NKHW.grad is not None and not logits_NKHW.grad.any()


def test_the_border_loss_is_the_cross_entropy_three_pixels_around_a_border() -> None:
    label_NHW = torch.zeros(1, 9, 20, dtype=torch.long)
    label_NHW[..., 10:] = 1
    logits_NKHW = torch.randn(1, 2, 9, 20, generator=torch.Generator().manual_seed(0))
    near = slice(7, 13)
    expected = F.cross_entropy(logits_NKHW[..., near], label_NHW[..., near])
    torch.testing.assert_close(BorderLoss()(logits_NKHW, label_NHW), expected)
    assert BorderLoss()(logits_NKHW, torch.zeros_like(label_NHW)) == 0


def hard_jaccard_losses(label_NHW: Tensor, other_NHW: Tensor) -> list[float]:
    judged_NHW = label_NHW != 255
    losses = []
    for k in label_NHW[judged_NHW].unique():
        true_NHW, said_NHW = (label_NHW == k) & judged_NHW, (other_NHW == k) & judged_NHW
        losses.append(1 - ((true_NHW & said_NHW).sum() / (true_NHW | said_NHW).sum()).item())
    return losses


def test_the_lovasz_loss_of_sure_masks_is_what_mean_iou_loses(label_NHW: Tensor) -> None:
    said_NHW = torch.randint(0, 4, (2, 6, 5), generator=torch.Generator().manual_seed(2))
    sure_NKHW = F.one_hot(said_NHW, 4).movedim(-1, 1) * 100.0
    losses = hard_jaccard_losses(label_NHW, said_NHW)
    loss = LovaszLoss(stride=1)(sure_NKHW, label_NHW).item()
    assert loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    losses = hard_jaccard_losses(label_NHW[:, ::2, ::2], said_NHW[:, ::2, ::2])
    loss = LovaszLoss(stride=2)(sure_NKHW, label_NHW).item()
    assert loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_the_lovasz_loss_weighs_pixels_by_what_their_error_costs_in_iou() -> None:
    label_NHW = torch.tensor([[[0, 0, 1]]])
    chance_NKHW = torch.tensor([[[[0.9, 0.4, 0.2]], [[0.1, 0.6, 0.8]]]])
    loss = LovaszLoss(stride=1)(chance_NKHW.log(), label_NHW).item()
    # Errors of class 0, the largest first: 0.6, of its own (1 - 1/2), 0.2, not of it (1/2 - 1/3),
    # 0.1, of its own (1/3 - 0). Those of class 1: 0.6, not of it (1 - 1/2), 0.2, of it (1/2).
    expected = (0.6 / 2 + 0.2 / 6 + 0.1 / 3 + 0.6 / 2 + 0.2 / 2) / 2
    assert loss == pytest.approx(expected, abs=1e-6)


def test_enet_weights_are_one_over_the_log_of_the_share() -> None:
    weights = enet_weights(torch.tensor([75.0, 25.0, 0.0]), constant=1.02)
    expected = [1 / math.log(1.77), 1 / math.log(1.27), 1 / math.log(1.02)]
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_formula_adds_up_its_terms(logits_NKHW: Tensor, label_NHW: Tensor) -> None:
    options = LossOptions("ce + 0.5*dice", class_weights="none")
    loss = build_loss(options, torch.ones(4), batch_pixels=60)(logits_NKHW, label_NHW)
    expected = CrossEntropyLoss()(logits_NKHW, label_NHW)
    expected += 0.5 * DiceLoss()(logits_NKHW, label_NHW)
    torch.testing.assert_close(loss, expected)


def test_ohem_in_a_formula_keeps_a_share_of_the_batch(
    logits_NKHW: Tensor, label_NHW: Tensor
) -> None:
    options = LossOptions("ohem", ohem_thresh=0.01, ohem_share=0.1)
    loss = build_loss(options, torch.ones(4), batch_pixels=60)(logits_NKHW, label_NHW)
    assert loss.item() == pytest.approx(hand_made_ohem(logits_NKHW, label_NHW, 0.01, 6), rel=1e-5)


@pytest.mark.parametrize("formula", ["", "tversky", "ce+", "half*ce", "nan*ce", "ce-dice"])
def test_a_formula_that_cannot_be_read_is_refused_with_the_choices(formula: str) -> None:
    with pytest.raises(ValueError, match=f"write a sum of {re.escape(str(sorted(LOSSES)))}"):
        LossOptions(formula)


def test_ohem_refuses_thresholds_that_are_no_probability() -> None:
    with pytest.raises(ValueError, match="expected a probability"):
        OHEMLoss(thresh=1.5)
    with pytest.raises(ValueError, match="1 pixel or more"):
        OHEMLoss(min_kept=0)


def test_the_defaults_of_ohem_are_the_public_ones() -> None:
    parameters = inspect.signature(OHEMLoss).parameters
    assert (parameters["thresh"].default, parameters["min_kept"].default) == (0.7, 100_000)


def test_a_loss_is_a_class_and_a_line_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    class Weighing(nn.Module):
        def __init__(self, weight_K: Tensor | None, power: int = 2) -> None:
            super().__init__()
            self.weight_K, self.power = weight_K, power

        def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
            assert self.weight_K is not None
            return self.weight_K.sum() ** self.power + 0 * logits_NKHW.sum()

    monkeypatch.setitem(LOSSES, "weighing", Weighing)
    options = LossOptions("0.5*weighing", enet_constant=1.1)
    pixels_K = torch.tensor([3.0, 1.0])
    value = build_loss(options, pixels_K, 60)(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2))
    assert value.item() == pytest.approx(0.5 * enet_weights(pixels_K, 1.1).sum().item() ** 2)


def test_class_weights_that_are_named_are_taken_and_the_rest_is_one() -> None:
    options = LossOptions(class_weights={"pole": 5, "sky": 0})
    weight_K = weights_of(options, torch.ones(3), ["road", "sky", "pole"])
    assert weight_K is not None and weight_K.tolist() == [1, 0, 5]
    with pytest.raises(ValueError, match="no class 'sky'; there are road, pole"):
        weights_of(options, torch.ones(2), ["road", "pole"])
    with pytest.raises(ValueError, match="a class weight is -1; expected 0 or more"):
        LossOptions(class_weights={"pole": -1})
    weight_K = weights_of(LossOptions(class_weights=[1, 2, 0]), torch.ones(3), ["a", "b", "c"])
    assert weight_K is not None and weight_K.tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="has 3 weights; there are 2 classes: road, pole"):
        weights_of(LossOptions(class_weights=[1, 2, 0]), torch.ones(2), ["road", "pole"])
    with pytest.raises(ValueError, match="all class_weights are 0"):
        weights_of(LossOptions(class_weights={"sky": 0}), torch.ones(1), ["sky"])


@pytest.mark.parametrize("formula", ["ohem", "dice", "lovasz", "ohem+0.5*dice"])
def test_class_weights_that_no_term_takes_are_refused_rather_than_ignored_or_undone(
    formula: str,
) -> None:
    for weights in ("enet-undone", {"pole": 5.0}, [1.0, 2.0]):
        with pytest.raises(ValueError, match="no term of the loss .* takes any; leave them out"):
            LossOptions(formula, weights)
        assert LossOptions(f"{formula}+border", weights).class_weights == weights
    assert LossOptions(formula, "none").class_weights == "none"
    assert LossOptions(formula).class_weights == "enet"
