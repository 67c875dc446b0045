"""Which engine libraries this device has: usable, absent, or installed but broken."""

import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Tuple

from fastseg_runtime.engines.backend import load_backend
from fastseg_runtime.engines.engine import Engine, find_engine
from fastseg_runtime.engines.tensorrt.cuda import CudaError, open_cuda

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
