"""The promises about cost, held by the script that measures them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "tools/runtime_figures/measure_runtime.py"
NOISE = 0.02  # of such ratios on a machine with other work
pytestmark = pytest.mark.figures


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), "--json", "--cpu-time", "--soak-frames", "4000"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_infer_costs_no_more_than_3_percent_beside_the_engines_own_call(
    figures: dict[str, Any],
) -> None:
    ratios = {name: value for name, value in figures.items() if "bare call" in name}
    assert "infer() / bare call, cpu-fp32" in ratios
    assert max(ratios.values()) <= 1.03 + NOISE


def test_a_frame_is_resized_in_20_ms_by_numpy(figures: dict[str, Any]) -> None:
    assert figures["resize 1280x720 to 1024x512, numpy, ms"] <= 20


def test_a_stream_stays_below_250_megabytes(figures: dict[str, Any]) -> None:
    assert figures["peak RSS of a stream of 1280x720 frames, MB"] <= 250


def test_memory_stays_flat_over_thousands_of_frames(figures: dict[str, Any]) -> None:
    assert figures["soak, RSS at the end / after a tenth"] <= 1.01
