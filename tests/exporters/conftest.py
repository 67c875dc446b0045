"""A tiny network on disk, and packages that join by entry points."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from fastseg_exporters.convert import child
from fastseg_exporters.convert.source import NetworkSource

from fastseg import CheckpointInfo, FastSegNet, save_checkpoint
from fastseg.data.camvid import CLASSES

PACKAGES = Path(__file__).with_name("packages")
WIDTH, HEIGHT = 96, 64


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained nano network for 96x64 images with CamVid's classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "tiny.safetensors"
    info = CheckpointInfo("nano", CLASSES, WIDTH, HEIGHT)
    save_checkpoint(path, FastSegNet(len(CLASSES), "nano", auxiliary=False), info)
    return path


@pytest.fixture
def source(checkpoint: Path) -> NetworkSource:
    """Return the tiny network as a job names it."""
    return NetworkSource(str(checkpoint))


@pytest.fixture
def outside_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the packages beside this file, here and in child processes."""
    monkeypatch.syspath_prepend(str(PACKAGES))
    path = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture
def converted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert in this process, which imports each converter once; a child has tests of its own."""

    def run_child(folder: Path, timeout_s: float, progress: object) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in a child, whose warnings go into a log
            return child.main(folder)

    monkeypatch.setattr(child, "run_child", run_child)
