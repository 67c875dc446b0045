"""Errors of the user's own code, said in one line with their place instead of our traceback."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastseg.checkpoint import CheckpointError

MAX_WORDS = 300  # letters of the user's message
# Where a frame in one of these went wrong, the user's own line is the one that called it.
_LIBRARIES = {
    "fastseg",
    "fastseg_exporters",
    "fastseg_runtime",
    "fastseg_training",
    "compare_models",
    "torch",
    "litert_torch",
    "coremltools",
    "onnx",
    "onnxruntime",
    "onnxsim",
}
_STANDARD = sysconfig.get_path("stdlib")


@contextmanager
def own_code(doing: str, factory: Any = None) -> Iterator[None]:
    """Turn whatever the user's code raises, SystemExit too, into a CheckpointError of one line.

    Args:
        doing: what was done, such as "edge:net at 64x48"; the line begins with it.
        factory: named as the place where no line of the user's code was reached.

    Raises:
        CheckpointError: with what was raised and "file:line" of the user's code.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (Exception, SystemExit) as error:
        raise CheckpointError(f"{doing}: {describe_error(error, factory)}") from error


def import_own(spec: str) -> Any:
    """Return what package.module:name names; it is found from the current folder too.

    Raises:
        CheckpointError: it cannot be imported.
    """
    with own_code(f"cannot import {spec} from {Path.cwd()}"):
        return load_own(spec)


def search_here() -> None:
    """Search the current folder for modules too, after all libraries: an onnx.py is none."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def load_own(spec: str) -> Any:
    """Return what package.module:name names, or raise whatever its import raises.

    Meanwhile the current folder comes first, as for a script of the user's there: what stands
    beside the module is its own, whatever is installed.
    """
    search_here()
    module, _, name = spec.rpartition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    finally:
        with suppress(ValueError):  # the module may have set the path itself
            sys.path.remove(here)


def call_own(spec: str, **offered: Any) -> Any:
    """Return what package.module:factory gives; it is found from the current folder too.

    Args:
        spec: such as "nets:UNet".
        offered: arguments, which a factory that does not name them is not given.

    Raises:
        CheckpointError: it cannot be imported or called.
    """
    factory = import_own(spec)
    with own_code(f"cannot call {spec}", factory):
        named = inspect.signature(factory).parameters
        return factory(**{key: value for key, value in offered.items() if key in named})


def code_sha256(spec: str, objects: Iterable[Any]) -> str:
    """Return a hash of the files of package.module:factory and of what defines objects' classes.

    Torch's own are left out, and so are files that the code reads.
    """
    modules = {spec.partition(":")[0], *(type(entry).__module__ for entry in objects)}
    theirs = (sys.modules.get(name) for name in modules if not name.startswith("torch."))
    files = {getattr(module, "__file__", None) for module in theirs}
    digest = hashlib.sha256()
    for path in sorted(Path(file) for file in files if file):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def describe_error(error: BaseException, factory: Any = None) -> str:
    """Return "TypeError: what it says (nets.py:12)" on one line."""
    words = " ".join(str(error).split())
    words = words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]} ..."
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    place = place_of(error) or _definition(factory)
    return f"{said} ({place})" if place else said


def place_of(error: BaseException) -> str:
    """Return "file:line" of the innermost code that is neither ours nor a library's, or ""."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    place, trace = "", error.__traceback__
    while trace is not None:
        frame, line, trace = trace.tb_frame, trace.tb_lineno, trace.tb_next
        spec = frame.f_globals.get("__spec__")  # of what runs by python -m: "__main__" by name
        module = getattr(spec, "name", None) or frame.f_globals.get("__name__")
        if not _is_library(str(module), frame.f_code.co_filename):
            place = f"{frame.f_code.co_filename}:{line}"
    return place


def _is_library(module: str, file: str) -> bool:
    standard = file.startswith(("<frozen", _STANDARD)) and "site-packages" not in file
    return standard or module.partition(".")[0] in _LIBRARIES


def _definition(factory: Any) -> str:
    if _is_library(str(getattr(factory, "__module__", "")), ""):
        return ""
    try:
        return f"{inspect.getsourcefile(factory)}:{inspect.getsourcelines(factory)[1]}"
    except (OSError, TypeError):
        return ""
