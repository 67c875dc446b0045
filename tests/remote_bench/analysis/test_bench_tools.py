import contextlib
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from remote_bench.analysis.bench_tools import (
    BENCHMARK_MODEL,
    PERF_TEST,
    ToolTimes,
    read_benchmark_model,
    read_perf_test,
    tool_of,
)

# As versions from 2021 on print it: without percentiles, with them, and with a delegate.
OLD = """\
STARTING!
Log parameter values verbosely: [0]
Num threads: [4]
Graph: [./mobilenet_v1_1.0_224.tflite]
Loaded model ./mobilenet_v1_1.0_224.tflite
The input model file size (MB): 16.9008
Initialized session in 17.187ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=1 curr=3512391

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 2.95034e+06
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
Memory footprint delta from the start of the tool (MB): init=4.21094 overall=46.0859
"""  # noqa: E501
NEW = """\
INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 2 delegate kernels.
INFO: count=9 first=87112 curr=51629 min=51629 max=87112 avg=58147.4 std=11478 p5=51629 median=51962 p95=87112

INFO: Running benchmark for at least 1000 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=1000 first=52162 curr=49785 min=49088 max=686105 avg=63743.2 std=60716 p5=49620 median=51891 p95=68628

INFO: Inference timings in us: Init: 119515, First inference: 87112, Warmup (avg): 58147.4, Inference (avg): 63743.2
INFO: Memory footprint delta from the start of the tool (MB): init=55.4961 overall=55.4961
INFO: Overall peak memory footprint (MB) via periodic monitoring: 98.25
"""  # noqa: E501
PERF = """\
Setting intra_op_num_threads to 1
Session creation time cost: 0.217932 s
First inference time cost: 196 ms
Total inference time cost: 0.49481 s
Total inference requests: 5
Average inference time cost total: 98.961997 ms
Total inference run time: 0.494854 s
Number of inferences per second: 10.104
Avg CPU usage: 11 %
Peak working set size: 271122432 bytes
Avg CPU usage:11
Peak working set size:271122432
Runs:5
Min Latency: 0.0958204 s
Max Latency: 0.101519 s
P50 Latency: 0.0995086 s
P90 Latency: 0.101519 s
P95 Latency: 0.101519 s
P99 Latency: 0.101519 s
P999 Latency: 0.101519 s
"""


def test_the_timed_run_is_read_and_not_the_warmup():
    old = read_benchmark_model(OLD)
    assert (old.count, old.mean_ms, old.min_ms, old.max_ms) == (50, 2950.34, 2727.568, 3189.954)
    assert (old.init_ms, old.memory_mb, old.percentiles_ms) == (17.187, 46.0859, {})
    new = read_benchmark_model(NEW)
    assert (new.count, new.mean_ms) == (1000, pytest.approx(63.7432))
    assert new.percentiles_ms == {"p50": pytest.approx(51.891), "p95": pytest.approx(68.628)}
    assert "partially executed" in new.delegates[0]


@pytest.mark.parametrize("text", [OLD, NEW])
def test_carriage_returns_of_an_old_adb_change_nothing(text):
    assert read_benchmark_model(text.replace("\n", "\r\n")) == read_benchmark_model(text)


def test_perf_tests_seconds_and_milliseconds_are_told_apart():
    times = read_perf_test(PERF)
    assert (times.count, times.mean_ms, times.init_ms) == (5, 98.961997, pytest.approx(217.932))
    assert times.min_ms == pytest.approx(95.8204) and times.max_ms == pytest.approx(101.519)
    assert set(times.percentiles_ms) == {"p50", "p90", "p95", "p99"}
    assert times.memory_mb == pytest.approx(258.56, rel=1e-3)
    assert read_perf_test(PERF.replace(" cost total:", " cost:")) == times


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no lines"),
        ("count=50 avg=1", "no lines"),
        (OLD[: OLD.index("Inference timings")], "no lines"),  # killed before its end
        (OLD[OLD.index("Inference timings") :], "no lines"),
        (OLD.replace("(avg): 2.95034e+06", "(avg): 2.9e+06"), "two means"),
        (OLD.replace("max=3189954", "max=1000000"), "outside of"),
        (OLD.replace("count=50", "count=0"), "0 inferences"),
        (OLD.replace("2.95034e+06", "1e999"), "two means|inferences of"),
    ],
)
def test_output_that_makes_no_sense_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        read_benchmark_model(text)


@pytest.mark.parametrize("lacking", ["Total inference requests", "Min Latency", "Average"])
def test_perf_test_without_a_figure_is_refused(lacking):
    with pytest.raises(ValueError, match="no line for"):
        read_perf_test("\n".join(line for line in PERF.split("\n") if lacking not in line))


@pytest.mark.parametrize(("rate", "known"), [("9.0", True), ("10.5", True), ("39.9", False)])
def test_perf_test_that_ran_several_inferences_at_once_is_refused(rate, known):
    text = PERF.replace("second: 10.104", f"second: {rate}")  # a mean of 98.96 ms
    if known:
        assert read_perf_test(text) == read_perf_test(PERF)
        return
    with pytest.raises(ValueError, match="3.9 inferences ran at once; .* leave -c out"):
        read_perf_test(text)


micro = st.integers(1, 10**9)


@given(st.integers(2, 10**6), st.lists(micro, min_size=3, max_size=3), micro, st.booleans())
def test_what_the_tool_prints_is_what_is_read(count, three, init_us, has_percentiles):
    low, mean, high = sorted(three)
    more = f" p5={low} median={mean} p95={high}" if has_percentiles else ""
    text = (
        f"x count=1 curr={high}\ncount={count} first={high} curr={low} min={low} max={high} "
        f"avg={mean:g} std=3{more}\nInference timings in us: Init: {init_us}, First inference: "
        f"{high}, Warmup (avg): {high:g}, Inference (avg): {mean:g}\n"
    )
    assume(low <= float(f"{mean:g}") * 1.001 and float(f"{mean:g}") <= high * 1.001)
    times = read_benchmark_model(text)
    assert (times.count, times.init_ms) == (count, init_us / 1e3)
    assert (times.min_ms, times.max_ms) == (low / 1e3, high / 1e3)
    assert times.mean_ms == pytest.approx(mean / 1e3, rel=1e-5)
    assert times.percentiles_ms.get("p95") == (high / 1e3 if has_percentiles else None)


@given(st.text(), st.sampled_from([OLD, NEW, PERF]), st.data())
def test_any_output_gives_sound_times_or_is_refused(noise, text, data):
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    for mixed in (noise, text[:begin] + noise + text[end:], noise.join(text.split(" ")[:40])):
        for read in (read_benchmark_model, read_perf_test):
            with contextlib.suppress(ValueError):
                times = read(mixed)
                assert times.count >= 1 and times.mean_ms > 0
                assert "Infinity" not in json.dumps(vars(times))


def test_a_tool_is_known_by_the_name_of_its_file():
    assert tool_of("android_aarch64_benchmark_model") is BENCHMARK_MODEL
    assert tool_of("onnxruntime_perf_test") is PERF_TEST
    assert isinstance(read_benchmark_model(OLD), ToolTimes)
