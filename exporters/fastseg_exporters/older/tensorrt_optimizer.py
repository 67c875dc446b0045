"""TensorRTOptimizer: an ONNX file to an engine file, on the machine that will run it."""

import json
from pathlib import Path
from typing import Any

import onnx
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.bundle.named_files import check_onnx, files_beside
from onnx import TensorProto


class TensorRTOptimizer:
    """Builds engines with the runtime's own builder.

    An engine fits only this GPU and this TensorRT, and no session of fastseg_runtime loads a
    file of somebody's: devices build theirs from the bundle. This is for engines that other
    programs load.

    Args:
        onnx_path: the model; its weights may lie beside it, as torch writes large ones.

    Raises:
        FileNotFoundError: no such file.
    """

    def __init__(self, onnx_path: str | Path) -> None:
        self.onnx_path = Path(onnx_path)
        if not self.onnx_path.is_file():
            raise FileNotFoundError(
                f"no ONNX file {self.onnx_path}; name the model to build an engine of"
            )

    def build_engine(self, path: str | Path, precision: str = "fp16") -> dict[str, Any]:
        """Build, write the engine to path, and its build record to path.json.

        Args:
            path: the engine's file.
            precision: "fp32", "fp16" or "int8"; int8 needs Q/DQ nodes in the graph.

        Returns:
            The build record: versions, GPU, flags, hashes, seconds, precision of the layers.

        Raises:
            BundleError: the model names files in other folders.
            ImportError: no TensorRT here.
            TensorRTError: the build failed; the message says why and what to do.
            CudaError: no GPU, no driver or no memory.
        """
        # Here, not above: the class itself needs no TensorRT, and JetPack has no onnxsim.
        from fastseg_runtime.engines.tensorrt import backend_tensorrt

        model = _whole(self.onnx_path)
        if backend_tensorrt.is_strongly_typed() and precision == "fp16":
            model = _in_half_precision(model)
        built = backend_tensorrt.build_here(model, precision)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, built.plan)
        write_file(Path(f"{path}.json"), (json.dumps(built.record, indent=1) + "\n").encode())
        return built.record


def _whole(path: Path) -> bytes:
    """Return a model as one file, with the weights that it names in its own folder."""
    content = path.read_bytes()
    if not check_onnx(content, str(path), files_beside(path)):
        return content
    whole: bytes = onnx.load(path).SerializeToString()
    return whole


def _in_half_precision(model: bytes) -> bytes:
    """Strongly typed releases take the precision from the graph: convert one in float32."""
    graph = onnx.load_from_string(model)
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.graph.initializer):
        return model
    from fastseg_exporters.tensorrt.to_tensorrt import to_half  # needs what exports to ONNX

    converted: bytes = to_half(graph).SerializeToString()
    return converted
