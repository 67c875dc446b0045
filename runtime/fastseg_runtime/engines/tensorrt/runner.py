"""Run an engine: one execution context, one stream, buffers made once, in memory the GPU reaches.

__cuda_array_interface__ (numba's document, versions 2 and 3) is how torch, cupy and pycuda show
their arrays, a dict with shape, typestr, data = (address, read-only), strides and stream.
"""

import ctypes
import logging
import threading
import weakref
from contextlib import suppress
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import numpy as np

from fastseg_runtime.engines.backend import CONFIDENCE, on_gpu
from fastseg_runtime.engines.tensorrt.builder import load_engine
from fastseg_runtime.engines.tensorrt.cuda import Cuda, CudaError, current_device
from fastseg_runtime.engines.tensorrt.errors import Messages, TensorRTError, explain, make_logger

_LEGACY_STREAM = 1  # cudaStreamLegacy: the default stream, where most libraries work
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2  # cudaMemcpyKind
_NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for other libraries' default stream
_DISABLE_TIMING = 2  # cudaEventDisableTiming
_THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal: other threads may go on using CUDA
# trt.nptype() would do, but that of TensorRT 8 needs np.bool, which numpy 1.24 removed.
_NUMPY_TYPES: Dict[str, Any] = {
    "UINT8": np.uint8,
    "INT8": np.int8,
    "INT32": np.int32,
    "HALF": np.float16,
    "FLOAT": np.float32,
}
log = logging.getLogger("fastseg_runtime")


class DeviceMemory:
    """Bytes in GPU memory; freed with the last reference to it."""

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        self.address = cuda.get_handle("cudaMalloc", nbytes)
        weakref.finalize(self, cuda.try_call, "cudaFree", self.address)


def pinned_array(cuda: Cuda, shape: Tuple[int, ...], dtype: Any) -> Any:
    """Return a numpy array in page-locked memory, which the GPU copies at full speed.

    The memory is freed with the last array that views it.
    """
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    address = cuda.get_handle("cudaHostAlloc", nbytes, 0)
    memory = (ctypes.c_uint8 * nbytes).from_address(address)
    weakref.finalize(memory, cuda.try_call, "cudaFreeHost", address)
    return np.frombuffer(memory, dtype).reshape(shape)


class DeviceView(NamedTuple):
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
    # numpy judges the strides; nothing is read.
    like = np.lib.stride_tricks.as_strided(np.empty(1, np.uint8), found, interface.get("strides"))
    if not like.flags.c_contiguous:
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


