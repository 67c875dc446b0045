"""The ablations: every changed network works, and the runner trains, times and resumes."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastseg import DeployGraph

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "tools" / "ablations" / "run_ablations.py"
FACTORIES = (
    "reference",
    "fused_at_8",
    "concat_fusion",
    "pyramid_pooling",
    "dilated",
    "quarter_skip",
    "dupsample",
)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(RUNNER.parent)
    return importlib.import_module("ablated_networks")


@pytest.mark.parametrize("factory", FACTORIES)
def test_each_network_segments_any_size_and_has_a_deploy_graph(
    networks: ModuleType, factory: str
) -> None:
    torch.manual_seed(0)
    model = getattr(networks, factory)(5).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 50, 70)).shape == (1, 5, 50, 70)
        frame_1HW3 = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
        image_13HW = ((frame_1HW3.float() - 128) / 64).permute(0, 3, 1, 2)
        ids_1HW = DeployGraph(model, 96, 64)(frame_1HW3)
        assert (ids_1HW == model(image_13HW).argmax(1)).float().mean() > 0.999


def test_each_network_but_the_first_differs_from_the_reference(networks: ModuleType) -> None:
    shapes = [
        [(name, tuple(value.shape)) for name, value in getattr(networks, f)(5).state_dict().items()]
        for f in FACTORIES
    ]
    image = torch.randn(1, 3, 64, 64)
    maps = networks.dilated(5).eval().features(image)
    assert [m.shape[-1] for m in maps] == [8, 4, 4]
    assert all(other != shapes[0] for f, other in zip(FACTORIES, shapes, strict=True)
               if f not in ("reference", "dilated"))  # fmt: skip


@pytest.mark.slow
def test_the_runner_trains_times_and_does_nothing_twice(tmp_path: Path) -> None:
    data = "synthetic:size=96x64,train=8,val=2,test=2"
    options = ["--data", data, "--epochs", "1", "--crop", "64x64", "--batch", "4"]
    options += ["--only", "reference", "enlarged"]
    command = [sys.executable, str(RUNNER), "--out", str(tmp_path), *options]
    first = subprocess.run(command, text=True, capture_output=True, timeout=900)
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "ablations.json").read_text())
    assert len(rows) == 2 and all(row["latency_ms"] > 0 for row in rows)
    assert rows[0]["name"] == "reference" and "| nothing changed |" in first.stdout
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    again = subprocess.run(command, text=True, capture_output=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()} == before
    other = subprocess.run(
        [*command, "--init", "nano-synthetic"], text=True, capture_output=True, timeout=300
    )
    assert other.returncode == 1
    assert "was begun with init '', not 'nano-synthetic'" in " ".join(other.stderr.split())
