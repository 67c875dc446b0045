"""A runtime with faults on demand and a bundle that passes for one, for tests of the transport."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import fastseg_runtime.metrics
from fastseg_runtime.manifest import (
    Artifact,
    ClassInfo,
    FileEntry,
    InputSpec,
    Manifest,
    ModelInfo,
    OutputSpec,
)

STUB = Path(__file__).parents[1] / "remote_bench/stub_runtime.py"
_USE_FACTS = """
from .stub import RealtimeSegmentation as _Stub


class RealtimeSegmentation(_Stub):
    def __init__(self, model_path, **options):
        super().__init__(__file__.replace("__init__.py", "facts.json"), **options)
"""


def make_runtime(folder: Path, **facts: object) -> Path:
    """Return a folder to send instead of fastseg_runtime; facts are those of stub_runtime.py."""
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(_USE_FACTS)
    (folder / "facts.json").write_text(json.dumps(facts))
    shutil.copy(STUB, folder / "stub.py")
    shutil.copy(fastseg_runtime.metrics.__file__, folder / "metrics.py")
    return folder


def make_bundle(path: Path, bytes_in_it: int = 100_000) -> Path:
    """Write a bundle whose one artifact is zeros: whole for the reader, of use to nobody."""
    content = bytes(bytes_in_it)
    entry = FileEntry("artifacts/cpu/model.onnx", len(content), hashlib.sha256(content).hexdigest())
    manifest = Manifest(
        name=path.stem,
        created="2026-01-01T00:00:00Z",
        tool="a test",
        model=ModelInfo("nano", 1000, 1_000_000, "0" * 64),
        classes=(ClassInfo("road", (0, 0, 0)), ClassInfo("sky", (1, 1, 1))),
        input=InputSpec(64, 32),
        output=OutputSpec(),
        artifacts=(Artifact("cpu", "onnx", "fp32", entry.path, (entry,)),),
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", manifest.to_json())
        archive.writestr(entry.path, content)
    return path
