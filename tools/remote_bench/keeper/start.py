"""Runs this package from memory. The board executes this file's text; nothing imports it.

The next line of stdin is JSON: the settings, and the source text of every module by name.
"""

import importlib.abc
import importlib.util
import json
import sys
from typing import Any, Optional

settings, sources = json.loads(sys.stdin.buffer.readline().decode("ascii"))


class FromMemory(importlib.abc.Loader):
    """Finds and loads the modules of `sources`."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[Any]:
        """Return how to load one of our modules; None for all others."""
        if name not in sources:
            return None
        is_package = any(module.startswith(name + ".") for module in sources)
        return importlib.util.spec_from_loader(name, self, is_package=is_package)

    def exec_module(self, module: Any) -> None:
        """Run a module's text."""
        exec(compile(sources[module.__name__], module.__name__, "exec"), module.__dict__)


sys.meta_path.insert(0, FromMemory())
importlib.import_module("remote_bench.keeper.main").main(settings)
