import numpy as np
from compare_models.timing import ratio_to, time_rounds


def test_calls_are_timed_in_turn_each_after_one_untimed_call() -> None:
    order: list[str] = []
    times_ms = time_rounds({name: lambda name=name: order.append(name) for name in "ab"}, 2)  # type: ignore[misc]
    assert "".join(order) == "aabbaabb"
    assert {name: len(times) for name, times in times_ms.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_of_rounds_so_that_a_slow_machine_does_not_show() -> None:
    load = np.array([1.0, 5.0, 1.0, 9.0, 2.0])
    ratio = ratio_to(6.0 * load, 2.0 * load)
    assert ratio.median == ratio.low == ratio.high == ratio.fastest == 3.0


def test_the_interval_of_a_ratio_grows_with_the_spread() -> None:
    rng = np.random.default_rng(0)
    steady = ratio_to(np.full(30, 6.0), 2.0 + rng.uniform(-0.01, 0.01, 30))
    shaky = ratio_to(np.full(30, 6.0), 2.0 + rng.uniform(-1, 1, 30))
    assert 0 < steady.high - steady.low < shaky.high - shaky.low
    assert shaky.low <= shaky.median <= shaky.high
