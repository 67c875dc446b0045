"""The builder on a fake of each TensorRT release that is on record."""

import threading
import types
from typing import Any

import pytest
from fastseg_runtime.arrays.terminal import StatusLine
from fastseg_runtime.engines.tensorrt.builder import (
    WORKSPACE_BYTES,
    BuildStatus,
    BuiltEngine,
    build_engine,
    clamp_workspace,
)
from fastseg_runtime.engines.tensorrt.cuda import Cuda
from fastseg_runtime.engines.tensorrt.errors import TensorRTError
from fastseg_runtime.engines.tensorrt.platform import probe_release

from tests.doubles.cudart_double import FakeCudart
from tests.doubles.tensorrt_behaviour import Scenario
from tests.doubles.tensorrt_double import make_tensorrt, releases
from tests.doubles.tiny_onnx import tiny_onnx

RELEASES = releases()
pytestmark = pytest.mark.skipif(not RELEASES, reason="FASTSEG_TENSORRT_API is not set")
OLDEST, NEWEST = (RELEASES[0], RELEASES[-1]) if RELEASES else ("", "")
WITH_FLAGS = [release for release in RELEASES if not release.startswith("11")]
TYPED = [release for release in RELEASES if release.startswith("11")]


def graph_for(release: str, precision: str) -> bytes:
    """Return the graph that a bundle holds for a release: typed, or plain and with flags."""
    plain = precision == "fp16" and release in WITH_FLAGS
    return tiny_onnx("fp32" if plain else precision)


def build(
    release: str,
    precision: str = "fp16",
    scenario: Scenario | None = None,
    onnx: bytes | None = None,
    timing_cache: bytes = b"",
    **gpu: Any,
) -> tuple[BuiltEngine, Any]:
    """Build on a fake device; return the engine and the fake module."""
    cudart = FakeCudart(**gpu)
    trt = make_tensorrt(release, cudart, scenario=scenario)
    graph = onnx or graph_for(release, precision)
    built = build_engine(trt, Cuda(cudart), graph, precision, timing_cache)
    assert cudart.crashes == []
    return built, trt


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("release", RELEASES)
def test_every_release_builds_every_precision(release: str, precision: str) -> None:
    built, _ = build(release, precision)
    assert built.record["audit"]["counts"] == {precision: 1}
    assert built.record["audit"]["others"] == ()
    assert built.record["engine_bytes"] == len(built.plan)


@pytest.mark.parametrize(("precision", "cleared"), [("fp32", ["TF32"]), ("fp16", [])])
@pytest.mark.parametrize("release", RELEASES)
def test_float32_is_not_rounded_to_ten_bits(
    release: str, precision: str, cleared: list[str]
) -> None:
    _, trt = build(release, precision)
    assert trt.world.configs[0].flags_cleared == cleared


@pytest.mark.parametrize("release", WITH_FLAGS)
def test_up_to_ten_the_precision_is_a_flag(release: str) -> None:
    _, trt = build(release, "int8")
    assert trt.world.configs[0].flags_set == ["INT8", "FP16"]
    assert trt.world.network_flags == [1]  # explicit batch


@pytest.mark.parametrize("release", TYPED)
def test_from_eleven_on_the_precision_is_in_the_graph(release: str) -> None:
    built, trt = build(release, "int8")
    assert trt.world.configs[0].flags_set == []
    assert trt.world.network_flags == [2]  # strongly typed
    assert built.record["platform"]["release"]["strongly_typed"]


@pytest.mark.parametrize("release", RELEASES)
def test_an_engine_that_ignored_the_precision_is_refused(release: str) -> None:
    with pytest.raises(TensorRTError, match="did not take fp16: convolutions: 1 in fp32"):
        build(release, "fp16", Scenario(ignores_precision=True))


@pytest.mark.parametrize("release", TYPED)
def test_a_float_graph_on_a_strongly_typed_release_is_no_fp16_engine(release: str) -> None:
    with pytest.raises(TensorRTError, match="did not take fp16"):
        build(release, "fp16", onnx=tiny_onnx("fp32"))


def test_an_inspector_that_tells_nothing_is_noted_but_stops_nobody() -> None:
    built, _ = build(OLDEST, "fp16", Scenario(old_inspector=True))
    assert built.record["audit"]["readable"] is False


def test_the_record_says_what_was_built_where_and_from_what() -> None:
    built, _ = build(OLDEST)
    record = built.record
    assert record["platform"]["release"]["version"] == OLDEST
    assert record["platform"]["gpu"]["name"] == "Orin"
    assert record["platform"]["cuda_runtime"] == "12.6"
    assert record["flags"] == ["FP16"]
    assert len(record["onnx_sha256"]) == len(record["engine_sha256"]) == 64
    assert record["seconds"] >= 0


