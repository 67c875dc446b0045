import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from fastseg_runtime import BuildRefusedError, NoBackendError, RealtimeSegmentation
from fastseg_runtime.engines import opening, selection
from fastseg_runtime.engines.engine import ENGINES
from fastseg_runtime.engines.selection import Availability

from tests.doubles.tiny_bundle import (
    argmax_onnx,
    empty_plan,
    full_plan,
    noise,
    strongest_channel,
)


class FixedBackend:
    """An engine that can be told to misbehave."""

    error: Exception | None = None
    classes = 0
    trusted = False
    noted: ClassVar[list[bool]] = []
    closed = 0

    def open(self, source: Any) -> None:
        if self.error is not None:
            raise self.error

    def infer(self, image_1HW3: Any) -> Any:
        return np.full(image_1HW3.shape[:3], self.classes, np.uint8)

    def note_selftest(self, passed: bool) -> None:
        self.noted.append(passed)

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[FixedBackend]:
    """The double in TensorRT's place: the first choice for an artifact jetson-fp16."""

    class Backend(FixedBackend):
        noted: ClassVar[list[bool]] = []
        closed = 0

    module = type(sys)("double_backend")
    module.Backend = Backend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "double_backend", module)
    double = replace(ENGINES["tensorrt"], location="double_backend:Backend")
    monkeypatch.setitem(ENGINES, "tensorrt", double)
    real = selection.probe
    monkeypatch.setattr(
        opening,
        "probe",
        lambda name: Availability(name, True, "10.3") if name == "tensorrt" else real(name),
    )
    return Backend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """cpu-fp32 that works behind jetson-fp16 that the double runs."""
    plan = full_plan().with_artifact(
        "jetson-fp16", argmax_onnx(), precision="fp16", requires={"backend": "tensorrt"}
    )
    return plan.write(tmp_path / "street.fastseg")


