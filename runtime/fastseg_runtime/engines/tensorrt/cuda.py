"""CUDA for a TensorRT session, by ctypes on libcudart: no wheel, no compiler, any JetPack.

The CUDA runtime library works in the device's primary context, as torch, cupy and
pycuda.autoprimaryctx do: pointers and streams of one are good for all of them in a process.
Signatures are those of the CUDA Runtime API reference; every function used here has the same
binary interface in CUDA 11, 12 and 13 (so graphs are instantiated "WithFlags": plain
cudaGraphInstantiate changed its arguments in CUDA 12).
"""

import ctypes
import glob
import os
import re
import sys
from contextlib import contextmanager, suppress
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

_OUT_POINTER = POINTER(c_void_p)
_OUT_INT = POINTER(c_int)
_OUT_SIZE = POINTER(c_size_t)
SIGNATURES: Dict[str, Tuple[Any, ...]] = {
    "cudaRuntimeGetVersion": (_OUT_INT,),
    "cudaDriverGetVersion": (_OUT_INT,),
    "cudaGetDeviceCount": (_OUT_INT,),
    "cudaGetDevice": (_OUT_INT,),
    "cudaSetDevice": (c_int,),
    "cudaDeviceGetAttribute": (_OUT_INT, c_int, c_int),
    "cudaGetDeviceProperties": (c_void_p, c_int),
    "cudaMemGetInfo": (_OUT_SIZE, _OUT_SIZE),
    "cudaMalloc": (_OUT_POINTER, c_size_t),
    "cudaFree": (c_void_p,),
    "cudaHostAlloc": (_OUT_POINTER, c_size_t, c_uint),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreateWithFlags": (_OUT_POINTER, c_uint),
    "cudaStreamDestroy": (c_void_p,),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamWaitEvent": (c_void_p, c_void_p, c_uint),
    "cudaEventCreateWithFlags": (_OUT_POINTER, c_uint),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventDestroy": (c_void_p,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, _OUT_POINTER),
    "cudaGraphInstantiateWithFlags": (_OUT_POINTER, c_void_p, c_ulonglong),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphDestroy": (c_void_p,),
    "cudaGraphExecDestroy": (c_void_p,),
    "cudaGetLastError": (),
    "cudaGetErrorName": (c_int,),
    "cudaGetErrorString": (c_int,),
}
# cudaDeviceAttr, driver_types.h
_MULTIPROCESSORS, _INTEGRATED, _SM_MAJOR, _SM_MINOR = 16, 18, 75, 76
# Larger than cudaDeviceProp of any release; its first field, char name[256], never moved.
_PROPERTIES_BYTES = 16384
_NAME_BYTES = 256

# cudaError_t -> what a user can do about it.
FIXES = {
    2: "the GPU is out of memory: close other programs, or use a smaller --size",
    35: "there is no NVIDIA driver here, or one older than this libcudart: install or update it",
    100: "the driver sees no GPU: in a container, start it with --runtime nvidia (or --gpus all)",
    400: "an array or stream of another CUDA context; with pycuda, import pycuda.autoprimaryctx "
    "and not pycuda.autoinit",
    999: "often a driver that was updated without a reboot: reboot",
}


