"""Which device and context this thread works in, without disturbing others in the process."""

import ctypes
import sys
from contextlib import contextmanager
from typing import Any, Iterator, Optional

from fastseg_runtime.cuda import Cuda, CudaError


@contextmanager
def current_device(cuda: Cuda, index: int) -> Iterator[None]:
    """Make a device the current one of this thread, and the former one afterwards.

    CUDA keeps the current device per thread, and torch or cupy may have chosen another.
    """
    former = cuda.get_int("cudaGetDevice")
    if former != index:
        cuda.call("cudaSetDevice", index)
    try:
        yield
    finally:
        if former != index:
            cuda.call("cudaSetDevice", former)


def refuse_foreign_context(index: int, driver: Optional[Any] = None) -> None:
    """Raise if this thread is in a context of its own instead of the device's primary one.

    pycuda.autoinit makes such a context: memory and streams of the two cannot be mixed, and
    calls fail in ways that nobody understands.

    Args:
        index: the device.
        driver: the CUDA driver library; None: the one here.

    Raises:
        CudaError: it is.
    """
    driver = driver or _open_driver()
    current, primary = ctypes.c_void_p(), ctypes.c_void_p()
    if driver is None or driver.cuCtxGetCurrent(ctypes.byref(current)) or not current.value:
        return  # no context at all: the first CUDA call makes the primary one current
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(primary), index):
        return
    driver.cuDevicePrimaryCtxRelease(index)
    if current.value != primary.value:
        raise CudaError(
            "this thread is in a CUDA context of its own, as pycuda.autoinit makes one; "
            "import pycuda.autoprimaryctx instead"
        )


def _open_driver() -> Optional[Any]:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
