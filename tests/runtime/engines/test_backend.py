import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastseg_runtime.engines.backend import load_backend
from fastseg_runtime.engines.engine import ENGINES


def test_an_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no backend 'caffe'; choose one of coreml, litert"):
        load_backend("caffe")


def test_every_backend_of_the_table_is_a_file_of_the_package() -> None:
    folder = Path(sys.modules["fastseg_runtime"].__file__ or "").parent
    for engine in ENGINES.values():
        module, name = engine.location.split(":")
        text = (folder.parent / f"{module.replace('.', '/')}.py").read_text()
        assert re.search(rf"class {name}\b", text)


def test_a_distribution_adds_a_backend_by_an_entry_point(tmp_path: Path) -> None:
    (tmp_path / "their_engine.py").write_text("class Backend:\n    pass\n")
    info = tmp_path / "their_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fastseg.backends]\ntheirs = their_engine:Backend\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from fastseg_runtime.engines.backend import load_backend\n"
        "print(load_backend('theirs').__module__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "their_engine"