class Stream:
    """A CUDA stream; handle is its cudaStream_t. What is queued runs in order, later."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.handle = cuda.get_handle("cudaStreamCreateWithFlags", _NON_BLOCKING)
        self._event = cuda.get_handle("cudaEventCreateWithFlags", _DISABLE_TIMING)

    def copy_to_device(self, address: int, host: Any) -> None:
        """Queue a copy of a (pinned) numpy array to GPU memory."""
        place, nbytes = host.ctypes.data, host.nbytes
        self._cuda.call("cudaMemcpyAsync", address, place, nbytes, _HOST_TO_DEVICE, self.handle)

    def copy_to_host(self, host: Any, address: int) -> None:
        """Queue a copy of GPU memory into a (pinned) numpy array."""
        place, nbytes = host.ctypes.data, host.nbytes
        self._cuda.call("cudaMemcpyAsync", place, address, nbytes, _DEVICE_TO_HOST, self.handle)

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
            with suppress(CudaError):  # an invalidated capture ends with an error and no graph
                self._cuda.try_call("cudaGraphDestroy", self._cuda_graph())
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

    def _cuda_graph(self) -> int:
        graph = ctypes.c_void_p()
        self._cuda.call("cudaStreamEndCapture", self.handle, ctypes.byref(graph))
        if not graph.value:
            raise CudaError("cudaStreamEndCapture gave no graph: nothing was queued")
        return graph.value


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


class Tensor(NamedTuple):
    """An input or output of the engine, with its two buffers."""

    name: str
    host: Any  # pinned numpy array, of a fixed shape
    device: DeviceMemory


class TensorRTRunner:
    """An engine ready to run; safe from several threads, which take turns.

    Args:
        plan: the serialized engine, from our own builder or cache.

    Raises:
        TensorRTError: TensorRT refuses the engine.
        CudaError: no memory.
    """

    def __init__(self, trt: Any, cuda: Cuda, plan: bytes, device: int = 0) -> None:
        self._trt, self._cuda, self._device = trt, cuda, device
        self._lock = threading.Lock()
        self._messages = Messages()
        with current_device(cuda, device):
            # The engine needs its runtime, the context its engine: all are kept.
            self._runtime = trt.Runtime(make_logger(trt, self._messages))
            self._engine = load_engine(self._runtime, plan, self._messages)
            self._context = self._engine.create_execution_context()
            if self._context is None:
                raise explain("preparing the engine", self._messages)
            self.input, self.output, self.confidence = self._make_tensors()
            self._set_addresses(self.input.device.address, self.output.device.address)
            self._stream = Stream(cuda)
            self._graph = self._capture()

    def infer(self, image: Any, out: Any = None) -> Any:
        """Run one frame.

        Args:
            image: uint8 (1, H, W, 3): a numpy array, or a GPU array with
                __cuda_array_interface__, which is read where it lies.
            out: None, or a GPU array of the output's shape that the result is written into.

        Returns:
            out if given, else a numpy array that the next call overwrites; of an engine that
            gives a confidence, a pair: that, and the confidence as such an array.

        Raises:
            ValueError: an array of another shape or type.
            TensorRTError: the engine failed.
        """
        with self._lock, current_device(self._cuda, self._device):
            if out is None and not on_gpu(image):
                self._fill_input(image)
                if self._graph is not None:
                    self._graph.launch(self._stream)
                else:
                    self._enqueue_host_to_host()
            else:
                self._run_on_gpu(image, out)
            self._stream.synchronize()
            result = self.output.host if out is None else out
            return result if self.confidence is None else (result, self.confidence.host)

    def close(self) -> None:
        """Free the engine and its buffers; arrays that infer() returned stay valid."""
        with self._lock, current_device(self._cuda, self._device):
            if self._graph is not None:
                self._graph.close()
            self._stream.close()
            del self._context, self._engine, self._runtime, self._graph, self._stream
            del self.input, self.output, self.confidence

    def _make_tensors(self) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        tensors: Dict[str, Tensor] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            mode = self._engine.get_tensor_mode(name)
            shape = tuple(self._engine.get_tensor_shape(name))
            dtype = _NUMPY_TYPES[self._engine.get_tensor_dtype(name).name]
            host = pinned_array(self._cuda, shape, dtype)
            tensor = Tensor(name, host, DeviceMemory(self._cuda, host.nbytes))
            beside = CONFIDENCE if name == CONFIDENCE else "result"
            tensors["image" if mode == self._trt.TensorIOMode.INPUT else beside] = tensor
        return tensors["image"], tensors["result"], tensors.get(CONFIDENCE)

    def _fill_input(self, image: Any) -> None:
        if image.shape != self.input.host.shape or image.dtype != np.uint8:
            raise ValueError(
                f"expected uint8 of shape {self.input.host.shape}, got {image.dtype} {image.shape}"
            )
        np.copyto(self.input.host, image)

    def _capture(self) -> Optional[Graph]:
        """Record copy in, run, copy out; None where this TensorRT or CUDA cannot."""
        self._enqueue_host_to_host()  # TensorRT allocates at the first run, which no graph may
        self._stream.synchronize()
        try:
            return self._stream.capture(self._enqueue_host_to_host)
        except (CudaError, TensorRTError) as error:
            log.info("running without a CUDA graph: %s", error)
            return None

    def _enqueue_host_to_host(self) -> None:
        self._stream.copy_to_device(self.input.device.address, self.input.host)
        self._execute()
        self._stream.copy_to_host(self.output.host, self.output.device.address)
        self._copy_confidence()

    def _copy_confidence(self) -> None:
        if self.confidence is not None:
            self._stream.copy_to_host(self.confidence.host, self.confidence.device.address)

    def _run_on_gpu(self, image: Any, out: Any) -> None:
        source, target = self.input.device.address, self.output.device.address
        if on_gpu(image):
            source = self._address_of(image, self.input)
        else:
            self._fill_input(image)
            self._stream.copy_to_device(source, self.input.host)
        if out is not None:
            target = self._address_of(out, self.output, writable=True)
        self._set_addresses(source, target)
        try:
            self._execute()
        finally:
            self._set_addresses(self.input.device.address, self.output.device.address)
        if out is None:
            self._stream.copy_to_host(self.output.host, target)
        self._copy_confidence()

    def _address_of(self, array: Any, like: Tensor, writable: bool = False) -> int:
        view = view_device_array(array, like.host.shape, writable)
        self._stream.wait_for(view.stream)
        return view.address

    def _set_addresses(self, source: int, target: int) -> None:
        addresses = {self.input.name: source, self.output.name: target}
        if self.confidence is not None:
            addresses[self.confidence.name] = self.confidence.device.address
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise explain(f"placing tensor {name}", self._messages)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise explain("running the engine", self._messages)
