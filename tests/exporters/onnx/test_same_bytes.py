"""Same inputs, same bytes: each target converted twice, in processes of their own."""

import hashlib
from pathlib import Path

import pytest
from fastseg_exporters.convert.child import convert
from fastseg_exporters.convert.exporter import Conversion, Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_targets.target import load_target, target_names

pytestmark = pytest.mark.slow
VARYING: set[str] = set()  # targets whose converter gives other bytes each time: none so far
DATA = Calibration("synthetic:size=96x64,train=2,val=1,test=1", 2)


@pytest.mark.parametrize("name", target_names())
def test_a_target_converted_twice_is_the_same_bytes(
    name: str, source: NetworkSource, tmp_path: Path
) -> None:
    target = load_target(name)
    conversion = Conversion(Recipe(source, DATA), target, target.ladder[0])
    first, second = (hashes(conversion, tmp_path) for _ in range(2))
    assert first
    assert (first == second) == (name not in VARYING)


def hashes(conversion: Conversion, folder: Path) -> dict[str, str]:
    """Return name -> SHA-256 for every file of an artifact."""
    (converted,) = convert([conversion], folder, timeout_s=900)
    return {
        str(file.relative_to(converted.folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(converted.folder.rglob("*"))
        if file.is_file()
    }
