"""Which artifact and engine to try first on this device."""

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.engines.engine import ENGINES, Engine, engines, find_precision, openers

_DOT_PRODUCT_FLAGS = {"avx512_vnni", "avx_vnni", "asimddp", "i8mm"}
_ARM_MACHINES = ("arm64", "aarch64", "armv7l", "armv8l")


@dataclass(frozen=True)
class Candidate:
    """An artifact and the backend to open it with."""

    artifact: Artifact
    backend: str


@dataclass(frozen=True)
class Rejection:
    """A candidate that was not used, and why."""

    target: str
    backend: str
    reason: str
    fix: str = ""  # the command that would change it
    failed: bool = False  # something that is there does not work; else there is nothing to try

    @property
    def pair(self) -> str:
        """Return what it was, for messages."""
        return f"{self.target} with {self.backend}"


@dataclass(frozen=True)
class Processor:
    """What the order depends on."""

    arm: bool
    int8_dot_product: bool


def this_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """Describe the CPU here."""
    arm = platform.machine().lower() in _ARM_MACHINES
    try:
        words = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:  # macOS and Windows: every arm64 machine that runs them has dot products
        return Processor(arm, int8_dot_product=arm and sys.platform in ("darwin", "win32"))
    return Processor(arm, int8_dot_product=bool(words & _DOT_PRODUCT_FLAGS))


def processor_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return what engines choose their kernels by: the CPU's model and its instructions."""
    told = ("model name", "flags", "Features", "CPU part", "uarch", "isa")
    try:
        lines = set(cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join([platform.machine(), *sorted(line for line in lines if line.startswith(told))])


def cpu_count() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def rank(
    manifest: Manifest,
    processor: Processor,
    backend: str = "auto",
    target: Optional[str] = None,
    device: str = "auto",
) -> List[Candidate]:
    """Return what to try, best first.

    Args:
        manifest: of the bundle.
        processor: of this device.
        backend: "auto": each artifact with the backend it was made for; a name: every artifact
            that this backend opens.
        target: only this artifact, with any backend that opens its format.
        device: "cpu" leaves accelerators out.
    """
    candidates = [
        Candidate(artifact, name)
        for artifact in manifest.artifacts
        if target in (None, artifact.target)
        for name in _backends_for(artifact, backend, any_backend=target is not None)
        if device != "cpu" or not _known(name).needs_cuda
    ]
    return sorted(candidates, key=lambda candidate: _key(candidate, processor))


def made_for(artifact: Artifact) -> str:
    """Return the backend that an artifact was made for."""
    said = artifact.requires.get("backend")
    return str(said or [artifact.format, *(e.name for e in openers(artifact.format))][-1])


def minimum_version(artifact: Artifact, backend: str, module: str) -> str:
    """Return the oldest version of a library that an artifact was run with; "" for any.

    min_version counts as the first library of the artifact's own backend does; min_<module> is
    for one that counts otherwise (tflite-runtime), or for another backend.
    """
    general = artifact.requires.get("min_version", "") if backend == made_for(artifact) else ""
    return str(artifact.requires.get(f"min_{module}", general))


def _backends_for(artifact: Artifact, backend: str, any_backend: bool) -> List[str]:
    preferred = made_for(artifact)
    if backend == "auto":
        others = [e.name for e in openers(artifact.format) if e.name != preferred]
        return [preferred, *others] if any_backend else [preferred]
    opens = _known(backend).formats  # somebody else's may know itself alone what it opens
    return [backend] if backend == preferred or not opens or artifact.format in opens else []


def _key(candidate: Candidate, processor: Processor) -> Tuple[bool, int, int]:
    engine, precision = _known(candidate.backend), find_precision(candidate.artifact.precision)
    kind = 0 if engine.accelerator else 1 if processor.int8_dot_product else 2
    return (
        candidate.backend != made_for(candidate.artifact),
        engine.ranks[0 if processor.arm else 1],
        precision.ranks[kind],
    )


def _known(backend: str) -> Engine:
    """Return an engine; of one that is not installed, the defaults."""
    return ENGINES.get(backend) or engines().get(backend) or Engine(backend)
