"""An array in the memory that the runtime asks CUDA for, shown as torch, cupy and pycuda do."""

from typing import Any

import numpy as np
from fastseg_runtime.engines.tensorrt.cuda import Cuda
from fastseg_runtime.engines.tensorrt.runner import DeviceMemory


class GpuArray(DeviceMemory):
    """A C-contiguous array; synchronized, so that nobody has to wait for a stream."""

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
