"""The rules of the tree: who may import whom, and who owns which import name. One test a rule."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path

import pytest
from fastseg_exporters.convert.exporter import EXPORTERS
from fastseg_runtime.engines.engine import ENGINES

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "fastseg": "fastseg",
    "fastseg_targets": "targets/fastseg_targets",
    "fastseg_runtime": "runtime/fastseg_runtime",
    "fastseg_training": "training/fastseg_training",
    "fastseg_exporters": "exporters/fastseg_exporters",
    "remote_bench": "tools/remote_bench",
    "compare_models": "tools/compare_models",
    "fastseg_web": "tools/fastseg_web",
}
# Package -> our other packages that it may import.
PACKAGES: dict[str, set[str]] = {
    "fastseg_runtime": set(),
    "fastseg_targets": {"fastseg_runtime"},
    "fastseg": {"fastseg_runtime"},
    "fastseg_training": {"fastseg", "fastseg_runtime"},
    "fastseg_exporters": {"fastseg", "fastseg_targets", "fastseg_runtime"},
    "remote_bench": {"fastseg_targets", "fastseg_runtime"},
    "compare_models": set(FOLDERS),
    "fastseg_web": {"fastseg_runtime"},
}
# Room -> the other rooms of its package that it may import. A room inside a room is private to it.
ROOMS: dict[str, dict[str, set[str]]] = {
    "fastseg_runtime": {
        "arrays": set(),
        "bundle": {"arrays"},
        "engines": {"arrays", "bundle"},
        "frames": {"arrays", "bundle", "engines"},
        "cli": {"arrays", "bundle", "engines", "frames"},
    },
    "fastseg_exporters": {
        "convert": set(),
        "gate": {"convert"},
        "onnx": {"convert", "gate"},
        "tensorrt": {"convert", "onnx"},
        "openvino": {"convert", "onnx"},
        "tflite": {"convert"},
        "coreml": {"convert"},
        "qnn": {"convert", "gate", "onnx"},
        "rknn": {"convert", "gate", "onnx"},
        "pytorch": {"convert"},
        "older": {"onnx", "tensorrt"},
    },
    "fastseg_training": {
        "batches": set(),
        "suspects": set(),
    },
    "remote_bench": {
        "agent": set(),
        "keeper": {"agent"},  # starts it, by name
        "host": set(),
        "link": {"host"},
        "analysis": set(),
        "run": {"host", "link", "analysis"},
        "report": {"host", "analysis"},
        "cli": {"host", "link", "analysis", "run", "report"},
    },
}
# Modules with a licence of their own, and why.
EXCEPTIONS = {
    "fastseg_runtime.engines.backend_pytorch": {"fastseg"},  # runs checkpoints as they are
    "remote_bench.run.bundles": {"fastseg", "fastseg_exporters"},  # makes one
    "remote_bench.run.material": {"fastseg", "fastseg_exporters"},  # a network and scenes of ours
    "remote_bench.run.sweep": {"fastseg", "fastseg_exporters"},  # untrained networks
}
# Tables of plug-ins: they name what an entry point of another distribution could name as well.
PLUG_IN_TABLES = {
    "fastseg_exporters.convert.exporter",
    "fastseg_runtime.engines.engine",
    "fastseg.data.loaders",
}
# Engines and converters: only these files may touch them, so that nobody else needs them.
_RECORDS = (*ENGINES.values(), *EXPORTERS.values())
ENGINE_LIBRARIES = {module for engine in ENGINES.values() for module in engine.modules}
_ANYWHERE = {"torch", "safetensors", "onnx"}  # what networks and graphs are made of
VENDORS = {module for record in _RECORDS for module in record.modules} - _ANYWHERE
VENDOR_FILES = ("backend_", "to_", "judge_")
# What a device has: numpy. OpenCV is used where it is found, in these files alone.
RUNTIME_EXTRAS = {
    "image.py": {"cv2", "PIL"},
    "video.py": {"cv2"},
}
TRAVELS = ("remote_bench.agent", "remote_bench.keeper", "remote_bench.messages")
# What runs in the worker, which has what the runtime has.
ON_THE_BOARD = {
    "remote_bench.agent.frames": {"numpy"},
    "remote_bench.agent.worker": {"numpy", "fastseg_runtime"},
}


def _module_name(package: str, file: Path) -> str:
    parts = file.relative_to(ROOT / FOLDERS[package]).with_suffix("").parts
    return ".".join([package, *(part for part in parts if part != "__init__")])


MODULES = {
    _module_name(package, file): file
    for package, folder in FOLDERS.items()
    for file in sorted((ROOT / folder).rglob("*.py"))
}
A_NAME_OF_OURS = re.compile(rf"\b(?:{'|'.join(FOLDERS)})(?:\.\w+)+")
IMPORTERS = {"import_module", "__import__"}


def imports_of(file: Path, module: str = "") -> Iterator[str]:
    """Yield what a file imports: at its top, in functions, by calls, and by names in strings."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    prose = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                yield deeper if deeper in MODULES else base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in IMPORTERS:
            named = node.args[0]
            if isinstance(named, ast.Constant):
                yield resolve_name(str(named.value), package)
        elif isinstance(node, ast.Constant) and node not in prose and module not in PLUG_IN_TABLES:
            yield from set(A_NAME_OF_OURS.findall(str(node.value))) & set(MODULES)


