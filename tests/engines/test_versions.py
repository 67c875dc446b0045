"""What is promised, brought to boards and written down is what make test-engines runs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from fastseg_runtime.engines.engine import ENGINES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/runtime.md").read_text("utf-8")
WHEELS = tomllib.loads((ROOT / "tools/remote_bench/wheels.toml").read_text("utf-8"))


def versions_of(package: str, engines: list[Any]) -> list[str]:
    return [engine.version for engine in engines if engine.package == package]


def table_row(start: str) -> list[str]:
    (row,) = re.findall(rf"^\| {re.escape(start)}[^|]*\|(.*)\|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


@pytest.mark.parametrize("package", ["onnxruntime", "ai-edge-litert", "openvino"])
def test_the_newest_that_is_run_is_the_one_of_the_constraints(
    package: str, engines: list[Any]
) -> None:
    newest = versions_of(package, engines)[-1]
    assert f"{package}=={newest}" in (ROOT / "constraints.txt").read_text("utf-8").splitlines()


def test_ci_runs_the_oldest_and_a_middle_one(engines: list[Any]) -> None:
    text = (ROOT / ".ci/run").read_text("utf-8")
    (asked,) = re.findall(r'^export ENGINES="(.*)"$', text, re.MULTILINE)
    oldest, *middle, _ = versions_of("onnxruntime", engines)
    first, second = asked.split()
    assert first == oldest and second in middle


@pytest.mark.slow  # the converters of phones take long to load
def test_the_page_has_the_versions_that_are_run_and_promises_the_oldest(engines: list[Any]) -> None:
    from fastseg_exporters.tflite.to_tflite import MIN_TFLITE_RUNTIME

    oldest = {name: engine.min_version for name, engine in ENGINES.items()}
    promised = {
        "ONNX Runtime (": ("onnxruntime", oldest["onnxruntime"]),
        "OpenVINO (": ("openvino", oldest["openvino"]),
        "ai-edge-litert (": ("ai-edge-litert", oldest["litert"]),
        "tflite-runtime,": ("tflite-runtime", MIN_TFLITE_RUNTIME),
    }
    for row, (package, minimum) in promised.items():
        versions = versions_of(package, engines)
        assert table_row(row)[0] == ", ".join(versions)
        assert table_row(row)[1].removesuffix(", not int8") == minimum
        assert versions[0] == f"{minimum}.0"
    assert table_row("PyTorch")[1] == oldest["pytorch"]
    assert table_row("coremltools")[1] == oldest["coreml"]
    assert table_row("TensorRT (")[1].startswith(f"{oldest['tensorrt']}, not run")


@pytest.mark.parametrize("python", WHEELS)
def test_what_is_brought_to_a_board_is_run_and_is_what_the_page_says_of_its_python(
    python: str, engines: list[Any]
) -> None:
    row = table_row(python if python in ("3.8", "3.9", "3.10") else "3.11 to 3.14")
    openvino = WHEELS[python]["x86_64"]["openvino"][0]
    assert openvino in versions_of("openvino", engines) and openvino == row[2]
    for pins in WHEELS[python].values():
        assert pins["onnxruntime"][0] in versions_of("onnxruntime", engines)
        assert pins["onnxruntime"][0] == row[0]
        if "ai-edge-litert" in pins:
            assert pins["ai-edge-litert"][0] in versions_of("ai-edge-litert", engines)
            assert row[1] == f"ai-edge-litert {pins['ai-edge-litert'][0]}"
