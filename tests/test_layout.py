"""The rules of the tree: who may import whom, and who owns which import name."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {
    "fastseg",
    "fastseg_targets",
    "fastseg_exporters",
    "fastseg_runtime",
    "fastseg_training",
    "remote_bench",
    "compare_models",
}
# Folder -> our own packages that it may import besides itself.
ALLOWED: dict[str, set[str]] = {
    "targets/fastseg_targets": set(),
    "runtime/fastseg_runtime": set(),
    "fastseg": {"fastseg_runtime"},
    "training/fastseg_training": {"fastseg", "fastseg_runtime"},
    "exporters/fastseg_exporters": {"fastseg", "fastseg_targets", "fastseg_runtime"},
    "tools/remote_bench": {"fastseg_targets", "fastseg_runtime"},
    "tools/compare_models": OWN,
}
# Single files with a licence of their own, and why.
EXCEPTIONS = {
    "runtime/fastseg_runtime/engines/backend_pytorch.py": {"fastseg"},  # runs checkpoints
    "tools/remote_bench/run/default_bundle.py": {"fastseg", "fastseg_exporters"},  # makes one
    "tools/remote_bench/run/sweep.py": {"fastseg", "fastseg_exporters"},  # untrained networks
}
# Engines and converters: only these files may touch them, so that nobody else needs them.
VENDORS = {
    "tensorrt",
    "onnxruntime",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "litert_torch",
    "tflite_runtime",
    "coremltools",
}
VENDOR_FILES = ("backend_", "to_")
# What a device has: numpy. OpenCV is used where it is found, in these files alone.
RUNTIME_EXTRAS = {
    "image.py": {"cv2", "PIL"},
    "image_files.py": {"cv2", "PIL"},
    "video.py": {"cv2"},
    "backend_pytorch.py": {"torch"},
}
FILES = [(folder, file) for folder in ALLOWED for file in sorted((ROOT / folder).rglob("*.py"))]
RUNTIME_FILES = [file for folder, file in FILES if folder.startswith("runtime")]


def imported_names(file: Path) -> set[str]:
    """Return the top-level names a file imports, at module level or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def file_id(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else ""


@pytest.mark.parametrize(("folder", "file"), FILES, ids=file_id)
def test_a_file_imports_only_those_of_our_packages_that_its_folder_may(
    folder: str, file: Path
) -> None:
    allowed = ALLOWED[folder] | {Path(folder).name}
    allowed |= EXCEPTIONS.get(str(file.relative_to(ROOT)), set())
    assert imported_names(file) & OWN <= allowed


@pytest.mark.parametrize(("folder", "file"), FILES, ids=file_id)
def test_only_backends_and_exporters_touch_engine_libraries(folder: str, file: Path) -> None:
    if not file.name.startswith(VENDOR_FILES) and "compare_models" not in folder:
        assert not imported_names(file) & VENDORS


@pytest.mark.parametrize(
    "file", sorted((ROOT / "runtime/fastseg_runtime").rglob("*.py")), ids=file_id
)
def test_the_runtime_imports_numpy_and_the_standard_library_alone(file: Path) -> None:
    known = {"numpy", "fastseg_runtime", *sys.stdlib_module_names}
    known |= EXCEPTIONS.get(str(file.relative_to(ROOT)), set())
    known |= RUNTIME_EXTRAS.get(file.name, set())
    if file.name.startswith("backend_"):
        known |= VENDORS
    assert imported_names(file) <= known


@pytest.mark.parametrize("folder", ALLOWED)
def test_an_import_name_resolves_to_this_repository(folder: str) -> None:
    """PyPI has an unrelated "fastseg": fail loudly if it shadows ours."""
    module = import_module(Path(folder).name)
    assert Path(str(module.__file__)).parent == ROOT / folder


@pytest.mark.parametrize("package", sorted(OWN))
def test_every_package_is_typed(package: str) -> None:
    folder = next(f for f in ALLOWED if Path(f).name == package)
    assert (ROOT / folder / "py.typed").is_file()


@pytest.mark.parametrize(
    "folder", ["targets", "exporters", "runtime", "training", "tools", "tests"]
)
def test_folders_that_only_hold_packages_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_importing_the_runtime_loads_no_engine_and_no_framework() -> None:
    heavy = VENDORS | {"torch", "cv2", "PIL", "fastseg"}
    code = f"import sys, fastseg_runtime; print(sorted({heavy!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_importing_the_exporters_loads_no_converter() -> None:
    code = f"import sys, fastseg_exporters; print(sorted({VENDORS!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
