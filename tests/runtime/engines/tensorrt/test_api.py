"""The fake tensorrt is as strict as its record, and every recorded member we use is needed."""

from pathlib import Path
from typing import Any

import pytest
from fastseg_runtime.engines.tensorrt.cache import EngineCache, EngineSource
from fastseg_runtime.engines.tensorrt.cuda import Cuda
from fastseg_runtime.engines.tensorrt.errors import TensorRTError
from fastseg_runtime.engines.tensorrt.platform import describe_platform
from fastseg_runtime.engines.tensorrt.runner import TensorRTRunner

from tests.doubles.cudart_double import FakeCudart
from tests.doubles.tensorrt_behaviour import Scenario
from tests.doubles.tensorrt_double import make_tensorrt, parse_signature, read_record, releases
from tests.doubles.tiny_onnx import expected_classes, random_image, tiny_onnx

RELEASES = releases()
pytestmark = pytest.mark.skipif(not RELEASES, reason="FASTSEG_TENSORRT_API is not set")


def go_through_everything(
    release: str, folder: Path, without: tuple[str, str] | None = None
) -> set[tuple[str, str]]:
    """Build, keep, load and run an engine, fail once; return the members that were used."""
    cudart = FakeCudart()
    trt = make_tensorrt(release, cudart, without)
    graph = tiny_onnx("int8")
    source = EngineSource(
        trt, Cuda(cudart), describe_platform(trt, Cuda(cudart)), EngineCache(folder)
    )
    engine = source.get({"model.onnx": graph}, "int8")
    assert engine.record["audit"]["counts"] == {"int8": 1}
    runner = TensorRTRunner(trt, Cuda(cudart), source.get({"model.onnx": graph}, "int8").plan)
    image = random_image()
    assert (runner.infer(image) == expected_classes(graph, image)).all()
    check_traces(trt, release)
    used = set(trt.used)
    return used | fail_once(release, cudart, without)


def check_traces(trt: Any, release: str) -> None:
    """Check what the code may leave out where a release lacks it, but must do where it has it."""
    config = trt.world.configs[0]
    flags = set() if release.startswith("11") else {"INT8", "FP16"}
    assert set(config.flags_set) == flags
    assert set(config.limits) == {"WORKSPACE"}
    assert config.profiling_verbosity.name == "DETAILED"
    assert trt.world.steps_reported == (0 if release.startswith("8") else 3)
    assert trt.world.timing_caches == [b""]


def fail_once(
    release: str, cudart: FakeCudart, without: tuple[str, str] | None
) -> set[tuple[str, str]]:
    """Run into a parser error, as described as the release can describe it."""
    trt = make_tensorrt(release, cudart, without, Scenario(build_warnings=("w",)))
    source = EngineSource(
        trt, Cuda(cudart), describe_platform(trt, Cuda(cudart)), EngineCache(Path("/dev/null"))
    )
    with pytest.raises(TensorRTError) as caught:
        source.get({"model.onnx": tiny_onnx("fp32", operator="Erf")}, "fp32")
    named = "" if release.startswith("8") else "last Erf"
    assert f"node 5 {named}: No importer registered for op: Erf" in str(caught.value)
    return set(trt.used)


@pytest.mark.parametrize("release", RELEASES)
def test_taking_any_member_we_use_from_the_record_is_noticed(release: str, tmp_path: Path) -> None:
    used = go_through_everything(release, tmp_path / "whole")
    assert len(used) > 30
    unnoticed = []
    for index, member in enumerate(sorted(used)):
        try:
            go_through_everything(release, tmp_path / str(index), without=member)
        except Exception:
            continue
        unnoticed.append(member)
    assert unnoticed == []


@pytest.mark.parametrize("release", RELEASES)
def test_a_member_that_the_release_lacks_does_not_exist(release: str) -> None:
    trt = make_tensorrt(release, FakeCudart())
    listed = "FP16" in read_record(release)["enums"]["BuilderFlag"]
    assert hasattr(trt.BuilderFlag, "FP16") == listed == (not release.startswith("11"))
    assert hasattr(trt, "IProgressMonitor") == (not release.startswith("8"))
    assert not hasattr(trt.ICudaEngine, "num_bindings") or release.startswith("8")


@pytest.mark.parametrize("release", RELEASES)
def test_unlisted_attributes_arguments_and_constructors_are_refused(release: str) -> None:
    trt = make_tensorrt(release, FakeCudart())
    builder = trt.Builder(trt.Logger())
    config = builder.create_builder_config()
    with pytest.raises(AttributeError, match="max_workspace"):
        config.max_workspace = 1
    with pytest.raises(TypeError, match="incompatible arguments"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
    with pytest.raises(TypeError, match="must be MemoryPoolType"):
        config.set_memory_pool_limit(trt.LayerInformationFormat.JSON, 1)
    with pytest.raises(TypeError, match="incompatible arguments"):
        builder.create_network(flag=1)
    with pytest.raises(TypeError, match="No constructor"):
        trt.ICudaEngine()


def test_a_subclass_must_call_its_base_and_take_what_it_is_given() -> None:
    trt = make_tensorrt(RELEASES[-1], FakeCudart())

    class Forgetful(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

    class Misnamed(trt.ILogger):  # type: ignore[misc]
        def log(self, message: str) -> None:
            pass

    with pytest.raises(TypeError, match="must be called"):
        trt.Builder(Forgetful())
    with pytest.raises(TypeError, match=r"called with \['severity', 'msg'\]"):
        trt.Builder(Misnamed())


def test_signatures_of_all_releases_can_be_read() -> None:
    text = "set_timing_cache(self: C, cache: ITimingCache, ignore_mismatch: bool) -> bool"
    assert [name for name, _, _ in parse_signature(text)] == ["cache", "ignore_mismatch"]
    for release in RELEASES:
        for members in read_record(release)["classes"].values():
            for entry in members.values():
                for signature in entry.get("signatures", ()):
                    if "*args" not in signature:
                        parse_signature(signature)
