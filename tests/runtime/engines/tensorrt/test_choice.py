"""Of an artifact's graphs each device keeps the engine that is fastest there."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from fastseg_runtime.bundle.manifest import Artifact, FileEntry
from fastseg_runtime.engines.tensorrt import choice
from fastseg_runtime.engines.tensorrt.cache import EngineCache, EngineSource
from fastseg_runtime.engines.tensorrt.choice import graphs_of
from fastseg_runtime.engines.tensorrt.cuda import Cuda
from fastseg_runtime.engines.tensorrt.errors import TensorRTError
from fastseg_runtime.engines.tensorrt.platform import describe_platform
from fastseg_runtime.engines.tensorrt.runner import TensorRTRunner

from tests.doubles.cudart_double import FakeCudart
from tests.doubles.tensorrt_behaviour import Scenario
from tests.doubles.tensorrt_double import make_tensorrt, releases
from tests.doubles.tiny_onnx import expected_classes, random_image, tiny_onnx

RELEASES = releases()
needs_record = pytest.mark.skipif(not RELEASES, reason="FASTSEG_TENSORRT_API is not set")
WHOLE, RUNG = "model.onnx", "model-float-depthwise.onnx"
GRAPHS = {
    WHOLE: tiny_onnx("int8", depthwise="int8"),
    RUNG: tiny_onnx("int8", depthwise="float"),
}


@pytest.fixture(autouse=True)
def few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time what tells milliseconds apart, not hundredths."""
    monkeypatch.setattr(choice, "FRAMES_A_TURN", 3)
    monkeypatch.setattr(choice, "UNTIMED_FRAMES", 1)


def make_source(folder: Path, scenario: Scenario, release: str = "") -> EngineSource:
    """Return engines of a fake device on which depthwise convolutions take given times."""
    cudart = FakeCudart()
    trt = make_tensorrt(release or RELEASES[-1], cudart, scenario=scenario)
    cuda = Cuda(cudart)
    return EngineSource(trt, cuda, describe_platform(trt, cuda), EngineCache(folder))


SLOW_INT8, SLOW_FLOAT = {"int8": 0.01, "float": 0.0}, {"int8": 0.0, "float": 0.01}


@needs_record
@pytest.mark.parametrize(
    ("release", "times_s", "kept"),
    [*((release, SLOW_INT8, RUNG) for release in RELEASES), ("", SLOW_FLOAT, WHOLE)],
)
def test_every_release_keeps_the_faster_engine_and_tells_both_times(
    release: str,
    times_s: dict[str, float],
    kept: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = make_source(tmp_path, Scenario(depthwise_s=times_s), release)
    with caplog.at_level(logging.INFO, "fastseg_runtime"):
        engine = source.get(GRAPHS, "int8")
    assert engine.record["file"] == kept
    told_ms = {name: rival["latency_ms"] for name, rival in engine.record["rivals"].items()}
    least_ms = {WHOLE: 1e3 * times_s["int8"], RUNG: 1e3 * times_s["float"]}
    assert all(told_ms[name] >= least_ms[name] for name in GRAPHS)
    assert min(told_ms, key=lambda name: told_ms[name]) == kept
    assert f"keeping the engine of {kept}" in caplog.text and f"{told_ms[RUNG]} ms" in caplog.text
    image = random_image()
    runner = TensorRTRunner(source.trt, source.cuda, engine.plan)
    assert (runner.infer(image) == expected_classes(GRAPHS[kept], image)).all()


@needs_record
def test_the_choice_is_made_once_and_kept_with_its_engine(tmp_path: Path) -> None:
    source = make_source(tmp_path, Scenario(depthwise_s=SLOW_INT8))
    chosen = source.get(GRAPHS, "int8")
    again = source.get(GRAPHS, "int8", build="never")
    assert again.plan == chosen.plan and source.trt.world.builds == 2
    (record,) = (json.loads(path.read_bytes()) for path in source.cache.folder.glob("*.json"))
    assert record["file"] == RUNG and set(record["rivals"]) == set(GRAPHS)


@needs_record
def test_the_second_build_knows_what_the_first_measured(tmp_path: Path) -> None:
    source = make_source(tmp_path, Scenario())
    source.get(GRAPHS, "int8")
    assert source.trt.world.timing_caches == [b"", b"timings"]


@needs_record
@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        (("build", "float"), WHOLE),
        (("build", "int8"), RUNG),
        (("run", "float"), WHOLE),
        (("run", "int8"), RUNG),
    ],
)
def test_a_graph_that_this_device_cannot_take_leaves_the_other(
    fault: tuple[str, str], kept: str, tmp_path: Path
) -> None:
    source = make_source(tmp_path, Scenario(fails_on_depthwise=fault))
    record = source.get(GRAPHS, "int8").record
    lost = record["rivals"][RUNG if kept == WHOLE else WHOLE]
    assert record["file"] == kept
    if fault[0] == "build":
        assert lost["error"].startswith("building the engine failed: no kernel could be timed")
    else:
        assert lost["latency_ms"] is None


@needs_record
def test_where_none_is_built_the_first_tells_why(tmp_path: Path) -> None:
    source = make_source(tmp_path, Scenario(build_errors=("out of memory",)))
    with pytest.raises(TensorRTError, match="not enough memory"):
        source.get(GRAPHS, "int8")


@needs_record
def test_one_graph_alone_is_neither_timed_nor_kept_apart(tmp_path: Path) -> None:
    source = make_source(tmp_path, Scenario())
    record = source.get({WHOLE: GRAPHS[WHOLE]}, "int8").record
    assert "rivals" not in record


def artifact(*names: str) -> Artifact:
    """Return an artifact of files in a folder."""
    files = tuple(FileEntry(f"artifacts/j/{name}", 1, "0" * 64) for name in names)
    return Artifact("j", "onnx", "int8", "artifacts/j/model.onnx", files)


ALL: Any = (WHOLE, RUNG, "model-typed.onnx", "model-float-depthwise-typed.onnx")


@pytest.mark.parametrize(
    ("files", "typed", "taken"),
    [
        (ALL, False, (WHOLE, RUNG)),
        (ALL, True, ("model-typed.onnx", "model-float-depthwise-typed.onnx")),
        ((WHOLE, "model-typed.onnx"), True, ("model-typed.onnx",)),  # as older bundles have it
        ((WHOLE, "model-typed.onnx"), False, (WHOLE,)),
        ((WHOLE,), True, (WHOLE,)),
        ((WHOLE, RUNG), True, (WHOLE, RUNG)),
    ],
)
def test_a_release_takes_graphs_that_it_can_type(
    files: tuple[str, ...], typed: bool, taken: tuple[str, ...]
) -> None:
    assert graphs_of(artifact(*files), typed) == tuple(f"artifacts/j/{name}" for name in taken)