def test_an_engine_that_fails_to_open_falls_back_loudly(
    engine: type[FixedBackend], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine.error = RuntimeError("out of\n memory\n")
    with RealtimeSegmentation(path) as session:
        assert session.info.target == "cpu-fp32"
        (rejected,) = session.info.rejected
    assert (rejected.target, rejected.reason) == ("jetson-fp16", "out of memory")
    failure, instead = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert failure == "jetson-fp16 with tensorrt failed: out of memory"
    assert instead.startswith("running cpu-fp32 (fp32) with onnxruntime")
    assert engine.closed == 1


def test_a_library_that_is_installed_but_broken_is_passed_over_loudly(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reason = "tensorrt is installed but does not load: libnvinfer.so.10: cannot open"
    broken = Availability("tensorrt", False, reason=reason, broken=True)
    real = selection.probe
    monkeypatch.setattr(opening, "probe", lambda name: broken if name == "tensorrt" else real(name))
    with RealtimeSegmentation(path) as session:
        assert session.info.target == "cpu-fp32"
    failure, instead = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert reason in failure and "cpu-fp32" in instead


def test_an_engine_that_fails_the_selftest_is_forgotten_and_not_used(
    engine: type[FixedBackend], path: Path
) -> None:
    with RealtimeSegmentation(path) as session:
        assert session.info.target == "cpu-fp32"
        assert "the engine computes something else" in session.info.rejected[0].reason
    assert engine.noted == [False]


def test_an_engine_that_passed_before_is_trusted(engine: type[FixedBackend], path: Path) -> None:
    engine.trusted = True
    with RealtimeSegmentation(path) as session:
        assert session.info.target == "jetson-fp16"
        assert session.info.selftest_agreement is None
    assert engine.noted == []


def test_a_swap_runs_the_self_test_of_its_bundle_though_the_engine_passed_before(
    engine: type[FixedBackend], path: Path
) -> None:
    engine.trusted = True
    with RealtimeSegmentation(path) as session:
        assert session.info.target == "jetson-fp16"
        session.swap(path)
        assert session.info.target == "cpu-fp32"  # the double computes something else
    assert engine.noted == [False]


def test_the_selftest_can_be_left_out(engine: type[FixedBackend], path: Path) -> None:
    with RealtimeSegmentation(path, selftest=False) as session:
        assert session.info.target == "jetson-fp16"


def test_a_refused_build_does_not_fall_back_to_a_slow_cpu(
    engine: type[FixedBackend], path: Path
) -> None:
    engine.error = BuildRefusedError("run fastseg-run --prepare street.fastseg first")
    with pytest.raises(BuildRefusedError, match="--prepare"):
        RealtimeSegmentation(path, build="never")


def test_ctrl_c_during_a_build_ends_it_all(engine: type[FixedBackend], path: Path) -> None:
    engine.error = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        RealtimeSegmentation(path)
    assert engine.closed == 1


def test_nothing_runs_lists_what_there_is_and_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = empty_plan().with_artifact(
        "ios-fp16", b"a package", "coreml", requires={"backend": "coreml"}
    )
    for target in ("android-int8", "android-fp16"):
        plan = plan.with_artifact(target, b"x", "tflite", requires={"backend": "litert"})
    absent = Availability("litert", False, reason="not installed", fix="pip install ai-edge-litert")
    real = selection.probe
    monkeypatch.setattr(opening, "probe", lambda name: absent if name == "litert" else real(name))
    with pytest.raises(NoBackendError) as caught:
        RealtimeSegmentation(plan.write(tmp_path / "phone.fastseg"))
    message = str(caught.value)
    assert "android-int8, android-fp16 with litert: not installed" in message  # said once
    assert "ios-fp16 with coreml: runs on darwin alone" in message
    assert "pip install ai-edge-litert" in message
    assert {item.target for item in caught.value.rejected} == {
        "ios-fp16",
        "android-int8",
        "android-fp16",
    }


def test_a_bundle_for_another_backend_lists_what_it_holds(bundle_path: Path) -> None:
    with pytest.raises(NoBackendError, match=r"it holds cpu-fp32 \(onnx\)"):
        RealtimeSegmentation(bundle_path, backend="litert")


def test_an_unknown_target_or_backend_lists_the_known_ones(bundle_path: Path) -> None:
    with pytest.raises(ValueError, match="no target 'coreml' .* it has cpu-fp32"):
        RealtimeSegmentation(bundle_path, target="coreml")
    with pytest.raises(ValueError, match="no backend 'onnx'; choose one of coreml, litert"):
        RealtimeSegmentation(bundle_path, backend="onnx")


def test_a_library_older_than_the_artifact_needs_is_not_used(tmp_path: Path) -> None:
    requires = {"backend": "onnxruntime", "min_version": "99.1"}
    plan = empty_plan().with_artifact("cpu-fp32", argmax_onnx(), requires=requires)
    with pytest.raises(NoBackendError, match=r"needs onnxruntime 99\.1 or newer, here is 1\."):
        RealtimeSegmentation(plan.write(tmp_path / "new.fastseg"))


@pytest.mark.parametrize(
    ("requires", "refused"),
    [
        ({"backend": "onnxruntime", "min_version": "1.0", "min_onnxruntime": "99.1"}, True),
        ({"backend": "tensorrt", "min_version": "99.1"}, False),  # TensorRT's, not this one's
        ({"backend": "tensorrt", "min_version": "8.5", "min_onnxruntime": "99.1"}, True),
    ],
)
def test_a_minimum_of_the_very_library_goes_before_the_general_one(
    requires: dict[str, str], refused: bool, tmp_path: Path
) -> None:
    plan = empty_plan().with_artifact("cpu-fp32", argmax_onnx(), requires=requires)
    path = plan.write(tmp_path / "new.fastseg")
    if refused:
        with pytest.raises(NoBackendError, match=r"needs onnxruntime 99\.1 or newer"):
            RealtimeSegmentation(path, backend="onnxruntime")
    else:
        RealtimeSegmentation(path, backend="onnxruntime").close()


def test_a_recorded_agreement_is_what_the_selftest_asks_for(tmp_path: Path) -> None:
    image = noise()
    wrong = strongest_channel(image)
    wrong[:16] = (wrong[:16] + 1) % 3  # half of the pixels differ
    for recorded, runs in [(0.5, True), (0.9, False)]:
        plan = empty_plan().with_scene(image, wrong)
        plan = plan.with_artifact("cpu-int8", argmax_onnx(), extra={"selftest_agreement": recorded})
        path = plan.write(tmp_path / f"{recorded}.fastseg")
        if runs:
            RealtimeSegmentation(path).close()
        else:
            with pytest.raises(NoBackendError, match=r"agrees in 50\.0% of the pixels, 88\.0%"):
                RealtimeSegmentation(path)


def test_unpacked_files_are_gone_after_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    seen: list[Path] = []

    class Locating(FixedBackend):
        def open(self, source: Any) -> None:
            seen.append(source.locate())
            assert seen[0].read_bytes() == argmax_onnx()

    module = type(sys)("locating_backend")
    module.Backend = Locating  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "locating_backend", module)
    locating = replace(ENGINES["onnxruntime"], location="locating_backend:Backend")
    monkeypatch.setitem(ENGINES, "onnxruntime", locating)
    plan = full_plan()
    artifact = replace(plan.manifest.artifacts[0], target="../../../escape")
    manifest = replace(plan.manifest, artifacts=(artifact,), selftest=())
    plan = replace(plan, manifest=manifest)
    session = RealtimeSegmentation(plan.write(tmp_path / "b.fastseg"))
    assert folder in seen[0].parents
    session.close()
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("cpus", "engines", "share"), [(8, 1, None), (8, 2, 4), (7, 2, 3), (4, 4, 1), (1, 2, 1)]
)
def test_several_engines_share_the_cpus_and_one_is_left_to_its_own_default(
    engine: type[FixedBackend],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cpus: int,
    engines: int,
    share: int | None,
) -> None:
    threads: list[int | None] = []
    engine.open = lambda self, source: threads.append(source.threads)  # type: ignore[method-assign]
    monkeypatch.setattr(opening, "cpu_count", lambda: cpus)
    with RealtimeSegmentation(path, engines=engines, selftest=False):
        assert threads == [share] * engines


def test_an_engine_whose_closing_fails_keeps_none_of_the_others_open(
    engine: type[FixedBackend], path: Path
) -> None:
    def close(self: FixedBackend) -> None:
        engine.closed += 1
        raise RuntimeError("lost the device")

    session = RealtimeSegmentation(path, engines=2, selftest=False)
    engine.close = close  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="lost the device"):
        session.close()
    assert engine.closed == 2
