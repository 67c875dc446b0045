"""Versions of what is installed on the board, read without importing any of it."""

import glob
import importlib.util
import os
import platform
import re
import sys
import sysconfig
from typing import Any, Dict, List, Optional

from .board import Board

# Import name -> distribution name in its .dist-info or .egg-info folder.
MODULES = {
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "ai_edge_litert": "ai_edge_litert",
    "tflite_runtime": "tflite_runtime",
    "cv2": "opencv",
}
_PACKAGES = ("libnvinfer[0-9]*", "tensorrt", "nvidia-jetpack", "nvidia-l4t-core", "cuda-toolkit-*")
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)+")


def read_python() -> Dict[str, Any]:
    """Return what a wheel must fit: version, implementation, platform, C library; and modules."""
    libc = " ".join(part for part in platform.libc_ver() if part)
    return {
        "version": ".".join(str(part) for part in sys.version_info[:3]),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "platform": sysconfig.get_platform(),
        "libc": libc or None,
        "modules": {name: module_version(name) for name in MODULES},
    }


def module_version(name: str) -> Optional[str]:
    """Return a module's version, "unknown" where it hides it, None where it is not there."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    site = os.path.dirname(os.path.dirname(spec.origin))
    folders = glob.glob(os.path.join(glob.escape(site), MODULES[name] + "*-info"))
    for folder in sorted(folders):
        found = _VERSION.search(os.path.basename(folder))
        if found:
            return found.group(0)
    return "unknown"


def read_packages(board: Board) -> Dict[str, str]:
    """Return the versions of NVIDIA's Debian packages, and of CUDA from its own file."""
    command: List[str] = ["dpkg-query", "-W", "-f", "${Package}\t${Version}\n", *_PACKAGES]
    pairs = [line.split("\t") for line in board.run(command).output.splitlines() if "\t" in line]
    versions = {pair[0]: pair[1] for pair in pairs if pair[1]}
    for path in ("/usr/local/cuda/version.json", "/usr/local/cuda/version.txt"):
        text = board.text(path) or ""
        found = re.search(r'"cuda"[^}]*?"version"\s*:\s*"([0-9.]+)"', text) or re.search(
            r"CUDA Version ([0-9.]+)", text
        )
        if found:
            versions["cuda"] = found.group(1)
            break
    return versions
