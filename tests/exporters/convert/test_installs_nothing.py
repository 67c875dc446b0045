"""Nothing is installed behind the user's back, and no converter drags TensorFlow in."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("exporters", "targets", "runtime", "fastseg", "training")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
STARTERS = {"subprocess", "os.system", "os.popen", "pty", "runpy"}
# Itself; a referee in its own environment; what converts there; pip, which makes that.
MAY_START_PROCESSES = {
    "child.py",
    "referees/judge.py",
    "referees/toolchain.py",
    "referees/install.py",
}


def started_by(file: Path) -> set[str]:
    """Return what a file uses that could run another program."""
    tree = ast.parse(file.read_text("utf-8"))
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    installers = {name for name in names if name.split(".")[0] in ("pip", "ensurepip")}
    return installers | (names & STARTERS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_can_run_an_installer(file: Path) -> None:
    may = file.as_posix().endswith(tuple(f"/{name}" for name in MAY_START_PROCESSES))
    allowed = {"subprocess"} if may else set()
    assert started_by(file) <= allowed


def test_the_one_process_that_is_started_is_our_own() -> None:
    source = (ROOT / "exporters/fastseg_exporters/convert/child.py").read_text("utf-8")
    assert re.findall(r"Popen\(\s*(\[.*?\])", source) == [
        '[sys.executable, "-P", "-m", "fastseg_exporters.convert.child", str(folder)]'
    ]


def test_environments_of_referees_are_made_by_the_one_command_that_says_so() -> None:
    installers = [file for file in FILES if "referees.install import" in file.read_text("utf-8")]
    assert [file.relative_to(ROOT).as_posix() for file in installers] == [
        "exporters/fastseg_exporters/gate/referees/__main__.py"
    ]


def test_no_converter_brings_tensorflow() -> None:
    pinned = (ROOT / "constraints.txt").read_text("utf-8").lower().splitlines()
    assert any(line.startswith("litert-torch==") for line in pinned)
    assert not [line for line in pinned if line.startswith(("tensorflow", "onnx2tf", "tf-"))]
