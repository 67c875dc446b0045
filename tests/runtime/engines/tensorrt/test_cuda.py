"""CUDA over ctypes: on a libcudart over host memory, on real libraries, on a real GPU."""

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.engines.backend import on_gpu
from fastseg_runtime.engines.tensorrt.cuda import (
    SIGNATURES,
    Cuda,
    CudaError,
    candidates,
    current_device,
    open_cuda,
    refuse_foreign_context,
)
from fastseg_runtime.engines.tensorrt.runner import (
    Stream,
    pinned_array,
    view_device_array,
)

from tests.doubles.cudart_double import OUT_OF_MEMORY, FakeCudart, GpuArray


@pytest.fixture
def library() -> Iterator[FakeCudart]:
    library = FakeCudart()
    yield library
    assert library.crashes == []


@pytest.fixture
def cuda(library: FakeCudart) -> Cuda:
    return Cuda(library)


class OtherArray:
    """A GPU array of another library."""

    def __init__(self, **changes: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": (4, 6, 3),
            "typestr": "|u1",
            "data": (0x7000, False),
            "strides": None,
            "version": 3,
        }
        self.__cuda_array_interface__.update(changes)


def test_a_gpu_is_described_by_name_compute_capability_and_size(cuda: Cuda) -> None:
    gpu = cuda.gpu()
    assert (gpu.name, gpu.sm, gpu.multiprocessors, gpu.integrated) == ("Orin", "8.7", 8, True)
    assert cuda.version("cudaRuntimeGetVersion") == "12.6"


def test_free_memory_of_a_discrete_gpu_is_what_cuda_says(library: FakeCudart) -> None:
    library.integrated, library.free_bytes = False, 123 << 20
    assert Cuda(library).free_bytes() == 123 << 20


def test_free_memory_of_a_jetson_includes_the_page_cache(library: FakeCudart) -> None:
    library.free_bytes = 1
    assert Cuda(library).free_bytes() > 1 << 20  # MemAvailable of this machine


def test_an_error_names_the_call_the_code_and_what_to_do(library: FakeCudart) -> None:
    library.fail_next["cudaMalloc"] = OUT_OF_MEMORY
    with pytest.raises(CudaError, match=r"cudaMalloc.*MemoryAllocation \(2\).*close other pro"):
        GpuArray(Cuda(library), (4,), np.uint8)


def test_bytes_make_the_round_trip_over_the_gpu_only_after_synchronizing(cuda: Cuda) -> None:
    sent, received = pinned_array(cuda, (2, 3), np.uint8), pinned_array(cuda, (2, 3), np.uint8)
    sent[:], received[:] = 7, 0
    on_device, stream = GpuArray(cuda, (2, 3), np.uint8), Stream(cuda)
    stream.copy_to_device(on_device.address, sent)
    stream.copy_to_host(received, on_device.address)
    assert received.max() == 0
    stream.synchronize()
    assert (received == 7).all()


def test_a_recorded_graph_repeats_its_work_at_every_launch(cuda: Cuda) -> None:
    sent, received = pinned_array(cuda, (3,), np.uint8), pinned_array(cuda, (3,), np.uint8)
    on_device, stream = GpuArray(cuda, (3,), np.uint8), Stream(cuda)

    def there_and_back() -> None:
        stream.copy_to_device(on_device.address, sent)
        stream.copy_to_host(received, on_device.address)

    sent[:] = 5
    graph = stream.capture(there_and_back)
    stream.synchronize()
    assert received.max() == 0  # recording runs nothing
    for value in (1, 2):
        sent[:] = value
        graph.launch(stream)
        stream.synchronize()
        assert (received == value).all()


def test_a_capture_that_fails_leaves_the_stream_usable(cuda: Cuda) -> None:
    stream = Stream(cuda)
    with pytest.raises(CudaError, match="StreamCaptureUnsupported"):
        stream.capture(stream.synchronize)
    with pytest.raises(ZeroDivisionError):
        stream.capture(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    stream.synchronize()


def test_memory_is_freed_with_the_last_array_that_views_it(library: FakeCudart, cuda: Cuda) -> None:
    view = pinned_array(cuda, (4, 4), np.uint8)[1:]
    on_device = GpuArray(cuda, (16,), np.uint8)
    gc.collect()
    assert len(library.memory) == 2
    del view, on_device
    gc.collect()
    assert not library.memory


def test_work_waits_for_the_stream_that_made_the_frame(library: FakeCudart, cuda: Cuda) -> None:
    order: list[str] = []
    producer, stream = Stream(cuda), Stream(cuda)
    library.enqueue(producer.handle, lambda: order.append("frame written"))
    stream.wait_for(producer.handle)
    library.enqueue(stream.handle, lambda: order.append("frame read"))
    stream.synchronize()
    assert order == ["frame written", "frame read"]


def test_gpu_arrays_of_other_libraries_are_used_where_they_lie() -> None:
    view = view_device_array(OtherArray(stream=0x30), (1, 4, 6, 3))
    assert (view.address, view.stream) == (0x7000, 0x30)
    assert view_device_array(OtherArray(stream=None), (4, 6, 3)).stream is None
    assert view_device_array(OtherArray(), (4, 6, 3)).stream == 1  # unknown: the default stream
    view_device_array(OtherArray(strides=(18, 3, 1)), (4, 6, 3))
    view_device_array(OtherArray(shape=(1, 4, 6, 3), strides=(99, 18, 3, 1)), (4, 6, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"typestr": "<f4"}, "expected a GPU array of uint8"),
        ({"shape": (4, 6)}, "expected a GPU array of uint8"),
        ({"strides": (1, 4, 24)}, "C-contiguous"),
        ({"data": (0x7000, True)}, "read-only"),
    ],
)
def test_gpu_arrays_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view_device_array(OtherArray(**changes), (4, 6, 3), writable=True)


