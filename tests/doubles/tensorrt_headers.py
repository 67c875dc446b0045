"""NvInfer.h of a release, as far as C++ code of ours goes, from the records of its Python bindings.

A declaration stands in the header where the record lists what it is called in Python. By hand are
the signatures, which the bindings do not tell, and the integers of enums (NvInferRuntimeBase.h).
Behind the names stands tensorrt_double.cpp.
"""

import subprocess
from pathlib import Path
from typing import Any

from tests.doubles.tensorrt_double import SEVERITIES

# (class, member in Python) -> in C++
MEMBERS = {
    ("Runtime", "deserialize_cuda_engine"): (
        "ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept"
    ),
    ("ICudaEngine", "create_execution_context"): (
        "IExecutionContext* createExecutionContext() noexcept"
    ),
    ("ICudaEngine", "num_io_tensors"): "int32_t getNbIOTensors() const noexcept",
    ("ICudaEngine", "get_tensor_name"): "char const* getIOTensorName(int32_t index) const noexcept",
    ("ICudaEngine", "get_tensor_mode"): (
        "TensorIOMode getTensorIOMode(char const* name) const noexcept"
    ),
    ("ICudaEngine", "get_tensor_dtype"): (
        "DataType getTensorDataType(char const* name) const noexcept"
    ),
    ("ICudaEngine", "get_tensor_shape"): "Dims getTensorShape(char const* name) const noexcept",
    ("IExecutionContext", "set_tensor_address"): (
        "bool setTensorAddress(char const* name, void* data) noexcept"
    ),
    ("IExecutionContext", "execute_async_v3"): "bool enqueueV3(cudaStream_t stream) noexcept",
}
INTEGERS = {
    "TensorIOMode": ("NONE", "INPUT", "OUTPUT"),
    "DataType": (
        *("FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "FP8", "BF16", "INT64"),
        *("INT4", "FP4", "E8M0"),
    ),
}
_HEAD = """#pragma once
#include <cstddef>
#include <cstdint>
#include "cuda_runtime_api.h"
#define DOUBLE_OF "{version}"
namespace nvinfer1 {{
struct Dims {{ int32_t nbDims; {side} d[8]; }};
class ILogger {{
 public:
  enum class Severity : int32_t {{ {severities} }};
  virtual void log(Severity severity, char const* message) noexcept = 0;
  virtual ~ILogger() = default;
}};
"""
# CUDA Runtime API reference; the same in CUDA 11, 12 and 13.
_CUDA = """#pragma once
#include <cstddef>
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorInvalidValue = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum : unsigned { cudaHostAllocDefault = 0, cudaStreamNonBlocking = 1 };
typedef struct CUstream_st* cudaStream_t;
extern "C" {
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaMalloc(void**, std::size_t);
cudaError_t cudaFree(void*);
cudaError_t cudaHostAlloc(void**, std::size_t, unsigned);
cudaError_t cudaFreeHost(void*);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaMemcpyAsync(void*, const void*, std::size_t, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
}
"""


def write_headers(record: dict[str, Any], folder: Path) -> None:
    """Write NvInfer.h and cuda_runtime_api.h of a release's record into a folder."""
    version = record["tensorrt_version"]
    severities = ", ".join(f"k{name} = {value}" for value, name in enumerate(SEVERITIES))
    side = "int32_t" if int(version.split(".")[0]) < 10 else "int64_t"
    text = _HEAD.format(version=version, severities=severities, side=side)
    for name, integers in INTEGERS.items():
        members = sorted(record["enums"][name], key=integers.index)
        listed = ", ".join(f"k{member} = {integers.index(member)}" for member in members)
        text += f"enum class {name} : int32_t {{ {listed} }};\n"
    for name in ("IExecutionContext", "ICudaEngine", "Runtime"):
        declared = [
            f"  virtual {in_cpp} = 0;\n"
            for (owner, member), in_cpp in MEMBERS.items()
            if owner == name and member in record["classes"][name]
        ]
        in_cpp = "IRuntime" if name == "Runtime" else name
        text += f"class {in_cpp} {{\n public:\n  virtual ~{in_cpp}() = default;\n"
        text += "".join(declared) + "};\n"
    text += "IRuntime* createInferRuntime(ILogger& logger) noexcept;\n}\n"
    folder.mkdir(parents=True)
    (folder / "NvInfer.h").write_text(text)
    (folder / "cuda_runtime_api.h").write_text(_CUDA)


def build_libraries(prefix: Path, *flags: str) -> None:
    """Build lib/libnvinfer.so and lib/libcudart.so of the headers in include/."""
    (prefix / "lib").mkdir()
    source = Path(__file__).with_name("tensorrt_double.cpp")
    command = ["g++", "-std=c++17", "-shared", "-fPIC", *flags, f"-I{prefix}/include", str(source)]
    for name in ("nvinfer", "cudart"):  # the second is there to be found, and has nothing to add
        library = prefix / f"lib/lib{name}.so"
        given = command if name == "nvinfer" else ["g++", "-shared", "-x", "c++", "/dev/null"]
        subprocess.run([*given, "-o", str(library)], check=True, timeout=300)
