import math

import pytest
import torch
from fastseg_training.optimisation import (
    BACKBONE_PARTS,
    DECAYS,
    Budget,
    ModelEMA,
    Recipe,
    freeze,
    learning_rate_factor,
    make_optimizer,
    mixed,
)
from torch import nn

from fastseg import CheckpointError, FastSegNet


@pytest.mark.parametrize("decay", ["cosine", "poly"])
def test_the_learning_rate_climbs_then_falls_to_zero(decay: str) -> None:
    steps = 1000
    factors = [learning_rate_factor(decay, step / steps, step, 50) for step in range(steps)]
    peak = factors.index(max(factors))
    assert 45 <= peak <= 50
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert DECAYS[decay](1.0) == 0


def test_cosine_and_poly_are_the_known_curves() -> None:
    assert DECAYS["cosine"](0.25) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert DECAYS["poly"](0.25) == pytest.approx(0.75**0.9)


def test_a_warm_up_longer_than_a_short_training_ends_after_a_tenth_of_it() -> None:
    assert learning_rate_factor("constant", 0.1, 10, warmup_steps=5000) == 1.0
    assert learning_rate_factor("constant", 0.05, 5, warmup_steps=5000) == pytest.approx(0.5)


def test_a_budget_of_steps_does_not_look_at_the_clock() -> None:
    budget = Budget(steps=200)
    assert [budget.progress(step, 1e9) for step in (0, 50, 200, 300)] == [0, 0.25, 1, 1]


def test_a_budget_of_seconds_does_not_count_steps() -> None:
    budget = Budget(steps=200, seconds=60)
    assert [budget.progress(10**6, s) for s in (0.0, 15.0, 60.0, 70.0)] == [0, 0.25, 1, 1]


def test_a_network_that_no_checkpoint_could_hold_is_refused_before_its_training() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return {"scale": 2}

    with pytest.raises(CheckpointError, match="_extra_state"):
        ModelEMA(Extra(1, 1), decay=0.9)


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


def test_a_mixture_has_its_share_of_weights_and_statistics_and_leaves_the_first_as_it_was() -> None:
    first, second = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    second.running_mean = torch.tensor([4.0, 8.0])
    second.weight.data = torch.tensor([3.0, 5.0])
    between = mixed(first, second.state_dict(), 0.25)
    assert between.state_dict()["running_mean"].tolist() == [1.0, 2.0]
    assert between.state_dict()["weight"].tolist() == [1.5, 2.0]
    assert first.weight.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_the_start_that_leaves_no_training_is_refused(share: float) -> None:
    assert Recipe(start_share=0.0).start_share == 0 and Recipe(start_share=0.99)
    with pytest.raises(ValueError, match="start_share is .*; expected 0 or more and less than 1"):
        Recipe(start_share=share)


def test_the_average_is_in_eval_mode_and_takes_no_gradient() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    ema = ModelEMA(model, decay=0.9)
    assert not ema.model.training and model.training
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert all(p.requires_grad for p in model.parameters())


class Parts(nn.Module):
    """A network with a part that may come pretrained, norms, biases and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.encoding = nn.Linear(4, 2)  # not the encoder
        self.scale = nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def test_weights_of_two_dimensions_decay_and_norms_biases_and_numbers_do_not() -> None:
    model = Parts()
    groups = make_optimizer(model, 1e-3, weight_decay=0.02, backbone_factor=0.1).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = {name: decay.get(id(p)) for name, p in model.named_parameters()}
    assert named == {
        "scale": 0,
        "frozen": None,
        "backbone.0.weight": 0.02,
        "backbone.0.bias": 0,
        "backbone.1.weight": 0,
        "backbone.1.bias": 0,
        "encoding.weight": 0.02,
        "encoding.bias": 0,
    }


def test_the_backbone_alone_has_the_backbones_factor_of_the_learning_rate() -> None:
    model = Parts()
    groups = make_optimizer(model, 1e-3, weight_decay=0.02, backbone_factor=0.1).param_groups
    factor = {id(p): group["factor"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert factor[id(parameter)] == (0.1 if name.startswith("backbone.") else 1)


@pytest.mark.parametrize(("variant", "parts"), [("nano", {"stem"}), ("mobilenetv2", {"backbone"})])
def test_the_encoder_of_our_networks_is_their_backbone(variant: str, parts: set[str]) -> None:
    model = FastSegNet(2, variant)
    found = {name.split(".")[0] for name, _ in model.named_parameters()} & {*BACKBONE_PARTS}
    stages = {"stage_8", "stage_16", "stage_32"} if variant == "nano" else set()
    assert found == parts | stages


def test_the_last_step_of_the_warm_up_is_the_first_at_the_peak() -> None:
    factors = [learning_rate_factor("constant", 0.0, step, warmup_steps=50) for step in (48, 49)]
    assert factors == [pytest.approx(0.98), 1.0]
    assert learning_rate_factor("constant", 0.0, 0, warmup_steps=0) == 1.0


def test_a_tenth_of_a_training_is_where_its_warm_up_ends() -> None:
    below, at = (learning_rate_factor("constant", p, 0, 10**6) for p in (0.099, 0.1))
    assert below == pytest.approx(0.99) and at == 1.0


def test_the_ramp_of_the_average_ends_where_the_decay_is_reached() -> None:
    """(1 + 7) / (10 + 7) is below 0.5, (1 + 8) / (10 + 8) is it."""
    moved = []
    for step in (7, 8, 9):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        ema = ModelEMA(model, decay=0.5)
        nn.init.ones_(model.weight)
        ema.update(step)
        moved.append(ema.model.weight.item())
    assert moved == pytest.approx([1 - 8 / 17, 0.5, 0.5])


def test_the_longest_name_that_fits_sets_the_rate_and_goes_before_the_backbones_factor() -> None:
    model = FastSegNet(3, "nano")
    rates = {"stage_8": 0.5, "stage_8.0": 0.25, "head": 2.0}
    optimizer = make_optimizer(model, 1e-3, 0.0, 0.1, rates)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            known = {"stage_8.0.": 0.25, "stage_8.": 0.5, "stem.": 0.1, "stage_": 0.1, "head.": 2.0}
            fits = [factor for prefix, factor in known.items() if name.startswith(prefix)]
            assert group["factor"] == (fits[0] if fits else 1.0), name
    with pytest.raises(ValueError, match="the network has no part 'stage_9'; there are stem, "):
        make_optimizer(model, 1e-3, 0.0, 1.0, {"stage_9": 0.5})
    with pytest.raises(ValueError, match="the rate of stem is 0; expected more than 0"):
        Recipe(rates={"stem": 0})


def test_parts_that_are_frozen_are_named_and_leave_something_to_train() -> None:
    model = FastSegNet(3, "nano")
    parts = freeze(model, ["backbone"])
    assert parts == [model.stem, model.stage_8, model.stage_16, model.stage_32]
    assert not any(p.requires_grad for p in model.stem.parameters())
    assert all(p.requires_grad for p in model.head.parameters())
    with pytest.raises(ValueError, match="no part 'backbone'; there are 0, and modules in these"):
        freeze(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1)), ["backbone"])
    with pytest.raises(ValueError, match="no part ''"):
        freeze(model, [""])
    with pytest.raises(ValueError, match="freeze is 0: nothing is left to train"):
        freeze(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1)), ["0"])
