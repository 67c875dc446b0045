import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tegrastats_lines():
    """The captured tegrastats lines, without their comments."""
    path = os.environ.get("FASTSEG_TEGRASTATS")
    if not path:
        pytest.skip("FASTSEG_TEGRASTATS is unset: no captured tegrastats lines")
    lines = Path(path).read_text("utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]