def test_the_workspace_is_half_of_what_is_free_and_a_gibibyte_at_most() -> None:
    assert clamp_workspace(8 << 30) == WORKSPACE_BYTES
    assert clamp_workspace(500 << 20) == 250 << 20
    _, trt = build(NEWEST, integrated=False, free_bytes=500 << 20)
    assert trt.world.configs[0].limits == {"WORKSPACE": 250 << 20}


def test_too_little_memory_is_said_before_the_build_starts() -> None:
    with pytest.raises(TensorRTError, match=r"only 40 MiB .*swap"):
        build(NEWEST, integrated=False, free_bytes=40 << 20)


@pytest.mark.parametrize("release", RELEASES)
def test_a_failed_build_names_the_cause_and_what_to_do(release: str) -> None:
    scenario = Scenario(
        build_errors=("Error Code 10: Could not find any implementation for node X",)
    )
    with pytest.raises(TensorRTError, match=r"(?s)too little free memory. To do: close.* X"):
        build(release, scenario=scenario)


@pytest.mark.parametrize("release", RELEASES)
def test_an_operation_that_tensorrt_does_not_have_is_named_with_its_node(release: str) -> None:
    with pytest.raises(TensorRTError, match=r"(?s)operation that this.*node 5.*Erf") as caught:
        build(release, "fp32", onnx=tiny_onnx(operator="Erf"))
    assert ("last" in str(caught.value)) == (release != OLDEST)  # TensorRT 8 knows the number only


def test_an_int8_graph_made_for_another_engine_is_refused_with_the_target_to_use() -> None:
    with pytest.raises(TensorRTError, match="not symmetric.*--target jetson-int8"):
        build(OLDEST, "int8", onnx=tiny_onnx("int8", zero_point=3))


def test_int8_without_ranges_is_refused_before_the_build() -> None:
    with pytest.raises(TensorRTError, match="needs a graph with Q/DQ.*--target jetson-int8"):
        build(OLDEST, "int8", onnx=tiny_onnx("fp32"))


def test_a_newer_opset_than_eight_six_reads_is_refused() -> None:
    with pytest.raises(TensorRTError, match="Unsupported opset 18"):
        build(OLDEST, "fp32", onnx=tiny_onnx(opset=18))


def test_an_unknown_precision_is_refused_with_the_choices() -> None:
    with pytest.raises(TensorRTError, match="choose one of .*fp16"):
        build(OLDEST, "fp17", onnx=tiny_onnx())


@pytest.mark.parametrize("release", RELEASES)
def test_what_one_build_measured_serves_the_next(release: str) -> None:
    first, _ = build(release)
    _, trt = build(release, timing_cache=first.timing_cache)
    assert trt.world.timing_caches == [first.timing_cache]


def test_measurements_of_another_device_are_left_aside() -> None:
    _, trt = build(NEWEST, scenario=Scenario(refuses_timing_cache=True), timing_cache=b"other")
    assert trt.world.timing_caches == [b""]


@pytest.mark.parametrize("release", [r for r in RELEASES if r != OLDEST])
def test_ctrl_c_stops_a_build_that_can_be_stopped(release: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(release, scenario=Scenario(interrupt_at_step=1))
    for thread in threading.enumerate():
        if thread.name == "TensorRT build":
            thread.join(timeout=5)
            assert not thread.is_alive()


class Terminal:
    """Collects what is written, and says whether it is a terminal."""

    def __init__(self, tty: bool) -> None:
        self.text, self.tty = "", tty

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_progress_is_one_line_on_a_terminal_and_few_lines_elsewhere() -> None:
    status = BuildStatus(phases={"Building Engine": (1, 3), "Tactics": (40, 97)})
    for tty in (True, False):
        terminal = Terminal(tty)
        with StatusLine(30.0, terminal) as line:  # type: ignore[arg-type]
            for _ in range(3):
                line.show(status)
        assert terminal.text.count("Building Engine 1/3, Tactics 40/97") == 1
        assert terminal.text.count("\n") == (0 if tty else 1)


@pytest.mark.parametrize(
    ("version", "advice"),
    [("8.2.1.8", "JetPack 4"), ("8.0.1.6", "JetPack 4"), ("8.4.1.5", "JetPack 5.1 brings")],
)
def test_older_releases_are_declined_with_the_reason(version: str, advice: str) -> None:
    with pytest.raises(TensorRTError, match=f"TensorRT {version} is too old.*{advice}"):
        probe_release(types.SimpleNamespace(__version__=version))


def test_eight_five_is_expected_to_work_and_marked_unchecked() -> None:
    trt = types.SimpleNamespace(__version__="8.5.2.2", BuilderFlag=types.SimpleNamespace(FP16=0))
    release = probe_release(trt)
    assert not release.checked and not release.strongly_typed


@pytest.mark.parametrize("version", RELEASES)
def test_releases_on_record_count_as_checked(version: str) -> None:
    assert probe_release(make_tensorrt(version, FakeCudart())).checked
