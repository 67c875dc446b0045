"""TensorRT 8.5 to 11 on NVIDIA GPUs: builds the engine on this machine, keeps it, runs it.

The engine's input is read where it lies if it is already on the GPU: infer() takes, besides
numpy arrays, anything with __cuda_array_interface__ (torch, cupy, pycuda), and with `out` such
an array, the class map stays there too.
"""

import logging
import re
from pathlib import PurePosixPath
from typing import Any, Optional

from fastseg_runtime.arrays.terminal import StatusLine
from fastseg_runtime.engines.backend import ModelSource
from fastseg_runtime.engines.tensorrt.builder import BuiltEngine
from fastseg_runtime.engines.tensorrt.cache import EngineCache, EngineSource, LocalEngine
from fastseg_runtime.engines.tensorrt.choice import graphs_of
from fastseg_runtime.engines.tensorrt.cuda import current_device, open_cuda, refuse_foreign_context
from fastseg_runtime.engines.tensorrt.platform import describe_platform, probe_release
from fastseg_runtime.engines.tensorrt.runner import TensorRTRunner

try:
    import tensorrt
except (ImportError, OSError) as error:  # absent, or a shared library of it is
    raise ImportError(
        f"backend 'tensorrt' needs TensorRT's Python module ({error}). On a Jetson it comes with "
        "JetPack: sudo apt install python3-libnvinfer, and make virtual environments with "
        "--system-site-packages; on a PC: pip install tensorrt"
    ) from error

log = logging.getLogger("fastseg_runtime")
PLAIN_LINE_S = 30.0  # between lines where the output is no terminal


class TensorRTBackend:
    """One engine with one execution context; threads take turns.

    A fresh engine counts as untested until note_selftest(True) is called; one that failed is
    forgotten, and built again next time.
    """

    def __init__(self) -> None:
        self._cache = EngineCache()
        self._engine: Optional[LocalEngine] = None
        self._runner: Optional[TensorRTRunner] = None

    def open(self, source: ModelSource) -> None:
        """Load the artifact's engine, building it first if there is none; that takes minutes.

        Raises:
            BuildRefusedError: there is none, and source.build is "never".
            TensorRTError: it cannot be built or loaded; the message says why and what to do.
            CudaError: no GPU, no driver, no memory, or a foreign CUDA context.
        """
        device = device_index(source.device)
        cuda = open_cuda()
        refuse_foreign_context(device)
        with current_device(cuda, device):
            platform = describe_platform(tensorrt, cuda, device)
            if not platform.release.checked:
                log.warning("TensorRT %s is untried with fastseg", platform.release.version)
            engines = EngineSource(tensorrt, cuda, platform, self._cache, device)
            names = graphs_of(source.artifact, platform.release.strongly_typed)
            graphs = {PurePosixPath(name).name: source.read(name) for name in names}
            with StatusLine(PLAIN_LINE_S) as progress:
                self._engine = engines.get(
                    graphs, source.artifact.precision, source.build, progress.show
                )
            self._runner = TensorRTRunner(tensorrt, cuda, self._engine.plan, device)

    def infer(self, image_1HW3: Any, out: Any = None) -> Any:
        """Run the network; see BuiltBackend.infer."""
        if self._runner is None:
            raise RuntimeError("the session is closed; open the model again")
        return self._runner.infer(image_1HW3, out)

    @property
    def trusted(self) -> bool:
        """Return whether this very engine passed the self-test in an earlier session."""
        return self._engine is not None and self._engine.trusted

    def note_selftest(self, passed: bool) -> None:
        """Keep the engine as trusted, or forget it."""
        if self._engine is not None and passed:
            self._cache.trust(self._engine.key)
        elif self._engine is not None:
            self._cache.remove(self._engine.key.digest)

    def close(self) -> None:
        """Free the engine and its buffers."""
        runner, self._runner, self._engine = self._runner, None, None
        if runner is not None:
            runner.close()


def build_here(onnx: bytes, precision: str) -> BuiltEngine:
    """Build an engine on the first GPU of this machine, showing progress on stderr.

    The engine is kept nowhere; what the builder measured is, since it saves the next build minutes.

    Args:
        onnx: the model.
        precision: "fp32", "fp16" or "int8".

    Raises:
        TensorRTError: it failed; the message says why and what to do.
        CudaError: no GPU, no driver or no memory.
    """
    cuda = open_cuda()
    platform = describe_platform(tensorrt, cuda, 0)
    engines = EngineSource(tensorrt, cuda, platform, EngineCache(), 0)
    with StatusLine(PLAIN_LINE_S) as progress:
        return engines.build(onnx, precision, progress.show)


def is_strongly_typed() -> bool:
    """Return whether the TensorRT here takes precision from the graph alone."""
    return probe_release(tensorrt).strongly_typed


def device_index(device: str) -> int:
    """Return the index of the GPU in "auto", "cuda" or "cuda:1".

    Raises:
        ValueError: another name.
    """
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", device)
    if match is None:
        raise ValueError(f"tensorrt: no device {device!r}; choose auto, cuda or cuda:N")
    return int(match.group(1) or 0)
