"""The wheel without comments, which are for those who work on the code: devices count kilobytes.

Lines stay where they are, so that a traceback names those of the repository; docstrings stay too.
"""

import io
import tempfile
import tokenize
from pathlib import Path
from typing import Any, Dict

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "fastseg_runtime"


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts copies in the place of the modules."""

    def initialize(self, version: str, build_data: Dict[str, Any]) -> None:
        """Make them; an editable installation runs the modules as they are."""
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()
        root = Path(self.root)
        for file in sorted((root / PACKAGE).rglob("*.py")):
            name = file.relative_to(root)
            copy = Path(self._folder.name) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(without_comments(file.read_text("utf-8")), "utf-8")
            build_data["force_include"][str(copy)] = name.as_posix()

    def finalize(self, version: str, build_data: Dict[str, Any], artifact_path: str) -> None:
        """Remove them."""
        if version != "editable":
            self._folder.cleanup()


def without_comments(source: str) -> str:
    """Return Python source without its comments, each statement on the line where it was."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return "\n".join(lines) + "\n"