IMPORTS = {module: set(imports_of(file, module)) - {module} for module, file in MODULES.items()}


def top_level(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def room_of(module: str) -> str:
    """Return "bundle" for fastseg_runtime.bundle.manifest, "" for what stands in no room."""
    package, *parts = module.split(".")
    return parts[0] if parts and parts[0] in ROOMS.get(package, {}) else ""


def test_a_package_imports_only_those_of_ours_that_it_may() -> None:
    for module, names in IMPORTS.items():
        package = module.partition(".")[0]
        allowed = PACKAGES[package] | {package} | EXCEPTIONS.get(module, set())
        assert top_level(names) & set(FOLDERS) <= allowed, module


def test_a_room_imports_only_the_rooms_that_it_may() -> None:
    for module, names in IMPORTS.items():
        package, room = module.partition(".")[0], room_of(module)
        near = {room_of(name) for name in names if name.startswith(f"{package}.")} - {"", room}
        assert not room or near <= ROOMS[package][room], module


def test_every_folder_of_a_package_with_rooms_is_one_of_them_and_says_what_it_is() -> None:
    for package, rooms in ROOMS.items():
        folder = ROOT / FOLDERS[package]
        assert {file.parent.name for file in folder.glob("*/__init__.py")} == set(rooms)
        for room in rooms:
            assert ast.get_docstring(ast.parse((folder / room / "__init__.py").read_text("utf-8")))


def test_nothing_imports_in_a_circle() -> None:
    left = set(MODULES)
    while ends := {
        module
        for module in left
        if not IMPORTS[module] & left or not any(module in IMPORTS[other] for other in left)
    }:
        left -= ends
    assert not left


def test_what_is_imported_of_ours_is_there() -> None:
    """In scripts too, which no other file imports."""
    for folder in ("tools", "docs", "tests", *FOLDERS.values()):
        for file in (ROOT / folder).rglob("*.py"):
            for name in imports_of(file, "x.y.z"):
                assert name.split(".")[0] not in FOLDERS or name in MODULES, f"{file}: {name}"


def test_only_backends_and_exporters_touch_engine_libraries() -> None:
    for module, names in IMPORTS.items():
        if not MODULES[module].name.startswith(VENDOR_FILES) and "compare_models" not in module:
            assert not top_level(names) & VENDORS, module


def test_the_runtime_imports_numpy_and_the_standard_library_alone() -> None:
    for module, names in IMPORTS.items():
        if not module.startswith("fastseg_runtime"):
            continue
        file = MODULES[module].name
        known = {"numpy", "fastseg_runtime", *sys.stdlib_module_names}
        known |= EXCEPTIONS.get(module, set()) | RUNTIME_EXTRAS.get(file, set())
        known |= ENGINE_LIBRARIES if file.startswith("backend_") else set()
        assert top_level(names) <= known, module


def test_what_travels_to_a_board_needs_the_standard_library_alone() -> None:
    for module, names in IMPORTS.items():
        if module.startswith(TRAVELS):
            known = {"remote_bench", *sys.stdlib_module_names} | ON_THE_BOARD.get(module, set())
            assert top_level(names) <= known, module


@pytest.mark.parametrize("package", FOLDERS)
def test_an_import_name_is_a_typed_package_of_this_repository(package: str) -> None:
    """PyPI has an unrelated "fastseg": fail loudly if it shadows ours."""
    assert Path(str(import_module(package).__file__)).parent == ROOT / FOLDERS[package]
    assert (ROOT / FOLDERS[package] / "py.typed").is_file()


def test_no_log_is_kept() -> None:
    """Reports of crashes and logs tell of the machine that they were made on."""
    if not (ROOT / ".git").exists():
        pytest.skip("no repository, as in an archive of the sources")
    command = ["git", "ls-files", "*.log", "*core.[0-9]*"]
    kept = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert kept == ""


def test_folders_that_only_hold_packages_are_no_packages() -> None:
    for folder in ("targets", "exporters", "runtime", "training", "tools", "tests"):
        assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize(
    ("package", "heavy"),
    [
        ("fastseg_runtime", VENDORS | {"numpy", "torch", "cv2", "PIL", "fastseg"}),
        ("fastseg_exporters", VENDORS),
    ],
)
def test_importing_a_package_loads_nothing_heavy(package: str, heavy: set[str]) -> None:
    code = f"import sys, {package}; print(sorted({heavy!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
