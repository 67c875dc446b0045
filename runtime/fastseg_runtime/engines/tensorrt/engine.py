"""Get the engine of an artifact: from the cache, else by building it."""

import hashlib
from dataclasses import dataclass
from typing import Any, Dict, Optional

from fastseg_runtime.engines.backend import BuildRefusedError
from fastseg_runtime.engines.tensorrt.builder import BuildRequest, build_engine
from fastseg_runtime.engines.tensorrt.cache import CachedEngine, EngineCache, EngineKey, engine_key
from fastseg_runtime.engines.tensorrt.cuda import Cuda
from fastseg_runtime.engines.tensorrt.platform import Platform
from fastseg_runtime.engines.tensorrt.progress import Progress


@dataclass(frozen=True)
class Engine:
    """A serialized engine that came out of our own builder on this machine."""

    key: EngineKey
    plan: bytes
    record: Dict[str, Any]
    trusted: bool  # passed the self-test in an earlier session


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
    ) -> Engine:
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
            return _from_cache(key, cached)
        if build == "never":
            raise BuildRefusedError(
                f"no TensorRT engine for this artifact ({precision}, TensorRT {key.tensorrt}, "
                f"{key.gpu}) in {self.cache.folder}, and build is 'never'; "
                "build it ahead with fastseg-run --prepare BUNDLE"
            )
        with self.cache.building(key):
            cached = self.cache.load(key)  # somebody else may have built it meanwhile
            return _from_cache(key, cached) if cached else self._build(key, onnx, progress)

    def _build(self, key: EngineKey, onnx: bytes, progress: Optional[Progress]) -> Engine:
        timing_cache = self.cache.load_timing_cache(key)
        request = BuildRequest(onnx, key.precision, timing_cache, self.device)
        built = build_engine(self.trt, self.cuda, request, progress)
        self.cache.store_timing_cache(key, built.timing_cache)
        self.cache.store(key, built.plan, built.record)
        return Engine(key, built.plan, built.record, trusted=False)


def _from_cache(key: EngineKey, cached: CachedEngine) -> Engine:
    return Engine(key, cached.plan, cached.record, cached.trusted)
