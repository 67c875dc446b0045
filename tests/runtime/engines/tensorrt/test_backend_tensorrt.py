"""The TensorRT backend behind the runtime's contract: from an artifact to class ids."""

import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.bundle.manifest import Artifact, FileEntry, InputSpec, OutputSpec
from fastseg_runtime.engines.backend import BuildRefusedError, ModelSource
from fastseg_runtime.engines.tensorrt.cuda import Cuda, CudaError
from fastseg_runtime.engines.tensorrt.errors import TensorRTError

from tests.doubles.cudart_double import FakeCudart, GpuArray
from tests.doubles.tensorrt_double import make_tensorrt, releases
from tests.doubles.tiny_onnx import (
    HEIGHT,
    WIDTH,
    expected_classes,
    random_image,
    tiny_onnx,
)

RELEASES = releases()
pytestmark = pytest.mark.skipif(not RELEASES, reason="FASTSEG_TENSORRT_API is not set")
PLAIN, TYPED = tiny_onnx("fp32"), tiny_onnx("fp16")
FILES = {"artifacts/j/model.onnx": PLAIN, "artifacts/j/model-typed.onnx": TYPED}
MODULE = "fastseg_runtime.engines.tensorrt.backend_tensorrt"


def make_source(precision: str = "fp16", **changes: Any) -> ModelSource:
    """Return the source of an artifact that holds a plain and a typed graph."""
    entries = tuple(FileEntry(path, len(data), "0" * 64) for path, data in FILES.items())
    artifact = Artifact("jetson", "onnx", precision, "artifacts/j/model.onnx", entries)
    return ModelSource(
        artifact=artifact,
        input=InputSpec(WIDTH, HEIGHT),
        output=OutputSpec(),
        read=FILES.__getitem__,
        locate=lambda: Path("/nowhere"),
        **changes,
    )


