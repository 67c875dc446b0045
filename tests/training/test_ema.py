import pytest
import torch
from fastseg_training.ema import ModelEMA
from torch import nn


def test_the_average_follows_the_weights_by_the_decay_after_the_ramp() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = ModelEMA(model, decay=0.9)
    nn.init.ones_(model.weight)
    expected = 0.0
    for step in range(200):
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay)
        assert ema.model.weight.item() == pytest.approx(expected, rel=1e-5)


def test_the_first_steps_replace_most_of_the_random_start() -> None:
    model = nn.Linear(4, 4)
    ema = ModelEMA(model, decay=0.9999)
    nn.init.ones_(model.weight)
    ema.update(0)
    assert ((ema.model.weight - 1).abs() <= 0.11 * 1.6).all()


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    model = nn.BatchNorm2d(2)
    ema = ModelEMA(model, decay=0.5)
    model(torch.full((1, 2, 3, 3), 10.0))
    ema.update(1000)
    assert ema.model.running_mean is not None and model.running_mean is not None
    torch.testing.assert_close(ema.model.running_mean, model.running_mean / 2)
    assert ema.model.num_batches_tracked == 1


def test_the_average_is_in_eval_mode_and_takes_no_gradient() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    ema = ModelEMA(model, decay=0.9)
    assert not ema.model.training and model.training
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert all(p.requires_grad for p in model.parameters())
