"""Memory that a GPU reaches, and streams of work on it.

Pinned host arrays, device arrays, and arrays of other libraries: __cuda_array_interface__ (numba's
document, versions 2 and 3) is how torch, cupy and pycuda show theirs, a dict with shape, typestr,
data = (address, read-only), strides and stream.
"""

import ctypes
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

from fastseg_runtime.engines.tensorrt.cuda import Cuda, CudaError

_LEGACY_STREAM = 1  # cudaStreamLegacy: the default stream, where most libraries work


class DeviceArray:
    """A C-contiguous array in GPU memory; freed with the last reference to it."""

    def __init__(self, cuda: Cuda, shape: Tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.nbytes = int(np.prod(shape)) * self.dtype.itemsize
        self.address = cuda.get_handle("cudaMalloc", self.nbytes)
        weakref.finalize(self, cuda.try_call, "cudaFree", self.address)

    @property
    def __cuda_array_interface__(self) -> Dict[str, Any]:
        """Describe the array to torch.as_tensor, cupy.asarray and pycuda."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
            "stream": None,  # whoever holds the array has it after the stream was synchronized
        }


def pinned_array(cuda: Cuda, shape: Tuple[int, ...], dtype: Any) -> Any:
    """Return a numpy array in page-locked memory, which the GPU copies at full speed.

    The memory is freed with the last array that views it.
    """
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    address = cuda.get_handle("cudaHostAlloc", nbytes, 0)
    memory = (ctypes.c_uint8 * nbytes).from_address(address)
    weakref.finalize(memory, cuda.try_call, "cudaFreeHost", address)
    return np.frombuffer(memory, dtype).reshape(shape)


@dataclass(frozen=True)
class DeviceView:
    """Somebody else's GPU array: where it is, and the stream that may still be writing it."""

    address: int
    stream: Optional[int]  # None: nobody is


def view_device_array(array: Any, shape: Tuple[int, ...], writable: bool = False) -> DeviceView:
    """Check that a GPU array can be used where it lies, and return its address.

    Args:
        array: has __cuda_array_interface__.
        shape: what it must hold, uint8, C-contiguous; leading dimensions of 1 are optional.
        writable: it will be written to.

    Raises:
        ValueError: another shape, type or layout, or read-only.
    """
    interface = array.__cuda_array_interface__
    address, read_only = interface["data"]
    found, typestr = tuple(interface["shape"]), interface["typestr"]
    if typestr not in ("|u1", "<u1", ">u1") or _squeeze(found) != _squeeze(shape):
        raise ValueError(
            f"expected a GPU array of uint8 {shape}, got {typestr} {found}; convert it on the GPU"
        )
    if not _is_contiguous(found, interface.get("strides")):
        raise ValueError(
            f"the GPU array {found} has strides {interface['strides']}; "
            "make it C-contiguous first, as with torch's .contiguous()"
        )
    if writable and read_only:
        raise ValueError("the GPU array given as out is read-only")
    # Version 2 has no "stream": assume the default stream, where libraries work unless told.
    return DeviceView(int(address), interface.get("stream", _LEGACY_STREAM))


def _squeeze(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _is_contiguous(shape: Tuple[int, ...], strides: Optional[Tuple[int, ...]]) -> bool:
    """Return whether byte strides of a uint8 array are those of C order."""
    if strides is None:
        return True
    step = 1
    for length, stride in zip(reversed(shape), reversed(strides)):
        if length > 1 and stride != step:
            return False
        step *= length
    return True


_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2  # cudaMemcpyKind
_NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for other libraries' default stream
_DISABLE_TIMING = 2  # cudaEventDisableTiming
_THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal: other threads may go on using CUDA


class Stream:
    """A CUDA stream; handle is its cudaStream_t. What is queued runs in order, later."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.handle = cuda.get_handle("cudaStreamCreateWithFlags", _NON_BLOCKING)
        self._event = cuda.get_handle("cudaEventCreateWithFlags", _DISABLE_TIMING)

    def copy_to_device(self, address: int, host: Any) -> None:
        """Queue a copy of a (pinned) numpy array to GPU memory."""
        self._copy(address, host.ctypes.data, host.nbytes, _HOST_TO_DEVICE)

    def copy_to_host(self, host: Any, address: int) -> None:
        """Queue a copy of GPU memory into a (pinned) numpy array."""
        self._copy(host.ctypes.data, address, host.nbytes, _DEVICE_TO_HOST)

    def wait_for(self, producer: Optional[int]) -> None:
        """Make what is queued from here on wait for what another stream has queued so far."""
        if producer is not None:
            self._cuda.call("cudaEventRecord", self._event, producer)
            self._cuda.call("cudaStreamWaitEvent", self.handle, self._event, 0)

    def synchronize(self) -> None:
        """Block, without the GIL, until everything queued is done."""
        self._cuda.call("cudaStreamSynchronize", self.handle)

    def capture(self, enqueue: Callable[[], None]) -> "Graph":
        """Record what enqueue() queues, without running it.

        Raises:
            CudaError: something in it cannot be recorded; the stream is usable as before.
        """
        self._cuda.call("cudaStreamBeginCapture", self.handle, _THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            self._abandon_capture()
            raise
        graph = self._cuda_graph()
        try:
            return Graph(self._cuda, graph)
        finally:
            self._cuda.try_call("cudaGraphDestroy", graph)

    def close(self) -> None:
        """Free the stream; nothing may be queued on it afterwards."""
        self._cuda.try_call("cudaEventDestroy", self._event)
        self._cuda.try_call("cudaStreamDestroy", self.handle)

    def _copy(self, target: int, source: int, nbytes: int, kind: int) -> None:
        self._cuda.call("cudaMemcpyAsync", target, source, nbytes, kind, self.handle)

    def _cuda_graph(self) -> int:
        graph = ctypes.c_void_p()
        self._cuda.call("cudaStreamEndCapture", self.handle, ctypes.byref(graph))
        if not graph.value:
            raise CudaError("cudaStreamEndCapture gave no graph: nothing was queued")
        return graph.value

    def _abandon_capture(self) -> None:
        with suppress(CudaError):  # an invalidated capture ends with an error and no graph
            self._cuda.try_call("cudaGraphDestroy", self._cuda_graph())


class Graph:
    """A recording of GPU work, ready to launch."""

    def __init__(self, cuda: Cuda, graph: int) -> None:
        self._cuda = cuda
        self.handle = cuda.get_handle("cudaGraphInstantiateWithFlags", graph, 0)

    def launch(self, stream: Stream) -> None:
        """Queue all of the recording on a stream."""
        self._cuda.call("cudaGraphLaunch", self.handle, stream.handle)

    def close(self) -> None:
        """Free the recording."""
        self._cuda.try_call("cudaGraphExecDestroy", self.handle)
