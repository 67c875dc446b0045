"""What the exporter says of a bundle in words: bounds, and int8 that is no faster."""

import dataclasses

import pytest
from fastseg_exporters.artifact_record import bounds_ms
from fastseg_exporters.tables import bound_lines, is_installed, slower_than_float, target_rows
from fastseg_runtime.manifest import (
    Artifact,
    ClassInfo,
    InputSpec,
    Manifest,
    ModelInfo,
    OutputSpec,
)
from fastseg_targets.profile import load_target, target_names

MANIFEST = Manifest(
    name="street",
    created="",
    tool="test",
    model=ModelInfo("base", parameters=2_000_000, macs=5_000_000_000, checkpoint_sha256="0" * 64),
    classes=(ClassInfo("road", (1, 2, 3)),),
    input=InputSpec(1024, 512),
    output=OutputSpec(),
)


def artifact(target: str, latency_ms: float) -> Artifact:
    return Artifact(target, "onnx", "x", "e", (), verification={"latency_ms": latency_ms})


def test_int8_that_is_slower_than_float_is_told() -> None:
    pair = (artifact("cpu-fp32", 10.0), artifact("cpu-int8", 12.5))
    assert slower_than_float(dataclasses.replace(MANIFEST, artifacts=pair)) == [
        "cpu-int8 is slower than cpu-fp32 on this machine (1.25x the time)"
    ]


def test_int8_that_is_faster_or_has_no_sister_is_not_mentioned() -> None:
    several = (artifact("cpu-fp32", 10.0), artifact("cpu-int8", 4.0), artifact("jetson-int8", 99.0))
    assert slower_than_float(dataclasses.replace(MANIFEST, artifacts=several)) == []


def test_a_bound_is_the_work_at_the_boards_peak_and_is_called_a_bound() -> None:
    bounds = bounds_ms(MANIFEST, load_target("jetson-int8"), "int8")
    assert bounds["orin-nano"] == pytest.approx(1e3 * 2 * 5e9 / 33423.4e9, abs=1e-3)
    held = dataclasses.replace(artifact("jetson-int8", 1.0), extra={"bounds_ms": bounds})
    lines = bound_lines(dataclasses.replace(MANIFEST, artifacts=(held,)))
    assert len(lines) == len(bounds)
    for line in lines:
        assert "bound, not a prediction: no faster than" in line


def test_lower_precision_never_has_a_higher_bound() -> None:
    by_precision = [
        bounds_ms(MANIFEST, load_target("jetson-int8"), name) for name in ("fp32", "fp16", "int8")
    ]
    for board in by_precision[0]:
        fp32, fp16, int8 = (bounds[board] for bounds in by_precision)
        assert fp32 >= fp16 >= int8 > 0


def test_every_target_says_what_it_needs_and_what_proves_it() -> None:
    for row in target_rows(map(load_target, target_names())):
        assert row["needs"].startswith("pip install 'fastseg-edge[")
        assert row["verified_by"] != "its own backend", row["target"]


def test_an_extra_is_here_only_with_all_that_it_brings() -> None:
    assert is_installed("train")
    assert not is_installed("no-such-module")
