import numpy as np
import pytest
from compare_models.timing import open_session, ratio_to, time_rounds
from onnx import TensorProto, helper, numpy_helper


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


def test_a_graph_that_onnx_runtime_does_not_run_is_told_in_a_line() -> None:
    double = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1, 1, 4, 4])
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1)), "w")
    out = helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph([conv], "g", [double], [out], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ValueError, match="does not run a graph that is compared: .*Conv"):
        open_session(model, 1)
