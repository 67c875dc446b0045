"""A libcudart over host memory, with streams that run late: what the runtime's cuda.py calls.

Work queued on a stream is done when the stream is synchronized, not before: code that forgets
to synchronize reads old bytes, as on a GPU. Functions are C callables, so that arguments pass
through ctypes as they would to the library. Addresses are checked against what was allocated.
"""

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int, c_void_p
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastseg_runtime.engines.tensorrt.cuda import SIGNATURES, Cuda
from fastseg_runtime.engines.tensorrt.runner import DeviceMemory

INVALID_VALUE, OUT_OF_MEMORY, INSUFFICIENT_DRIVER, STREAM_CAPTURE_UNSUPPORTED, UNKNOWN = (
    1,
    2,
    35,
    900,
    999,
)
ERRORS = {
    INVALID_VALUE: ("cudaErrorInvalidValue", "invalid argument"),
    OUT_OF_MEMORY: ("cudaErrorMemoryAllocation", "out of memory"),
    INSUFFICIENT_DRIVER: ("cudaErrorInsufficientDriver", "driver version is insufficient"),
    STREAM_CAPTURE_UNSUPPORTED: ("cudaErrorStreamCaptureUnsupported", "operation not permitted"),
}
LEGACY_STREAM = 1


class CudaFault(Exception):
    """Makes the function at hand return an error code."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class FakeStream:
    """Queued work, and the recording under way, if any."""

    queue: list[Callable[[], None]] = field(default_factory=list)
    recording: list[Callable[[], None]] | None = None
    spoiled: bool = False


class FakeCudart:
    """One process's view of one GPU; an attribute for every function the runtime binds."""

    def __init__(
        self,
        name: str = "Orin",
        sm: tuple[int, int] = (8, 7),
        integrated: bool = True,
        free_bytes: int = 4 << 30,
        version: int = 12060,
        devices: int = 1,
    ) -> None:
        self.name, self.sm, self.integrated, self.devices = name, sm, integrated, devices
        self.free_bytes, self.version = free_bytes, version
        self.device = 0  # of the calling thread; the double does not tell threads apart
        self.memory: dict[int, Any] = {}  # address -> ctypes array, device and pinned alike
        self.freed: list[Any] = []  # kept, so that a use after free is an error and no crash
        self.pinned: set[int] = set()
        self.streams: dict[int, FakeStream] = {LEGACY_STREAM: FakeStream()}
        self.events: dict[int, FakeStream] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.calls: list[str] = []
        self.fail_next: dict[str, int] = {}  # function -> error code of its next call
        self.crashes: list[BaseException] = []  # exceptions inside callbacks, which C swallows
        self._next_handle = 0x1000
        for function, argtypes in SIGNATURES.items():
            if not function.startswith("cudaGetErr"):
                setattr(self, function, CFUNCTYPE(c_int, *argtypes)(self._guard(function)))
        self.cudaGetErrorName = lambda code: ERRORS.get(code, ("cudaErrorUnknown",))[0].encode()
        self.cudaGetErrorString = lambda code: ERRORS.get(code, ("", "unknown error"))[1].encode()

    def _guard(self, function: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append(function)
            try:
                if code := self.fail_next.pop(function, 0):
                    return code
                getattr(self, "_" + function)(*arguments)
            except CudaFault as fault:
                return fault.code
            except BaseException as error:
                self.crashes.append(error)
                return UNKNOWN
            return 0

        return call

    # What the TensorRT double needs of the GPU.

    def enqueue(self, handle: int, work: Callable[[], None]) -> None:
        """Queue work on a stream, or record it if the stream is being captured."""
        stream = self._stream(handle)
        (stream.queue if stream.recording is None else stream.recording).append(work)

    def spoil_capture(self, handle: int) -> None:
        """Do what a call that cannot be captured does: invalidate the capture under way."""
        self._stream(handle).spoiled = True

    def capturing(self, handle: int) -> bool:
        return self._stream(handle).recording is not None

    def view(self, address: int, nbytes: int) -> Any:
        """Return allocated memory as a ctypes array.

        Raises:
            CudaFault: no allocation holds all of it.
        """
        for start, memory in self.memory.items():
            if start <= address and address + nbytes <= start + len(memory):
                return (ctypes.c_uint8 * nbytes).from_buffer(memory, address - start)
        raise CudaFault(INVALID_VALUE)

    def handle(self) -> int:
        self._next_handle += 0x10
        return self._next_handle

    def _stream(self, handle: int | None) -> FakeStream:
        if handle not in self.streams:
            raise CudaFault(INVALID_VALUE)
        return self.streams[handle]

    # The functions; an argument that is filled in arrives as a pointer.

    def _cudaRuntimeGetVersion(self, out: Any) -> None:
        out[0] = self.version

    _cudaDriverGetVersion = _cudaRuntimeGetVersion

    def _cudaGetDeviceCount(self, out: Any) -> None:
        out[0] = self.devices

    def _cudaGetDevice(self, out: Any) -> None:
        out[0] = self.device

    def _cudaSetDevice(self, index: int) -> None:
        if index >= self.devices:
            raise CudaFault(INVALID_VALUE)
        self.device = index

    def _cudaDeviceGetAttribute(self, out: Any, attribute: int, index: int) -> None:
        out[0] = {16: 8, 18: int(self.integrated), 75: self.sm[0], 76: self.sm[1]}[attribute]

    def _cudaGetDeviceProperties(self, out: int, index: int) -> None:
        ctypes.memmove(out, self.name.encode() + b"\0", len(self.name) + 1)

    def _cudaMemGetInfo(self, free: Any, total: Any) -> None:
        free[0], total[0] = self.free_bytes, 8 << 30

    def _cudaMalloc(self, out: Any, nbytes: int) -> None:
        if nbytes > self.free_bytes:
            raise CudaFault(OUT_OF_MEMORY)
        memory = (ctypes.c_uint8 * nbytes)()
        self.memory[ctypes.addressof(memory)] = memory
        out[0] = c_void_p(ctypes.addressof(memory))

    def _cudaHostAlloc(self, out: Any, nbytes: int, flags: int) -> None:
        self._cudaMalloc(out, nbytes)
        self.pinned.add(out[0])

    def _cudaFree(self, address: int) -> None:
        if address not in self.memory:
            raise CudaFault(INVALID_VALUE)
        self.freed.append(self.memory.pop(address))
        self.pinned.discard(address)

    _cudaFreeHost = _cudaFree

    def _cudaMemcpyAsync(
        self, target: int, source: int, nbytes: int, kind: int, handle: int
    ) -> None:
        to_view, from_view = self.view(target, nbytes), self.view(source, nbytes)
        pinned = (self._is_pinned(source), self._is_pinned(target))
        if pinned != {1: (True, False), 2: (False, True), 3: (False, False)}[kind]:
            raise CudaFault(INVALID_VALUE)
        self.enqueue(handle, lambda: ctypes.memmove(to_view, from_view, nbytes))

    def _is_pinned(self, address: int) -> bool:
        return any(start <= address < start + len(self.memory[start]) for start in self.pinned)

    def _cudaStreamCreateWithFlags(self, out: Any, flags: int) -> None:
        handle = self.handle()
        self.streams[handle] = FakeStream()
        out[0] = c_void_p(handle)

    def _cudaStreamDestroy(self, handle: int) -> None:
        self._stream(handle)
        del self.streams[handle]

    def _cudaStreamSynchronize(self, handle: int) -> None:
        stream = self._stream(handle)
        if stream.recording is not None:
            stream.spoiled = True
            raise CudaFault(STREAM_CAPTURE_UNSUPPORTED)
        while stream.queue:
            stream.queue.pop(0)()

    def _cudaEventCreateWithFlags(self, out: Any, flags: int) -> None:
        handle = self.handle()
        self.events[handle] = FakeStream()
        out[0] = c_void_p(handle)

    def _cudaEventRecord(self, event: int, handle: int) -> None:
        self.events[event] = self._stream(handle)

    def _cudaEventDestroy(self, event: int) -> None:
        del self.events[event]

    def _cudaStreamWaitEvent(self, handle: int, event: int, flags: int) -> None:
        producer = self.events[event]
        pending = list(producer.queue)
        self.enqueue(handle, lambda: self._finish(producer, pending))

    def _finish(self, producer: FakeStream, pending: list[Callable[[], None]]) -> None:
        while producer.queue and any(producer.queue[0] is work for work in pending):
            producer.queue.pop(0)()

    def _cudaStreamBeginCapture(self, handle: int, mode: int) -> None:
        stream = self._stream(handle)
        stream.recording, stream.spoiled = [], False

    def _cudaStreamEndCapture(self, handle: int, out: Any) -> None:
        stream = self._stream(handle)
        recording, stream.recording = stream.recording, None
        if stream.spoiled or recording is None:
            raise CudaFault(STREAM_CAPTURE_UNSUPPORTED)
        graph = self.handle()
        self.graphs[graph] = recording
        out[0] = c_void_p(graph)

    def _cudaGraphInstantiateWithFlags(self, out: Any, graph: int, flags: int) -> None:
        executable = self.handle()
        self.graphs[executable] = list(self.graphs[graph])
        out[0] = c_void_p(executable)

    def _cudaGraphLaunch(self, executable: int, handle: int) -> None:
        for work in self.graphs[executable]:
            self.enqueue(handle, work)

    def _cudaGraphDestroy(self, graph: int) -> None:
        del self.graphs[graph]

    _cudaGraphExecDestroy = _cudaGraphDestroy

    def _cudaGetLastError(self) -> None:
        pass


class GpuArray(DeviceMemory):
    """A C-contiguous array in memory that the runtime asks CUDA for, shown as torch and cupy do.

    It is synchronized, so that nobody has to wait for a stream.
    """

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.nbytes = int(np.prod(shape)) * self.dtype.itemsize
        super().__init__(cuda, self.nbytes)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
            "stream": None,
        }
