"""Engine versions in environments of their own, and bundles to run in them."""

import dataclasses
import os
import subprocess
import sys
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastseg_runtime.arrays.shared_files import locked
from fastseg_runtime.engines.selection import is_at_least

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("FASTSEG_CACHE", ROOT / ".cache")) / "test-engines"


@dataclass(frozen=True)
class Engine:
    """A version of an engine's library, as engines.toml has it."""

    package: str
    version: str
    numpy: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"

    def python(self) -> Path:
        """Return the interpreter of an environment that has this engine and numpy alone.

        It is made at the first call and kept. The test is skipped where pip cannot fetch them.
        """
        folder = FOLDER / f"{self.package}-{self.version}-numpy-{self.numpy}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f"{folder.name}.lock", lambda: None):
            return self._made(folder)

    def _made(self, folder: Path) -> Path:
        python, ready = folder / "bin" / "python", folder / "ready"
        if not ready.is_file():
            venv.create(folder, clear=True)
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
            wheels = [str(self), f"numpy=={self.numpy}"]
            done = subprocess.run(
                [*pip, "--no-deps", "--only-binary=:all:", *wheels], capture_output=True, text=True
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
                pytest.skip(f"{self} cannot be installed: {last}")
            ready.touch()
        return python


def known_engines() -> list[Engine]:
    """Return what engines.toml lists."""
    text = Path(__file__).with_name("engines.toml").read_text("utf-8")
    return [Engine(**entry) for entry in tomllib.loads(text)["engine"]]


def asked_engines() -> list[Engine]:
    """Return those that $ENGINES names: "1.17.0" for onnxruntime, or "tflite-runtime==2.14.0".

    One that is not in engines.toml gets the numpy of the next older one that is.
    """
    names = os.environ.get("ENGINES", " ".join(map(str, known_engines()))).split()
    asked = []
    for name in names:
        package, version = name.split("==") if "==" in name else ("onnxruntime", name)
        older = [
            engine
            for engine in known_engines()
            if engine.package == package and is_at_least(version, engine.version)
        ]
        if not older:
            raise ValueError(f"ENGINES names {name}; engines.toml has nothing as old as that")
        asked.append(dataclasses.replace(older[-1], version=version))
    return asked


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes an engine once for each that was asked for."""
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", asked_engines(), ids=str)


@pytest.fixture
def engines() -> list[Engine]:
    """Return all engines of engines.toml."""
    return known_engines()
