"""Running an engine: on fakes of every TensorRT and of CUDA, and on a real GPU if there is one."""

import gc
import threading
import tracemalloc
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.engines.tensorrt.builder import build_engine
from fastseg_runtime.engines.tensorrt.cuda import Cuda, CudaError
from fastseg_runtime.engines.tensorrt.errors import TensorRTError
from fastseg_runtime.engines.tensorrt.runner import TensorRTRunner

from tests.doubles.cudart_double import FakeCudart, GpuArray
from tests.doubles.tensorrt_behaviour import Scenario
from tests.doubles.tensorrt_double import make_tensorrt, releases
from tests.doubles.tiny_onnx import expected_classes, random_image, tiny_onnx

RELEASES = releases()
pytestmark = pytest.mark.skipif(not RELEASES, reason="FASTSEG_TENSORRT_API is not set")
MODEL = tiny_onnx("fp32")


class Device:
    """A fake GPU with a runner on it."""

    def __init__(self, release: str, scenario: Scenario | None = None) -> None:
        self.cudart = FakeCudart()
        self.cuda = Cuda(self.cudart)
        self.trt = make_tensorrt(release, self.cudart, scenario=scenario)
        plan = build_engine(self.trt, self.cuda, MODEL, "fp32").plan
        self.runner = TensorRTRunner(self.trt, self.cuda, plan)

    def upload(self, array: Any) -> GpuArray:
        """Return a copy of a numpy array on the GPU."""
        on_device = GpuArray(self.cuda, array.shape, array.dtype)
        self.view(on_device)[...] = array
        return on_device

    def view(self, array: GpuArray) -> Any:
        """Look into GPU memory."""
        memory = self.cudart.view(array.address, array.nbytes)
        return np.frombuffer(memory, array.dtype).reshape(array.shape)


@pytest.fixture(params=RELEASES)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    device = Device(request.param)
    yield device
    assert device.cudart.crashes == []


@pytest.fixture
def newest() -> Iterator[Device]:
    device = Device(RELEASES[-1])
    yield device
    assert device.cudart.crashes == []


def test_every_release_gives_the_classes_that_onnx_runtime_gives(device: Device) -> None:
    for seed in range(3):
        image = random_image(seed)
        assert (device.runner.infer(image) == expected_classes(MODEL, image)).all()


def test_a_frame_on_the_gpu_is_read_where_it_lies(device: Device) -> None:
    image = random_image(1)
    frame = device.upload(image)
    device.cudart.calls.clear()
    assert (device.runner.infer(frame) == expected_classes(MODEL, image)).all()
    assert device.cudart.calls.count("cudaMemcpyAsync") == 1  # the class map, back


def test_a_class_map_can_stay_on_the_gpu(device: Device) -> None:
    image = random_image(2)
    frame, out = device.upload(image), device.upload(np.zeros((4, 6), np.uint8))
    device.cudart.calls.clear()
    assert device.runner.infer(frame, out) is out
    assert (device.view(out) == expected_classes(MODEL, image)[0]).all()
    assert "cudaMemcpyAsync" not in device.cudart.calls


def test_a_frame_in_cpu_memory_can_give_a_class_map_on_the_gpu(newest: Device) -> None:
    image = random_image(3)
    out = newest.upload(np.zeros((1, 4, 6), np.uint8))
    newest.runner.infer(image, out)
    assert (newest.view(out) == expected_classes(MODEL, image)).all()


def test_frames_in_either_memory_can_be_mixed(newest: Device) -> None:
    for seed in range(4):
        image = random_image(seed)
        result = newest.runner.infer(newest.upload(image) if seed % 2 else image)
        assert (result == expected_classes(MODEL, image)).all()


def test_a_frame_that_another_stream_still_writes_is_waited_for(newest: Device) -> None:
    image = random_image(4)
    frame = newest.upload(np.zeros_like(image))

    interface = {**frame.__cuda_array_interface__, "stream": 1}
    on_stream = types.SimpleNamespace(__cuda_array_interface__=interface)
    newest.cudart.enqueue(1, lambda: np.copyto(newest.view(frame), image))
    assert (newest.runner.infer(on_stream) == expected_classes(MODEL, image)).all()


