"""What an engine fits: the TensorRT and how it takes a precision, the GPU, the board and its L4T.

Asked of the tensorrt module, never assumed; it is an argument, so that only backends import it.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseg_runtime.engines.engine import ENGINES
from fastseg_runtime.engines.selection import version_number
from fastseg_runtime.engines.tensorrt.cuda import Cuda, Gpu
from fastseg_runtime.engines.tensorrt.errors import TensorRTError

OLDEST = ENGINES["tensorrt"].min_version  # the first with set_tensor_address and execute_async_v3
# Every call we make was checked against NVIDIA's binding modules of these, on no real device.
CHECKED = ((8, 6), (10, 0), (10, 3), (10, 13), (10, 16), (11, 4))
TEGRA_RELEASE = Path("/etc/nv_tegra_release")
BOARD_MODEL = Path("/proc/device-tree/model")


@dataclass(frozen=True)
class Release:
    """What the builder needs to know of a TensorRT."""

    version: str  # as the module says it, "10.3.0"
    strongly_typed: bool  # precision comes with the graph; else with builder flags
    checked: bool  # against the API record of this major.minor


def probe_release(trt: Any) -> Release:
    """Identify a tensorrt module.

    Raises:
        TensorRTError: it is too old; the message says what runs instead.
    """
    version = str(trt.__version__)
    number = version_number(version)
    if number < version_number(OLDEST):
        advice = "JetPack 5.1 brings TensorRT 8.5: update JetPack"
        if number < (8, 4):
            advice = (
                "JetPack 4 (Jetson Nano, TX2: TensorRT 8.2, Python 3.6) cannot run it; "
                "use a cpu-int8 artifact on a newer Python, or a board with JetPack 5.1 or newer"
            )
        raise TensorRTError(
            f"TensorRT {version} is too old: fastseg needs {OLDEST} or newer. {advice}"
        )
    return Release(
        version=version,
        strongly_typed=not hasattr(trt.BuilderFlag, "FP16"),
        checked=number[:2] in CHECKED,
    )


@dataclass(frozen=True)
class Platform:
    """Where an engine is built and run."""

    release: Release
    gpu: Gpu
    cuda_runtime: str
    cuda_driver: str  # the newest CUDA that the driver supports
    board: str  # "NVIDIA Jetson Orin Nano Developer Kit"; "" on a PC
    l4t: str  # "36.4.3"; "" where there is no L4T


def describe_platform(trt: Any, cuda: Cuda, device: int = 0) -> Platform:
    """Describe this machine.

    Raises:
        TensorRTError: the TensorRT is too old.
    """
    return Platform(
        release=probe_release(trt),
        gpu=cuda.gpu(device),
        cuda_runtime=cuda.version("cudaRuntimeGetVersion"),
        cuda_driver=cuda.version("cudaDriverGetVersion"),
        board=read_board(BOARD_MODEL),
        l4t=read_l4t(TEGRA_RELEASE),
    )


def read_l4t(path: Path) -> str:
    """Return the L4T version in a file like "# R35 (release), REVISION: 4.1, GCID: ...", or ""."""
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _read(path))
    return f"{match.group(1)}.{match.group(2)}" if match else ""


def read_board(path: Path) -> str:
    """Return the board's name in the device tree, or ""."""
    return _read(path).strip("\0 \n")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
