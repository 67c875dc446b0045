import math

import pytest
from fastseg_training.schedule import DECAYS, Budget, learning_rate_factor


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
