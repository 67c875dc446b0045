"""Get the engine of an artifact, from the cache or by building it, and run it.

One execution context, one stream, buffers made once.
"""

import hashlib
import logging
import threading
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import numpy as np

from fastseg_runtime.engines.backend import BuildRefusedError, on_gpu
from fastseg_runtime.engines.tensorrt.builder import (
    BuildRequest,
    Progress,
    build_engine,
    load_engine,
)
from fastseg_runtime.engines.tensorrt.cache import EngineCache, EngineKey, LocalEngine, engine_key
from fastseg_runtime.engines.tensorrt.cuda import Cuda, CudaError, current_device
from fastseg_runtime.engines.tensorrt.cuda_memory import (
    DeviceArray,
    Graph,
    Stream,
    pinned_array,
    view_device_array,
)
from fastseg_runtime.engines.tensorrt.errors import Messages, TensorRTError, explain, make_logger
from fastseg_runtime.engines.tensorrt.platform import Platform


@dataclass(frozen=True)
class EngineSource:
    """What engines are built from and where: the same for all of a backend's calls."""

    trt: Any  # the tensorrt module
    cuda: Cuda
    platform: Platform
    cache: EngineCache
    device: int = 0

    def get(
        self,
        onnx: bytes,
        precision: str,
        build: str = "auto",
        progress: Optional[Progress] = None,
    ) -> LocalEngine:
        """Return the engine of an ONNX model.

        Args:
            onnx: the model.
            precision: "fp32", "fp16" or "int8".
            build: "auto": build it if need be, which takes minutes; "never": refuse instead.
            progress: called about twice a second during a build.

        Raises:
            BuildRefusedError: build is "never" and there is none.
            TensorRTError: the build failed.
        """
        key = engine_key(hashlib.sha256(onnx).hexdigest(), precision, self.platform)
        cached = self.cache.load(key)
        if cached is not None:
            return cached
        if build == "never":
            raise BuildRefusedError(
                f"no TensorRT engine for this artifact ({precision}, TensorRT {key.tensorrt}, "
                f"{key.gpu}) in {self.cache.folder}, and build is 'never'; "
                "build it ahead with fastseg-run --prepare BUNDLE"
            )
        with self.cache.building(key):
            cached = self.cache.load(key)  # somebody else may have built it meanwhile
            return cached or self._build(key, onnx, progress)

    def _build(self, key: EngineKey, onnx: bytes, progress: Optional[Progress]) -> LocalEngine:
        timing_cache = self.cache.load_timing_cache(key)
        request = BuildRequest(onnx, key.precision, timing_cache, self.device)
        built = build_engine(self.trt, self.cuda, request, progress)
        self.cache.store_timing_cache(key, built.timing_cache)
        self.cache.store(key, built.plan, built.record)
        return LocalEngine(key, built.plan, built.record)


# trt.nptype() would do, but that of TensorRT 8 needs np.bool, which numpy 1.24 removed.
_NUMPY_TYPES: Dict[str, Any] = {
    "UINT8": np.uint8,
    "INT8": np.int8,
    "INT32": np.int32,
    "HALF": np.float16,
    "FLOAT": np.float32,
}
log = logging.getLogger("fastseg_runtime")


@dataclass(frozen=True)
class Tensor:
    """An input or output of the engine, with its two buffers."""

    name: str
    host: Any  # pinned numpy array
    device: DeviceArray

    @property
    def shape(self) -> Tuple[int, ...]:
        """Return the shape, all of it fixed."""
        return self.device.shape


class TensorRTRunner:
    """An engine ready to run; safe from several threads, which take turns.

    Args:
        trt: the tensorrt module.
        cuda: the CUDA runtime.
        plan: the serialized engine, from our own builder or cache.
        device: index of the GPU.

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
            self.input, self.output = self._make_tensors()
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
            out if given, else a numpy array that the next call overwrites.

        Raises:
            ValueError: an array of another shape or type.
            TensorRTError: the engine failed.
        """
        with self._lock, current_device(self._cuda, self._device):
            if out is None and not on_gpu(image):
                self._check(image)
                np.copyto(self.input.host, image)
                self._run_host_to_host()
            else:
                self._run_on_gpu(image, out)
            self._stream.synchronize()
            return self.output.host if out is None else out

    def close(self) -> None:
        """Free the engine and its buffers; arrays that infer() returned stay valid."""
        with self._lock, current_device(self._cuda, self._device):
            if self._graph is not None:
                self._graph.close()
            self._stream.close()
            del self._context, self._engine, self._runtime, self._graph, self._stream
            del self.input, self.output

    def _make_tensors(self) -> Tuple[Tensor, Tensor]:
        tensors: Dict[bool, Tensor] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            mode = self._engine.get_tensor_mode(name)
            tensors[mode == self._trt.TensorIOMode.INPUT] = self._make_tensor(name)
        return tensors[True], tensors[False]

    def _make_tensor(self, name: str) -> Tensor:
        shape = tuple(self._engine.get_tensor_shape(name))
        dtype = _NUMPY_TYPES[self._engine.get_tensor_dtype(name).name]
        host = pinned_array(self._cuda, shape, dtype)
        return Tensor(name, host, DeviceArray(self._cuda, shape, dtype))

    def _check(self, image: Any) -> None:
        if image.shape != self.input.shape or image.dtype != np.uint8:
            raise ValueError(
                f"expected uint8 of shape {self.input.shape}, got {image.dtype} {image.shape}"
            )

    def _capture(self) -> Optional[Graph]:
        """Record copy in, run, copy out; None where this TensorRT or CUDA cannot."""
        self._enqueue_host_to_host()  # TensorRT allocates at the first run, which no graph may
        self._stream.synchronize()
        try:
            return self._stream.capture(self._enqueue_host_to_host)
        except (CudaError, TensorRTError) as error:
            log.info("running without a CUDA graph: %s", error)
            return None

    def _run_host_to_host(self) -> None:
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._enqueue_host_to_host()

    def _enqueue_host_to_host(self) -> None:
        self._stream.copy_to_device(self.input.device.address, self.input.host)
        self._execute()
        self._stream.copy_to_host(self.output.host, self.output.device.address)

    def _run_on_gpu(self, image: Any, out: Any) -> None:
        source, target = self._source_address(image), self._target_address(out)
        self._set_addresses(source, target)
        try:
            self._execute()
        finally:
            self._set_addresses(self.input.device.address, self.output.device.address)
        if out is None:
            self._stream.copy_to_host(self.output.host, target)

    def _source_address(self, image: Any) -> int:
        if not on_gpu(image):
            self._check(image)
            np.copyto(self.input.host, image)
            self._stream.copy_to_device(self.input.device.address, self.input.host)
            return self.input.device.address
        view = view_device_array(image, self.input.shape)
        self._stream.wait_for(view.stream)
        return view.address

    def _target_address(self, out: Any) -> int:
        if out is None:
            return self.output.device.address
        view = view_device_array(out, self.output.shape, writable=True)
        self._stream.wait_for(view.stream)
        return view.address

    def _set_addresses(self, source: int, target: int) -> None:
        for name, address in ((self.input.name, source), (self.output.name, target)):
            if not self._context.set_tensor_address(name, address):
                raise explain(f"placing tensor {name}", self._messages)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise explain("running the engine", self._messages)
