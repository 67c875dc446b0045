"""What was measured with what: the machine and the versions, for reports."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "onnxruntime", "onnx", "numpy")


def describe_machine() -> dict[str, str]:
    """Return processor, cores, instructions that matter, GPU and versions."""
    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "int8 dot products": "yes" if {"avx512_vnni", "avx_vnni", "asimddp"} & _flags() else "no",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    if torch.cuda.is_available():
        facts["GPU"] = torch.cuda.get_device_name()
    return facts | {package: version(package) for package in PACKAGES}


def _processor() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _flags() -> set[str]:
    table = _cpuinfo()
    return set((table.get("flags") or table.get("Features") or "").split())


def _cpuinfo() -> dict[str, str]:
    """Return the first processor of /proc/cpuinfo; nothing where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
