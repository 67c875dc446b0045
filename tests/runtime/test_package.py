"""What a device gets: Python 3.8 syntax, numpy alone, a small wheel."""

import ast
import email
import io
import subprocess
import sys
import tokenize
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime"


def python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def vermin(path: Path) -> "subprocess.CompletedProcess[str]":
    """Check statically that nothing under a path needs more than Python 3.8."""
    backports = [f"--backport={name}" for name in ("typing", "importlib", "dataclasses")]
    options = ["--target=3.8-", "--violations", "--no-tips", "--eval-annotations", *backports]
    command = [sys.executable, "-c", "from vermin import main; main()", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_runtime_needs_no_python_newer_than_3_8() -> None:
    result = vermin(RUNTIME / "fastseg_runtime")
    assert result.returncode == 0, result.stdout
    assert "3.8" in result.stdout


def test_the_static_check_notices_newer_python(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("print('fastseg'.removeprefix('fast'))\n")
    result = vermin(tmp_path)
    assert result.returncode != 0
    assert "3.9" in result.stdout


def test_running_a_bundle_loads_one_engine_and_nothing_else(bundle_path: Path) -> None:
    code = (
        "import sys, numpy, fastseg_runtime\n"
        "session = fastseg_runtime.RealtimeSegmentation(sys.argv[1])\n"
        "session.infer(numpy.zeros((32, 48, 3), 'uint8'))\n"
        "heavy = {'torch', 'cv2', 'PIL', 'onnx', 'fastseg', 'ai_edge_litert', 'tensorrt',\n"
        "         'concurrent.futures'}\n"
        "print(sorted(heavy & set(sys.modules)), 'onnxruntime' in sys.modules)"
    )
    assert python(code, str(bundle_path)) == "[] True"


def test_every_public_name_can_be_imported() -> None:
    code = (
        "import fastseg_runtime\n"
        "for name in fastseg_runtime.__all__: assert getattr(fastseg_runtime, name)\n"
        "try: fastseg_runtime.nothing\nexcept AttributeError as error: print(error)"
    )
    assert python(code) == "module 'fastseg_runtime' has no attribute 'nothing'"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=RUNTIME, capture_output=True, check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_is_below_150_kilobytes(wheel: Path) -> None:
    assert wheel.stat().st_size < 150_000


def test_the_wheel_carries_licence_description_and_links(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        metadata = email.message_from_bytes(archive.read(names["METADATA"]))
        assert archive.read(names["LICENSE"]) == (ROOT / "LICENSE").read_bytes()
    assert (metadata["License-Expression"], metadata["License-File"]) == ("MIT", "LICENSE")
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (RUNTIME / "README.md").read_text("utf-8")
    assert all(", https://" in link for link in metadata.get_all("Project-URL", []))
    assert metadata.get_all("Project-URL")


def test_the_wheel_asks_for_numpy_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        lines = archive.read(name).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist") and "extra" not in line]
    assert required == ["Requires-Dist: numpy"]
    assert "Requires-Python: >=3.8" in lines


def test_the_wheel_has_every_statement_on_its_line_and_no_comment(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".py")]
        shipped = {name: archive.read(name).decode() for name in names}
    assert sorted(names) == sorted(
        str(path.relative_to(RUNTIME)) for path in (RUNTIME / "fastseg_runtime").rglob("*.py")
    )
    for name, text in shipped.items():
        source = (RUNTIME / name).read_text("utf-8")
        assert statements(text) == statements(source)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        assert not [token for token in tokens if token.type == tokenize.COMMENT]
    session = ast.parse(shipped["fastseg_runtime/frames/session.py"])
    (infer,) = (f for f in ast.walk(session) if getattr(f, "name", "") == "infer")
    assert isinstance(infer, ast.FunctionDef) and ast.get_docstring(infer)  # it is a user's


def statements(source: str) -> str:
    """Everything that runs, and where it stands; no docstring of a function or a class does."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            said = ast.get_docstring(node) is not None
            nothing = isinstance(node.body[0], ast.Expr) and ast.unparse(node.body[0]) == "..."
            del node.body[: int(said or nothing)]
            node.end_lineno = node.end_col_offset = 0
    return ast.dump(tree, include_attributes=True)
