"""What this device has, libraries (usable, absent, or broken) and a CPU, and what to try first."""

import os
import platform
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import FrozenSet, List, Optional, Tuple

from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.engines.backend import load_backend
from fastseg_runtime.engines.engine import (
    ENGINES,
    Engine,
    engines,
    find_engine,
    find_precision,
    openers,
)
from fastseg_runtime.engines.tensorrt.cuda import CudaError, open_cuda

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
    instructions: FrozenSet[str] = frozenset()  # words of /proc/cpuinfo, x86's flags among them


def this_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """Describe the CPU here."""
    arm = platform.machine().lower() in _ARM_MACHINES
    try:
        words = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:  # macOS and Windows: every arm64 machine that runs them has dot products
        return Processor(arm, int8_dot_product=arm and sys.platform in ("darwin", "win32"))
    return Processor(arm, bool(words & _DOT_PRODUCT_FLAGS), frozenset(words))


def processor_facts() -> str:
    """Return what engines choose their kernels by: the CPU's model and its instructions."""
    told = ("model name", "flags", "Features", "CPU part", "uarch", "isa")
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    lines = sorted({line for line in text.splitlines() if line.startswith(told)})
    return "\n".join([platform.machine(), *lines])


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


def _key(candidate: Candidate, processor: Processor) -> Tuple[bool, bool, int, int, bool]:
    engine, precision = _known(candidate.backend), find_precision(candidate.artifact.precision)
    kind = 0 if engine.accelerator else 1 if processor.int8_dot_product else 2
    wanted = engine.wants.get(precision.name, ())
    is_others = candidate.backend != made_for(candidate.artifact)
    return (
        is_others,
        # Of a graph made for TensorRT with scales in half, OpenVINO computes another one.
        bool(engine.wants) and (is_others or processor.instructions.isdisjoint(wanted)),
        engine.ranks[0 if processor.arm else 1],
        precision.ranks[kind],
        not engine.wants,  # where the CPU has what an engine wants, that is the faster one
    )


def _known(backend: str) -> Engine:
    """Return an engine; of one that is not installed, the defaults."""
    return ENGINES.get(backend) or engines().get(backend) or Engine(backend)


_PRERELEASE = re.compile(r"\d+(\.\d+)*[-_.]?(a|b|c|rc|alpha|beta|pre|preview|dev)\d*", re.I)


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here."""

    backend: str
    usable: bool
    version: str = ""  # of the library; empty: it does not say
    reason: str = ""  # why it cannot be used
    fix: str = ""  # the command that changes that; empty: nothing does on this device
    broken: bool = False  # it is there and does not load
    module: str = ""  # that the library is imported as


def probe(backend: str) -> Availability:
    """Say whether a backend can be used, importing its library if it is there."""
    try:
        engine = find_engine(backend)
    except ValueError as error:
        fix = "pip install --upgrade fastseg-runtime, or install what brings that backend"
        return Availability(backend, False, reason=str(error), fix=fix)
    if engine.platform not in (None, sys.platform):
        return Availability(backend, False, reason=f"runs on {engine.platform} alone")
    if engine.needs_cuda:
        try:
            open_cuda()
        except CudaError as error:
            return Availability(backend, False, reason=str(error))
    found = [name for name in engine.modules if _is_installed(name)]
    if engine.modules and not found:
        reason = f"{' or '.join(engine.modules)} is not installed"
        return Availability(backend, False, reason=reason, fix=engine.install)
    return _probe_import(engine, found[0] if found else "")


def version_number(version: str) -> Tuple[int, ...]:
    """Return "1.17.1rc2" as (1, 17, 1) and "8.5.2+cuda11" as (8, 5, 2), to compare."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def is_at_least(version: str, minimum: str) -> bool:
    """Compare versions; "1.17.0rc1" and "1.17.dev2" come before "1.17", which is "1.17.0"."""
    numbers = [version_number(text) for text in (version, minimum)]
    length = max(map(len, numbers))
    found, wanted = (number + (0,) * (length - len(number)) for number in numbers)
    return found > wanted or (found == wanted and not _PRERELEASE.match(version))


def _is_installed(module: str) -> bool:
    try:
        return module in sys.modules or find_spec(module) is not None
    except (ImportError, ValueError):  # half-removed packages
        return False


def _probe_import(engine: Engine, module: str) -> Availability:
    version = ""  # what a library says of itself, else what its installation says of it
    try:
        load_backend(engine.name)
        if module:
            version = str(getattr(import_module(module), "__version__", "") or "")
            with suppress(metadata.PackageNotFoundError):
                version = version or metadata.version(module.replace("_", "-"))
    except Exception as error:  # a broken library may raise anything
        first_line = (str(error).splitlines() or [""])[0] or type(error).__name__
        reason = f"{module or engine.name} is installed but does not load: {first_line}"
        fix = f"{engine.install} --force-reinstall" if "pip" in engine.install else engine.install
        return Availability(engine.name, False, reason=reason, fix=fix, broken=True)
    return Availability(engine.name, True, version=version, module=module)