class CudaError(RuntimeError):
    """A CUDA call failed, or CUDA cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Gpu:
    """What identifies a GPU: an engine built on one fits only its like."""

    name: str
    sm: str  # compute capability, "8.7" on Orin
    multiprocessors: int
    integrated: bool  # shares its memory with the CPU, as on every Jetson


class Cuda:
    """The functions of one CUDA runtime library, their errors raised as CudaError."""

    def __init__(self, library: Any) -> None:
        self._library = library
        for name, argtypes in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = argtypes
            function.restype = c_char_p if name.startswith("cudaGetErr") else c_int

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library.

        Raises:
            CudaError: it returned an error; cleared, so that the next call starts afresh.
        """
        code = getattr(self._library, name)(*arguments)
        if code:
            self._library.cudaGetLastError()
            raise CudaError(self._explain(name, code))

    def try_call(self, name: str, *arguments: Any) -> bool:
        """Call a function and return whether it succeeded; for clean-up, where nobody listens."""
        return not getattr(self._library, name)(*arguments)

    def get_int(self, name: str, *arguments: int) -> int:
        """Call a function whose first parameter is an int to fill in, and return it."""
        value = c_int()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value

    def get_handle(self, name: str, *arguments: Any) -> int:
        """Call a function whose first parameter is a pointer to fill in, and return it."""
        handle = c_void_p()
        self.call(name, ctypes.byref(handle), *arguments)
        return int(handle.value or 0)

    def version(self, name: str) -> str:
        """Return what a function of the library says of a version, "12.6"."""
        number = self.get_int(name)
        return f"{number // 1000}.{number % 1000 // 10}"

    def gpu(self, index: int = 0) -> Gpu:
        """Describe a device."""
        properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self.call("cudaGetDeviceProperties", properties, index)
        name = properties.raw[:_NAME_BYTES].split(b"\0")[0].decode("utf-8", "replace")
        major, minor, multiprocessors, integrated = (
            self.get_int("cudaDeviceGetAttribute", attribute, index)
            for attribute in (_SM_MAJOR, _SM_MINOR, _MULTIPROCESSORS, _INTEGRATED)
        )
        return Gpu(name.strip(), f"{major}.{minor}", multiprocessors, bool(integrated))

    def free_bytes(self) -> int:
        """Return how much memory of the current device can be had.

        A Jetson's GPU shares the board's memory, where CUDA counts the page cache as used: what
        Linux calls available is the better number there.
        """
        free, total = c_size_t(), c_size_t()
        self.call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        integrated = self.get_int(
            "cudaDeviceGetAttribute", _INTEGRATED, self.get_int("cudaGetDevice")
        )
        return max(free.value, _available_bytes()) if integrated else free.value

    def _explain(self, name: str, code: int) -> str:
        error = self._library.cudaGetErrorName(code) or b"error"
        text = self._library.cudaGetErrorString(code) or b""
        advice = f". {FIXES[code]}" if code in FIXES else ""
        return f"{name} failed: {error.decode()} ({code}), {text.decode()}{advice}"


def open_cuda() -> Cuda:
    """Load the newest libcudart that the driver here supports.

    Raises:
        CudaError: no library, no driver or no GPU; the message names what was tried.
    """
    names, failures = candidates(), []
    for name in names:
        try:
            cuda = Cuda(ctypes.CDLL(name))
            if cuda.get_int("cudaGetDeviceCount"):
                return cuda
            failures.append("no GPU")
        except CudaError as error:
            failures.append(str(error))
        except (OSError, AttributeError):  # not there, or not a CUDA runtime library
            continue
    reasons = "; ".join(dict.fromkeys(failures)) or f"none of {', '.join(names)} can be loaded"
    raise CudaError(f"CUDA cannot be used here: {reasons}")


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
    """Raise CudaError if this thread is in a context of its own, not the device's primary one.

    pycuda.autoinit makes such a context: memory and streams of the two cannot be mixed, and
    calls fail in ways that nobody understands.

    Args:
        driver: the CUDA driver library; None: the one here.
    """
    if driver is None:
        with suppress(OSError):
            name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
            driver = ctypes.CDLL(name)
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


def candidates() -> List[str]:
    """Return names and paths of CUDA runtime libraries to try, newest release first."""
    if sys.platform == "win32":
        return ["cudart64_13.dll", "cudart64_12.dll", "cudart64_110.dll"]
    sonames = ["libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"]
    patterns = [
        "/usr/local/cuda*/lib64/libcudart.so.1[1-3]*",
        "/usr/local/cuda*/targets/*/lib/libcudart.so.1[1-3]*",
    ]
    for folder in sys.path:  # the wheels that a pip-installed TensorRT or torch brings along
        patterns.append(os.path.join(folder, "nvidia/c*/lib/libcudart.so.1[1-3]*"))
    found = {os.path.realpath(path) for pattern in patterns for path in glob.glob(pattern)}

    def release(path: str) -> List[int]:
        numbers = Path(path).name.split(".so.")[-1].split(".")
        return [int(number) for number in numbers if number.isdigit()]

    return sonames + sorted(found, key=release, reverse=True)


def _available_bytes() -> int:
    """Return MemAvailable of /proc/meminfo (proc(5)), 0 where there is none."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return 0
    found = re.search(r"^MemAvailable:\s*(\d+)", text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0
