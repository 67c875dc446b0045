"""What an engine fits: the TensorRT, the CUDA, the GPU, the board and its L4T."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseg_runtime.cuda import Cuda, Gpu
from fastseg_runtime.tensorrt_release import Release, probe_release

TEGRA_RELEASE = Path("/etc/nv_tegra_release")
BOARD_MODEL = Path("/proc/device-tree/model")


@dataclass(frozen=True)
class Platform:
    """Where an engine is built and run."""

    release: Release
    gpu: Gpu
    cuda_runtime: str
    cuda_driver: str
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
        cuda_runtime=cuda.runtime_version(),
        cuda_driver=cuda.driver_version(),
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
