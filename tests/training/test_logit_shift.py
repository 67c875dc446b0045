"""What is added to a trained network's logits in the end."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from fastseg_training.build_trainer import adjustment, build_trainer
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.evaluate import EvaluationBatches, evaluate
from fastseg_training.logit_shift import adjusted, best_shifts, shifted, without_class_weights
from fastseg_training.optimisation import Recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastseg import FastSegNet
from fastseg.checkpoint import load_checkpoint
from fastseg.data import open_dataset

DATA = "synthetic:size=64x64,train=3,val=1,test=1"


def miou(logits_PK: Tensor, label_P: Tensor) -> float:
    ids_P, ious = logits_PK.argmax(1), []
    for k in label_P.unique().tolist():
        said, true = ids_P == k, label_P == k
        ious.append(float((said & true).sum() / (said | true).sum()))
    return sum(ious) / len(ious)


def test_a_class_that_is_never_the_likeliest_is_said_where_that_scores_better() -> None:
    # A pole: of 1000 pixels that may be one, 300 are, and the network knows just that.
    chance = torch.tensor([[0.7, 0.3]] * 1000 + [[0.99, 0.01]] * 9000)
    label = torch.cat([torch.ones(300), torch.zeros(9700)]).long()
    shift = best_shifts(chance.log(), label)
    assert not chance.argmax(1).any()
    assert (chance.log() + shift).argmax(1).sum() == 1000
    assert miou(chance.log() + shift, label) > miou(chance.log(), label) + 0.1


@pytest.mark.parametrize(("pixels", "stays"), [(99, True), (100, False)])
def test_a_class_that_hardly_occurs_in_these_pictures_is_not_silenced(
    pixels: int, stays: bool
) -> None:
    torch.manual_seed(0)
    label = torch.cat([torch.zeros(20_000), torch.full((pixels,), 2)]).long()
    logits = torch.randn(len(label), 3) + torch.tensor([1.0, -9.0, 1.0])
    shift = best_shifts(logits, label)
    assert float(shift[1]) == 0  # no pixel is labelled so
    assert (float(shift[2]) == 0) is stays


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6))
def test_the_shift_never_scores_less_on_the_pixels_that_it_was_chosen_by(k: int, seed: int) -> None:
    torch.manual_seed(seed)
    logits, label = torch.randn(5000, k), torch.randint(0, k, (5000,))
    assert miou(logits + best_shifts(logits, label), label) >= miou(logits, label) - 1e-6


def test_pictures_are_scored_better_after_it_and_only_a_bias_has_changed() -> None:
    torch.manual_seed(0)
    data = open_dataset(DATA, "train")
    network = FastSegNet(len(data.classes), "nano", auxiliary=False).eval()
    batches = EvaluationBatches(data, (64, 64))
    other = adjusted(network, batches)
    changed = [
        name
        for name, value in other.state_dict().items()
        if not torch.equal(value, network.state_dict()[name])
    ]
    assert changed == ["head.1.bias"]
    before, after = (evaluate(net, batches, len(data.classes)).miou for net in (network, other))
    assert after > before


def test_pictures_that_nobody_judged_change_nothing() -> None:
    network = FastSegNet(3, "nano", auxiliary=False).eval()
    other = adjusted(network, [(torch.randn(1, 3, 64, 64), torch.full((1, 64, 64), 255))])
    assert torch.equal(other.state_dict()["head.1.bias"], network.state_dict()["head.1.bias"])


def test_class_weights_are_taken_out_by_their_logarithm() -> None:
    network = FastSegNet(2, "nano", auxiliary=False)
    other = without_class_weights(network, torch.tensor([1.0, 4.0]))
    change = other.state_dict()["head.1.bias"] - network.state_dict()["head.1.bias"]
    assert float(change[0] - change[1]) == pytest.approx(torch.tensor(4.0).log().item())


def test_another_network_is_refused() -> None:
    with pytest.raises(TypeError, match="where is its classifier"):
        shifted(nn.Conv2d(3, 2, 1), torch.zeros(2))
    config = TrainConfig(model="nets:UNet", recipe=Recipe(adjust_logits=True))
    with pytest.raises(ConfigError, match="adjust_logits is for nano.*not nets:UNet; leave it out"):
        adjustment(config, nn.Identity(), Mock(), Mock())


def test_a_training_ends_with_it_and_goes_on_without(tmp_path: Path) -> None:
    results = {}
    for adjust in (False, True):
        run = tmp_path / f"{adjust}"
        config = TrainConfig(
            data=DATA,
            model="nano",
            crop="64x64",
            batch=2,
            epochs=2,
            recipe=Recipe(adjust_logits=adjust, evaluations=1),
        )
        run.mkdir()
        trainer = build_trainer(config, run)
        trainer.train()
        results[adjust] = load_checkpoint(run / "model.safetensors")[0].state_dict()
        averaged = trainer.learner.ema.model.state_dict()["head.1.bias"]
        assert adjust != torch.equal(averaged, results[adjust]["head.1.bias"])
    differ = [k for k, v in results[True].items() if not torch.equal(v, results[False][k])]
    assert differ == ["head.1.bias"]
