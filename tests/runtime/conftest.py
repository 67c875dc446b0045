from pathlib import Path

import pytest

from tests.doubles.tiny_bundle import full_plan


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A small whole bundle on disk."""
    return full_plan().write(tmp_path / "tiny.fastseg")


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the test in a folder of its own, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))
