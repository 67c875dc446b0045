import math

import pytest
import torch
from fastseg_training import DistillationLoss

RANDOM = torch.Generator().manual_seed(0)


def test_imitating_perfectly_costs_nothing() -> None:
    logits = torch.randn(2, 4, 6, 5, generator=RANDOM)
    assert DistillationLoss()(logits, logits).item() == pytest.approx(0, abs=1e-6)


def test_a_constant_added_to_a_class_of_every_pixel_is_seen_pixel_wise_alone() -> None:
    teacher = torch.randn(1, 3, 4, 4, generator=RANDOM)
    student = teacher.clone()
    student[:, 1] += 2
    by_channel = DistillationLoss(channel_weight=1, logit_weight=0)(student, teacher)
    by_pixel = DistillationLoss(channel_weight=0, logit_weight=1)(student, teacher)
    assert by_channel.item() == pytest.approx(0, abs=1e-6)
    assert by_pixel.item() > 0.01


def test_the_channel_wise_term_follows_the_formula_of_the_paper() -> None:
    teacher = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])
    student = torch.tensor([[[[2.0, 0.0]], [[0.0, 0.0]]]])
    temperature = 2.0

    def softmax(a: float, b: float) -> tuple[float, float]:
        ea, eb = math.exp(a / temperature), math.exp(b / temperature)
        return ea / (ea + eb), eb / (ea + eb)

    p, q = softmax(1, 3), softmax(2, 0)
    divergence = sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True))
    expected = temperature**2 * divergence / 2  # of two classes one differs
    loss = DistillationLoss(temperature, channel_weight=1, logit_weight=0)(student, teacher)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_teacher_of_another_stride_is_resized_and_gets_no_gradient() -> None:
    student = torch.randn(1, 3, 8, 8, generator=RANDOM, requires_grad=True)
    teacher = torch.randn(1, 3, 4, 4, generator=RANDOM, requires_grad=True)
    DistillationLoss()(student, teacher).backward()
    assert student.grad is not None and teacher.grad is None


def test_a_temperature_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="expected more than 0"):
        DistillationLoss(temperature=0)
