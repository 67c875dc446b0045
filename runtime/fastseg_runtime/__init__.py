"""fastseg_runtime: run fastseg bundles on a device, with numpy and one engine."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastseg_runtime.bundle.reader import Bundle, BundleError, open_bundle
    from fastseg_runtime.engines.backend import BuildRefusedError
    from fastseg_runtime.engines.opening import NoBackendError
    from fastseg_runtime.frames.session import RealtimeSegmentation
    from fastseg_runtime.frames.stream import VideoError

__version__ = "0.1.0"

__all__ = [
    "BuildRefusedError",
    "Bundle",
    "BundleError",
    "NoBackendError",
    "RealtimeSegmentation",
    "VideoError",
    "open_bundle",
]
# Loaded when first used: a command that only prints its help does not wait for numpy.
_HOMES = {
    "BuildRefusedError": "engines.backend",
    "Bundle": "bundle.reader",
    "BundleError": "bundle.reader",
    "NoBackendError": "engines.opening",
    "RealtimeSegmentation": "frames.session",
    "VideoError": "frames.stream",
    "open_bundle": "bundle.reader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastseg_runtime' has no attribute {name!r}")
    return getattr(import_module(f"fastseg_runtime.{_HOMES[name]}"), name)
