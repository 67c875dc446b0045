import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compare_models.candidate import Candidate, OwnNetworks, open_candidates
from compare_models.cost import Peaks, measure_peaks
from compare_models.report import pictures_of, tables_of
from compare_models.run import Results
from compare_models.scale import Point, growth, sweep_sizes
from compare_models.speed import compare, export_int8, up_to_logits
from compare_models.timing import call_of
from compare_models.torch_ways import time_on
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

SIZE = (128, 64)
MAIN = OwnNetworks(output_name="0")


def test_rows_hold_ratios_to_the_first_network(rival: str) -> None:
    candidates = open_candidates([rival, "nano"], SIZE, classes=5, own=MAIN)
    rows = compare(candidates, threads=1, rounds=3, peaks=Peaks(gflops=1e6, bandwidth_gb_s=1.0))
    assert [row.label for row in rows] == ["tiny", "nano"]
    assert rows[0].speedup.median == 1.0
    assert rows[1].cost.macs > rows[0].cost.macs
    for row in rows:
        assert row.fastest_ms <= row.latency_ms
        assert row.memory_mb > 0
        assert row.peak_share is not None and 0 < row.peak_share < 1


@pytest.mark.parametrize("int8", [False, True])
def test_the_tail_is_what_runs_after_the_last_convolution(int8: bool) -> None:
    (candidate,) = open_candidates(["nano"], SIZE, classes=5)
    assert candidate.graph is not None
    model = export_int8(candidate.graph) if int8 else candidate.model
    (logits,) = call_of(up_to_logits(model), candidate.feed, threads=1)()
    (class_map,) = call_of(model, candidate.feed, threads=1)()
    if int8:  # a row for each pixel
        logits = logits.reshape(1, 8, 16, 5).transpose(0, 3, 1, 2)
    assert logits.dtype == np.float32 and logits.shape == (1, 5, 8, 16)
    assert class_map.shape == (1, 64, 128)
    whole = F.interpolate(torch.from_numpy(logits), (64, 128), mode="bilinear")
    assert (whole.argmax(1).numpy() == class_map).mean() > 0.999


def test_a_long_tail_takes_most_of_the_time() -> None:
    depth = 60
    nodes = [make_node("Conv", ["image", "weight"], ["0"], pads=[1, 1, 1, 1])]
    nodes += [make_node("Softmax", [str(i)], [str(i + 1)]) for i in range(depth)]
    value = [
        make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 96, 96])
        for name in ("image", str(depth))
    ]
    weight = from_array(np.ones((8, 8, 3, 3), np.float32), "weight")
    graph = make_graph(nodes, "long", value[:1], value[1:], [weight])
    model = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    feed = {"image": np.ones((1, 8, 96, 96), np.float32)}
    (row,) = compare([Candidate("long", "long.onnx", None, model, feed)], threads=1, rounds=15)
    assert 0.5 < row.tail_share < 1 and 0 < row.convolution_share < 1


def test_the_peaks_of_a_machine_are_positive() -> None:
    peaks = measure_peaks(threads=1, repeats=1)
    assert peaks.gflops > 0 and peaks.bandwidth_gb_s > 0


def test_growth_is_the_exponent_of_time_in_pixels() -> None:
    points = [Point("a", 100 * n, 100 * n, 1, 1, 3.0 * n**3, 10.0) for n in (1, 2, 4)]
    assert growth(points) == pytest.approx(1.5)


def test_a_sweep_that_failed_after_its_first_point_is_reported_all_the_same() -> None:
    results = Results({}, "", 64, 32, 3, 1, 3, sizes=[Point("a", 64, 32, 1, 1, 3.0, 10.0)])
    (table,) = tables_of(results)
    assert table.rows == [["a, 1 threads", "3.0", "10", "nan"]]
    assert pictures_of(results, set())["scale.png"].startswith(b"\x89PNG")


def test_a_sweep_has_a_point_for_each_size_and_thread_count() -> None:
    points = list(sweep_sizes(["nano"], 3, rounds=3, sizes=((64, 32), (128, 64)), threads=(1,)))
    assert [(p.width, p.height, p.threads) for p in points] == [(64, 32, 1), (128, 64, 1)]
    assert all(p.latency_ms > 0 and p.memory_mb > 0 for p in points)


def test_torch_is_timed_eager_on_the_cpu() -> None:
    candidates = open_candidates(["nano"], (64, 32), classes=3)
    times_ms = time_on(candidates, "cpu", rounds=2, ways=("eager",))
    assert set(times_ms) == {"nano eager fp32", "nano eager bf16"}
