"""Memory that a GPU reaches: pinned host arrays, device arrays, and arrays of other libraries.

__cuda_array_interface__ (numba's document, versions 2 and 3) is how torch, cupy and pycuda show
their GPU arrays: a dict with shape, typestr, data = (address, read-only), strides and stream.
"""

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import numpy as np

from fastseg_runtime.engines.tensorrt.cuda import Cuda

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


def on_gpu(array: Any) -> bool:
    """Return whether an array says that it lives in GPU memory."""
    # A torch tensor in CPU memory raises AttributeError for it, so hasattr tells them apart.
    return hasattr(array, "__cuda_array_interface__")


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