class Device:
    """A fake device: its GPU, its TensorRT, and the backend imported there."""

    def __init__(self, release: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cudart = FakeCudart()
        self.trt = make_tensorrt(release, self.cudart)
        monkeypatch.setitem(sys.modules, "tensorrt", self.trt)
        monkeypatch.delitem(sys.modules, MODULE, raising=False)
        self.module = importlib.import_module(MODULE)
        monkeypatch.setattr(self.module, "open_cuda", lambda: Cuda(self.cudart))

    def open(self, **changes: Any) -> Any:
        backend = self.module.TensorRTBackend()
        backend.open(make_source(**changes))
        return backend


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    return tmp_path / "engines"


@pytest.fixture(params=RELEASES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device = Device(request.param, monkeypatch)
    yield device
    sys.modules.pop(MODULE, None)
    assert device.cudart.crashes == []


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    yield Device(RELEASES[-1], monkeypatch)
    sys.modules.pop(MODULE, None)


def test_an_artifact_is_built_once_and_then_taken_from_the_cache(device: Device) -> None:
    image = random_image()
    for _ in range(2):
        backend = device.open()
        assert (backend.infer(image) == expected_classes(PLAIN, image)).all()
        backend.close()
    assert device.trt.world.builds == 1


def test_a_strongly_typed_release_builds_from_the_typed_graph(device: Device) -> None:
    backend = device.open()
    header = next(cache_plan(device)).partition(b"\0")[2]
    typed = device.trt.__version__.startswith("11")
    assert header == (TYPED if typed else PLAIN)
    backend.close()


def test_of_two_graphs_the_backend_keeps_one_engine_and_runs_it(
    newest: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung = tiny_onnx("int8", depthwise="float")
    monkeypatch.setitem(FILES, "artifacts/j/model-typed.onnx", tiny_onnx("int8", depthwise="int8"))
    monkeypatch.setitem(FILES, "artifacts/j/model-float-depthwise-typed.onnx", rung)
    newest.trt.world.scenario.depthwise_s["int8"] = 0.005
    backend, image = newest.open(precision="int8"), random_image()
    assert newest.trt.world.builds == 2 and len(list(cache_plan(newest))) == 1
    assert (backend.infer(image) == expected_classes(rung, image)).all()


def cache_plan(device: Device) -> Iterator[bytes]:
    cache = device.module.EngineCache()
    return (path.read_bytes() for path in cache.folder.glob("*.plan"))


def test_build_never_refuses_instead_of_surprising_and_names_the_command(newest: Device) -> None:
    with pytest.raises(BuildRefusedError, match=r"fastseg-run --prepare"):
        newest.open(build="never")
    assert newest.trt.world.builds == 0
    newest.open().close()
    newest.open(build="never").close()


def test_an_engine_is_trusted_only_after_its_self_test(newest: Device) -> None:
    backend = newest.open()
    assert not backend.trusted
    backend.note_selftest(True)
    assert newest.open().trusted


def test_an_engine_that_failed_its_self_test_is_built_again(newest: Device) -> None:
    newest.open().note_selftest(False)
    newest.open()
    assert newest.trt.world.builds == 2


def test_an_exchanged_engine_is_never_loaded(
    newest: Device, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest.open().close()
    (plan,) = cache.glob("*.plan")
    plan.write_bytes(b"evil code")
    with caplog.at_level(logging.WARNING, "fastseg_runtime"):
        backend = newest.open()
    assert "not the file that was built here" in caplog.text
    assert newest.trt.world.builds == 2
    image = random_image()
    assert (backend.infer(image) == expected_classes(TYPED, image)).all()


def test_a_cache_that_cannot_be_written_builds_to_memory(
    newest: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", "/dev/null")
    image = random_image()
    backend = newest.open()
    assert (backend.infer(image) == expected_classes(TYPED, image)).all()
    assert "in memory only" in caplog.text
    backend.note_selftest(True)  # nothing to note it in, and no error


def test_updating_tensorrt_builds_a_new_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for release in RELEASES[:2]:
        device = Device(release, monkeypatch)
        device.open().close()
        assert device.trt.world.builds == 1
    assert len(device.module.EngineCache().entries()) == 2


def test_frames_on_the_gpu_pass_through(newest: Device) -> None:
    backend, image = newest.open(), random_image()
    frame = GpuArray(Cuda(newest.cudart), image.shape, np.uint8)
    np.frombuffer(newest.cudart.view(frame.address, frame.nbytes), np.uint8)[...] = image.ravel()
    assert (backend.infer(frame) == expected_classes(TYPED, image)).all()


def test_a_closed_backend_says_so_and_closes_twice(newest: Device) -> None:
    backend = newest.open()
    backend.close()
    backend.close()
    with pytest.raises(RuntimeError, match="closed"):
        backend.infer(random_image())


@pytest.mark.parametrize(("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:2", 2)])
def test_devices_are_named_as_in_torch(newest: Device, name: str, index: int) -> None:
    assert newest.module.device_index(name) == index


def test_other_devices_are_refused(newest: Device) -> None:
    with pytest.raises(ValueError, match="no device 'cpu'; choose auto, cuda or cuda:N"):
        newest.open(device="cpu")


def test_the_second_gpu_is_used_and_the_threads_own_restored(newest: Device) -> None:
    newest.cudart.devices = 2
    newest.open(device="cuda:1").infer(random_image())
    assert "cudaSetDevice" in newest.cudart.calls
    assert newest.cudart.device == 0


def test_a_context_of_pycuda_autoinit_is_refused_before_anything_is_built(
    newest: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(index: int) -> None:
        raise CudaError("import pycuda.autoprimaryctx instead")

    monkeypatch.setattr(newest.module, "refuse_foreign_context", refuse)
    with pytest.raises(CudaError, match="autoprimaryctx"):
        newest.open()
    assert newest.trt.world.builds == 0


@pytest.mark.parametrize(("version", "untried"), [("8.5.2.2", True), ("8.6.1", False)])
def test_a_release_that_nobody_tried_works_and_is_said(
    version: str,
    untried: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = Device(RELEASES[0], monkeypatch)
    device.trt.__version__ = version
    device.open().close()
    assert (f"TensorRT {version} is untried with fastseg" in caplog.text) == untried


def test_jetpack_4_is_declined_with_the_reason(newest: Device) -> None:
    newest.trt.__version__ = "8.2.1.8"
    with pytest.raises(TensorRTError, match="JetPack 4"):
        newest.open()


@pytest.mark.parametrize(
    "failure", [ImportError("No module named 'tensorrt'"), OSError("libnvinfer.so.10: not found")]
)
def test_an_absent_or_broken_tensorrt_is_an_import_error_that_says_what_to_do(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        def find_spec(self, name: str, *rest: Any) -> Any:
            if name == "tensorrt":
                raise failure

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ImportError, match=rf"{failure}.*JetPack.*--system-site-packages"):
        importlib.import_module(MODULE)


def test_progress_goes_to_stderr_and_nothing_to_stdout(
    newest: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    newest.open()
    written = capsys.readouterr()
    assert "building the TensorRT engine" in written.err
    assert written.out == ""
    newest.open()
    assert capsys.readouterr().err == ""