@pytest.mark.parametrize("release", RELEASES)
def test_without_a_cuda_graph_results_are_the_same(release: str) -> None:
    device = Device(release, Scenario(refuses_capture=True))
    image = random_image(5)
    assert (device.runner.infer(image) == expected_classes(MODEL, image)).all()
    assert "cudaGraphLaunch" not in device.cudart.calls


def test_a_graph_is_one_launch_and_one_wait_per_frame(newest: Device) -> None:
    newest.cudart.calls.clear()
    newest.runner.infer(random_image())
    assert newest.cudart.calls == ["cudaGetDevice", "cudaGraphLaunch", "cudaStreamSynchronize"]


def test_no_array_is_allocated_per_frame(newest: Device) -> None:
    image = random_image()
    for _ in range(3):
        newest.runner.infer(image)
    tracemalloc.start()
    try:
        first = newest.runner.infer(image)
        before = tracemalloc.take_snapshot()
        second = newest.runner.infer(image)
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    assert first is second
    numpy_only = [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
    grown = after.filter_traces(numpy_only).compare_to(before.filter_traces(numpy_only), "lineno")
    ours = [s for s in grown if "fastseg_runtime" in str(s.traceback) and s.size_diff > 0]
    assert ours == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 4, 6, 3), np.float32),
        np.zeros((1, 4, 7, 3), np.uint8),
        np.zeros((4, 6, 3), np.uint8),
    ],
)
def test_a_frame_of_another_form_is_refused(newest: Device, image: Any) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 of shape \(1, 4, 6, 3\)"):
        newest.runner.infer(image)


def test_an_engine_that_fails_says_what_tensorrt_said(newest: Device) -> None:
    newest.trt.world.scenario.run_fails = True
    with pytest.raises(TensorRTError, match="running the engine failed.*\n.*no address"):
        newest.runner.infer(newest.upload(random_image()))


def test_a_failed_frame_does_not_spoil_the_next(newest: Device) -> None:
    with pytest.raises(ValueError, match="GPU array of uint8"):
        newest.runner.infer(random_image(), newest.upload(np.zeros((9, 9), np.uint8)))
    newest.trt.world.scenario.run_fails = True
    with pytest.raises(TensorRTError):
        newest.runner.infer(newest.upload(random_image()))
    newest.trt.world.scenario.run_fails = False
    image = random_image(6)
    assert (newest.runner.infer(image) == expected_classes(MODEL, image)).all()


def test_an_engine_of_another_release_or_gpu_is_refused_with_the_cause() -> None:
    plan = build_engine(
        make_tensorrt(RELEASES[0], cudart := FakeCudart()),
        Cuda(cudart),
        MODEL,
        "fp32",
    ).plan
    with pytest.raises(TensorRTError, match="built by another TensorRT"):
        TensorRTRunner(make_tensorrt(RELEASES[-1], cudart), Cuda(cudart), plan)
    other = FakeCudart(name="Xavier", sm=(7, 2))
    with pytest.raises(TensorRTError, match="another kind of GPU"):
        TensorRTRunner(make_tensorrt(RELEASES[0], other), Cuda(other), plan)
    with pytest.raises(TensorRTError, match="built by another TensorRT"):
        TensorRTRunner(make_tensorrt(RELEASES[0], cudart), Cuda(cudart), b"no engine")


def test_out_of_gpu_memory_is_said(newest: Device) -> None:
    newest.cudart.fail_next["cudaMalloc"] = 2
    with pytest.raises(CudaError, match="out of memory"):
        newest.upload(random_image())


def test_threads_take_turns(newest: Device) -> None:
    images = [random_image(seed) for seed in range(8)]
    wrong: list[int] = []
    expected = [expected_classes(MODEL, image) for image in images]

    def work(index: int) -> None:
        out = newest.upload(np.zeros((4, 6), np.uint8))
        for _ in range(5):
            newest.runner.infer(images[index], out)
            if not (newest.view(out) == expected[index][0]).all():
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_closing_frees_everything_but_the_arrays_in_use(newest: Device) -> None:
    image = random_image(7)
    result = newest.runner.infer(image)
    newest.runner.close()
    gc.collect()
    assert len(newest.cudart.memory) == 1
    assert (result == expected_classes(MODEL, image)).all()
    assert list(newest.cudart.streams) == [1]
    assert not newest.cudart.graphs and not newest.cudart.events
