"""Core ML predicts on macOS alone: here a double of coremltools stands in, and nothing proves
that Core ML itself agrees."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastseg_runtime import NoBackendError, RealtimeSegmentation
from fastseg_runtime.engines import opening
from fastseg_runtime.engines.selection import Availability

from tests.doubles.tiny_bundle import BundlePlan, empty_plan, entry_of, noise, strongest_channel

PACKAGE = "artifacts/ios-fp16/model.mlpackage"


class FakeModel:
    """Computes the strongest channel from a Pillow image, as int32 (1, H, W)."""

    opened: list[tuple[str, str]] = []  # noqa: RUF012

    def __init__(self, path: str, compute_units: str) -> None:
        assert Path(path, "Manifest.json").is_file()
        self.opened.append((Path(path).name, compute_units))

    def get_spec(self) -> Any:
        image = SimpleNamespace(
            name="image", type=SimpleNamespace(WhichOneof=lambda field: "imageType")
        )
        output = SimpleNamespace(name="classes")
        return SimpleNamespace(description=SimpleNamespace(input=[image], output=[output]))

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        image = inputs["image"]
        assert image.mode == "RGB"
        return {"classes": strongest_channel(np.asarray(image))[None].astype(np.int32)}


@pytest.fixture(autouse=True)
def core_ml(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeModel]]:
    units = SimpleNamespace(ALL="all", CPU_ONLY="cpu", CPU_AND_GPU="gpu", CPU_AND_NE="ne")
    double = SimpleNamespace(ComputeUnit=units, models=SimpleNamespace(MLModel=FakeModel))
    monkeypatch.setitem(sys.modules, "coremltools", double)
    monkeypatch.setattr(opening, "probe", lambda name: Availability(name, True, "9.0"))
    FakeModel.opened.clear()
    sys.modules.pop("fastseg_runtime.engines.backend_coreml", None)
    importlib.import_module("fastseg_runtime.engines.backend_coreml")
    yield FakeModel
    sys.modules.pop("fastseg_runtime.engines.backend_coreml", None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bundle whose artifact is a folder."""
    members = {f"{PACKAGE}/Manifest.json": b"{}", f"{PACKAGE}/Data/weights.bin": b"weights"}
    plan = empty_plan().with_artifact(
        "ios-fp16", b"", "coreml", requires={"backend": "coreml"}, io={"image": "image"}
    )
    files = tuple(entry_of(name, content) for name, content in members.items())
    artifact = replace(plan.manifest.artifacts[0], entry=PACKAGE, files=files)
    plan = BundlePlan(replace(plan.manifest, artifacts=(artifact,)), members)
    image = noise()
    return plan.with_scene(image, strongest_channel(image)).write(tmp_path / "ios.fastseg")


def test_a_package_is_unpacked_and_runs_on_all_units(path: Path, core_ml: type[FakeModel]) -> None:
    frame = noise(seed=3)
    with RealtimeSegmentation(path) as session:
        assert np.array_equal(session.infer(frame), strongest_channel(frame))
        assert session.info.selftest_agreement == 1.0
    assert core_ml.opened == [("model.mlpackage", "all")]


def test_compute_units_are_chosen_by_name(path: Path, core_ml: type[FakeModel]) -> None:
    RealtimeSegmentation(path, device="cpu_and_ne").close()
    assert core_ml.opened == [("model.mlpackage", "ne")]


def test_an_unknown_unit_lists_the_known_ones(path: Path) -> None:
    with pytest.raises(NoBackendError, match="coreml: no device 'npu'; choose one of auto, all"):
        RealtimeSegmentation(path, device="npu")
