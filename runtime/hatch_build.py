"""The wheel without what is for those who work on the code alone: devices count kilobytes.

Comments go, and docstrings of functions and classes in all but the PUBLIC modules. Lines stay where
they are, so that a traceback names those of the repository.
"""

import ast
import io
import tempfile
import tokenize
from pathlib import Path
from typing import Any, Dict

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "fastseg_runtime"
# help() of these is a user's, or of who writes a backend.
PUBLIC = (
    "__init__.py",
    "masks.py",
    "session.py",
    "stream.py",
    "steady.py",
    "draw.py",
    "backend.py",
)


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
            source = without_comments(file.read_text("utf-8"))
            if file.name not in PUBLIC:
                source = without_docstrings(source)
            copy.write_text(source, "utf-8")
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


def without_docstrings(source: str) -> str:
    """Return Python source without docstrings but the module's, each line where it was."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if ast.get_docstring(node) is None:
            continue
        first, last = node.body[0].lineno, node.body[0].end_lineno or 0
        lines[first - 1 : last] = [""] * (last - first + 1)
        if len(node.body) == 1:
            lines[first - 1] = " " * node.body[0].col_offset + "..."
    return "\n".join(lines) + "\n"
