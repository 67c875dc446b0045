"""fastseg_exporters: networks in the formats of their devices, each judged before it ships."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastseg_exporters.older.optimizer import ModelOptimizer
    from fastseg_exporters.older.tensorrt_optimizer import TensorRTOptimizer

__all__ = ["ModelOptimizer", "TensorRTOptimizer"]
# Loaded when first used: importing the package loads no converter.
_HOMES = {"ModelOptimizer": "older.optimizer", "TensorRTOptimizer": "older.tensorrt_optimizer"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastseg_exporters' has no attribute {name!r}")
    try:
        return getattr(import_module(f"fastseg_exporters.{_HOMES[name]}"), name)
    except ImportError as error:
        from fastseg_exporters.convert.exporter import EXPORTERS

        raise ImportError(f"{name} does not load: {error}; {EXPORTERS['onnx'].needs}") from error
