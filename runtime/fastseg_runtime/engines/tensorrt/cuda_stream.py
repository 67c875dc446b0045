"""A queue of work on the GPU, and a recording of such work that is launched in one call."""

import ctypes
from contextlib import suppress
from typing import Any, Callable, Optional

from fastseg_runtime.engines.tensorrt.cuda import Cuda, CudaError

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