def test_arrays_in_cpu_memory_are_told_from_gpu_arrays() -> None:
    assert on_gpu(OtherArray())
    assert not on_gpu(np.zeros(3))


@pytest.mark.slow  # imports torch
def test_torch_tensors_in_cpu_memory_are_not_on_the_gpu() -> None:
    torch = pytest.importorskip("torch")
    assert not on_gpu(torch.zeros(3))


def test_our_gpu_arrays_are_read_by_our_own_reader(cuda: Cuda) -> None:
    array = GpuArray(cuda, (1, 4, 6, 3), np.uint8)
    view = view_device_array(array, (4, 6, 3), writable=True)
    assert (view.address, view.stream) == (array.address, None)


def test_the_current_device_of_the_thread_is_restored(library: FakeCudart) -> None:
    library.devices = 2
    cuda = Cuda(library)
    with pytest.raises(ZeroDivisionError), current_device(cuda, 1):
        assert library.device == 1
        raise ZeroDivisionError
    assert library.device == 0


class FakeDriver:
    """libcuda with one primary context, and a thread in some context or none."""

    PRIMARY = 0x50

    def __init__(self, current: int) -> None:
        self.current, self.retained = current, 0

    def cuCtxGetCurrent(self, out: Any) -> int:
        out._obj.value = self.current
        return 0

    def cuDevicePrimaryCtxRetain(self, out: Any, index: int) -> int:
        out._obj.value, self.retained = self.PRIMARY, self.retained + 1
        return 0

    def cuDevicePrimaryCtxRelease(self, index: int) -> int:
        self.retained -= 1
        return 0


def test_a_context_of_pycuda_autoinit_is_refused_with_the_import_to_use() -> None:
    driver = FakeDriver(current=0x99)
    with pytest.raises(CudaError, match=r"pycuda\.autoprimaryctx"):
        refuse_foreign_context(0, driver)
    assert driver.retained == 0


@pytest.mark.parametrize("current", [0, FakeDriver.PRIMARY])
def test_no_context_and_the_primary_one_are_fine(current: int) -> None:
    refuse_foreign_context(0, FakeDriver(current))


def test_without_a_driver_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fastseg_runtime.engines.tensorrt.cuda.candidates", lambda: ["libnothing.so.1"]
    )
    with pytest.raises(CudaError, match=r"none of libnothing\.so\.1 can be loaded"):
        open_cuda()


def installed_libraries() -> list[str]:
    found = [name for name in candidates() if Path(name).is_absolute()]
    return found or [pytest.param("", marks=pytest.mark.skip("no libcudart here"))]  # type: ignore[list-item]


@pytest.mark.parametrize("path", installed_libraries())
def test_installed_cuda_libraries_have_every_function_we_bind(path: str) -> None:
    library = ctypes.CDLL(path)
    assert [name for name in SIGNATURES if not hasattr(library, name)] == []
    Cuda(library)


@pytest.mark.gpu
def test_a_real_gpu_takes_bytes_there_and_back_by_a_graph() -> None:
    cuda = open_cuda()
    sent, received = (
        pinned_array(cuda, (1 << 20,), np.uint8),
        pinned_array(cuda, (1 << 20,), np.uint8),
    )
    on_device, stream = GpuArray(cuda, (1 << 20,), np.uint8), Stream(cuda)
    sent[:] = np.random.default_rng(0).integers(0, 256, sent.shape)

    def there_and_back() -> None:
        stream.copy_to_device(on_device.address, sent)
        stream.copy_to_host(received, on_device.address)

    graph = stream.capture(there_and_back)
    graph.launch(stream)
    stream.synchronize()
    assert (sent == received).all()
    assert cuda.free_bytes() > 0 and cuda.gpu().name


@pytest.mark.gpu
@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_a_real_gpu_array_is_shared_with_other_libraries(library: str) -> None:
    other = pytest.importorskip(library)
    cuda = open_cuda()
    ours, stream = GpuArray(cuda, (4, 6, 3), np.uint8), Stream(cuda)
    if library == "torch":
        frame = other.arange(72, dtype=other.uint8, device="cuda").reshape(4, 6, 3)
        result = other.as_tensor(ours, device="cuda")
    else:
        frame = other.arange(72, dtype=other.uint8).reshape(4, 6, 3)
        result = other.asarray(ours)
    view = view_device_array(frame, (4, 6, 3))
    stream.wait_for(view.stream)
    on_device = 3  # cudaMemcpyDeviceToDevice
    cuda.call("cudaMemcpyAsync", ours.address, view.address, ours.nbytes, on_device, stream.handle)
    stream.synchronize()
    assert bool((result == frame).all())
