"""Same inputs, same bytes: every target converted in two processes that differ where they may."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastseg_exporters.convert.exporter import find_exporter
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_targets.target import load_target, target_names

pytestmark = pytest.mark.slow
# Targets whose converter gives other bytes each time: Rockchip's toolkit writes addresses of its
# own memory into the file. What it computes is the same.
VARYING = {"rockchip-fp16", "rockchip-int8"}
CACHE = cache_folder()  # the user's own, before tests get one of theirs
HERE = [
    name
    for name in target_names()
    if not find_exporter(load_target(name).exporter).missing_toolchain
]
# In one process for all targets: the imports of the converters take longer than they do.
CONVERT_ALL = """
import sys
from pathlib import Path
from fastseg_exporters.convert.exporter import Conversion, Recipe, Request, load_exporter
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_targets.target import load_target
checkpoint, folder, *names = sys.argv[1:]
data = Calibration("synthetic:size=96x64,train=2,val=1,test=1", 2)
recipe = Recipe(NetworkSource(checkpoint), data)
for name in names:
    target, out_dir = load_target(name), Path(folder, name)
    out_dir.mkdir(parents=True)
    conversion = Conversion(recipe, target, target.ladder[0])
    load_exporter(target.exporter)(Request(recipe.source.open(), conversion), out_dir)
"""


@pytest.fixture(scope="module")
def folders(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return where each process put the artifacts: other hash seeds, other numbers of threads."""
    made = []
    for seed in ("1", "2"):
        made.append(tmp_path_factory.mktemp("process") / "artifacts")
        subprocess.run(
            [sys.executable, "-c", CONVERT_ALL, str(checkpoint), str(made[-1]), *HERE],
            env={
                **os.environ,
                "FASTSEG_CACHE": str(CACHE),
                "PYTHONHASHSEED": seed,
                "OMP_NUM_THREADS": seed,
            },
            check=True,
            capture_output=True,
        )
    return made


@pytest.mark.parametrize("name", target_names())
def test_a_target_converted_twice_is_the_same_bytes(name: str, folders: list[Path]) -> None:
    if name not in HERE:
        pytest.skip(find_exporter(load_target(name).exporter).missing_toolchain)
    first, second = (hashes(folder / name) for folder in folders)
    assert first
    assert (first == second) == (name not in VARYING)


def hashes(folder: Path) -> dict[str, str]:
    """Return name -> SHA-256 for every file of an artifact."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
