from pathlib import Path

import pytest

from tests.doubles.tiny_bundle import full_plan


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A small whole bundle on disk."""
    return full_plan().write(tmp_path / "tiny.fastseg")
