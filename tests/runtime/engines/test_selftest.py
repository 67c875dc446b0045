"""Every scene of a bundle counts by a limit of its own, once for each engine and artifact."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime import NoBackendError, RealtimeSegmentation
from fastseg_runtime.bundle.manifest import Artifact
from fastseg_runtime.engines import opening, selection
from fastseg_runtime.engines.selftest import (
    MAX_PASSED,
    PassedTests,
    forget_passed_tests,
    required_agreement,
    run_selftest,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.tiny_bundle import (
    HEIGHT,
    WIDTH,
    BundlePlan,
    argmax_onnx,
    empty_plan,
    noise,
    strongest_channel,
)

pytestmark = pytest.mark.usefixtures("own_folder")
FRACTIONS = st.floats(0, 1)


def artifact(each: Any = None, worst: Any = None, precision: str = "fp32") -> Artifact:
    extra = {"selftest_agreements": each, "selftest_agreement": worst}
    return Artifact("x", "onnx", precision, "m", (), extra=extra)


def differing(share: float) -> np.ndarray[Any, Any]:
    """The class map of noise(), wrong in the first rows."""
    classes_HW = strongest_channel(noise())
    rows = round(share * HEIGHT)
    classes_HW[:rows] = (classes_HW[:rows] + 1) % 3
    return classes_HW


def several(*shares: float, **extra: Any) -> BundlePlan:
    """A bundle whose scenes differ from what its network gives in some shares of the pixels."""
    plan = empty_plan().with_artifact("cpu-fp32", argmax_onnx(), extra=extra)
    for share in shares:
        plan = plan.with_scene(noise(), differing(share))
    return plan


def scenes_run(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    """How many scenes an opening runs."""
    counts: list[int] = []

    def counted(infer: Any, scenes: Any, *rest: Any) -> Any:
        counts.append(len(scenes))
        return run_selftest(infer, scenes, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(opening, "run_selftest", counted)
        RealtimeSegmentation(path, **options).close()
    return sum(counts)


@given(st.lists(FRACTIONS, min_size=1, max_size=6), FRACTIONS)
def test_a_limit_is_below_what_was_recorded_and_above_nothing(each: list[float], w: float) -> None:
    for scene, recorded in enumerate(each):
        limit = required_agreement(artifact(each, w), scene)
        assert 0 <= limit <= max(0.0, recorded - 0.02 + 1e-9)
        assert limit >= recorded - 0.22 - 1e-9
    assert required_agreement(artifact(each, w), len(each)) == max(0.0, w - 0.02)
    assert required_agreement(artifact()) == 0.99


def test_a_scene_of_its_own_limit_does_not_loosen_the_others(tmp_path: Path) -> None:
    # One limit for all would be the 0.5 of the hard scene, and let 0.75 pass on the easy one.
    recorded = {"selftest_agreement": 0.5, "selftest_agreements": [1.0, 0.5]}
    RealtimeSegmentation(several(0, 0.5, **recorded).write(tmp_path / "good.fastseg")).close()
    path = several(0.25, 0.5, **recorded).write(tmp_path / "bad.fastseg")
    with pytest.raises(NoBackendError, match=r"75\.0% of the pixels, 98\.0% are needed \(scene 0"):
        RealtimeSegmentation(path)


def test_an_engine_that_fails_on_a_hard_scene_alone_is_rejected(tmp_path: Path) -> None:
    recorded = {"selftest_agreements": [1.0, 1.0]}
    path = several(0, 0.25, **recorded).write(tmp_path / "b.fastseg")
    with pytest.raises(NoBackendError, match=r"75\.0% of the pixels, 98\.0% are needed \(scene 1"):
        RealtimeSegmentation(path)
    path = several(0, 0.25).write(tmp_path / "old.fastseg")  # nothing recorded
    with pytest.raises(NoBackendError, match=r"99\.0% are needed"):
        RealtimeSegmentation(path)


def test_all_scenes_run_once_and_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = several(0, 0, 0).write(tmp_path / "b.fastseg")
    assert scenes_run(path, monkeypatch) == 3
    assert scenes_run(path, monkeypatch) == 1
    moved = path.rename(tmp_path / "moved.fastseg")  # its name does not count
    assert scenes_run(moved, monkeypatch) == 1


@pytest.mark.parametrize(
    "changed", ["version", "threads", "device", "cpu", "artifact", "scene", "limits"]
)
def test_whatever_decides_what_is_computed_counts(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = several(0, 0)
    assert scenes_run(plan.write(tmp_path / "a.fastseg"), monkeypatch) == 2
    options = {"threads": {"threads": 1}, "device": {"device": "cpu"}}.get(changed, {})
    if changed == "version":
        real = selection.probe
        monkeypatch.setattr(opening, "probe", lambda name: replace(real(name), version="99.0"))
    elif changed == "cpu":
        monkeypatch.setattr(opening, "processor_facts", lambda: "another CPU")
    elif changed == "artifact":
        network = argmax_onnx(metadata={"other": "bytes"})
        plan = empty_plan().with_artifact("cpu-fp32", network)
        plan = plan.with_scene(noise(), differing(0)).with_scene(noise(), differing(0))
    elif changed == "scene":
        plan = plan.with_scene(noise(seed=1), strongest_channel(noise(seed=1)))
    elif changed == "limits":
        plan = several(0, 0, selftest_agreements=[1.0, 1.0])
    path = plan.write(tmp_path / "b.fastseg")
    assert scenes_run(path, monkeypatch, **options) == len(plan.manifest.selftest)


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("input", {"mean": 127.0}),
        ("output", {"cover": "image"}),
        ("classes", {"name": "yellow"}),  # one more
        ("artifacts", {"precision": "fp16"}),
        ("artifacts", {"io": {"image": "uint8 NHWC"}}),
        ("artifacts", {"entry": "artifacts/other/model.bin"}),
    ],
    ids=str,
)
def test_whatever_the_manifest_says_of_what_is_computed_counts(
    part: str, fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = several(0, 0).with_artifact("other", argmax_onnx(), "bin")
    cpu, other = plan.manifest.artifacts
    both = replace(cpu, files=cpu.files + other.files)
    plan = replace(plan, manifest=replace(plan.manifest, artifacts=(both,)))
    assert scenes_run(plan.write(tmp_path / "a.fastseg"), monkeypatch) == 2
    was = getattr(plan.manifest, part)
    kept = was if part == "classes" else ()
    now = (*kept, replace(was[-1], **fields)) if isinstance(was, tuple) else replace(was, **fields)
    plan = replace(plan, manifest=replace(plan.manifest, **{part: now}))
    assert scenes_run(plan.write(tmp_path / "b.fastseg"), monkeypatch) == 2


def test_what_failed_is_not_remembered(tmp_path: Path) -> None:
    path = several(0, 0.5).write(tmp_path / "b.fastseg")
    for _ in range(2):
        with pytest.raises(NoBackendError, match=r"50\.0% of the pixels"):
            RealtimeSegmentation(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"[" * 60_000, b'{"' + b"x" * 70_000])
def test_a_damaged_memory_is_no_memory(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = several(0, 0).write(tmp_path / "b.fastseg")
    scenes_run(path, monkeypatch)
    (tmp_path / "cache/selftests.json").write_bytes(content)
    assert scenes_run(path, monkeypatch) == 2
    assert scenes_run(path, monkeypatch) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_the_memory_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir()
    os.mkfifo(tmp_path / "cache/selftests.json")
    path = several(0, 0).write(tmp_path / "b.fastseg")
    assert scenes_run(path, monkeypatch) == 2


def test_a_home_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", "/dev/null/nowhere")
    path = several(0, 0).write(tmp_path / "b.fastseg")
    assert scenes_run(path, monkeypatch) == 2
    assert scenes_run(path, monkeypatch) == 2


def test_the_memory_is_bounded_and_can_be_cleared(tmp_path: Path) -> None:
    for number in range(MAX_PASSED + 1):
        PassedTests(number).note()
    assert len(json.loads((tmp_path / "cache/selftests.json").read_text())) == MAX_PASSED
    assert not PassedTests(0).has_passed() and PassedTests(MAX_PASSED).has_passed()
    assert os.listdir(tmp_path / "cache") == ["selftests.json"]  # nothing half written
    forget_passed_tests()
    assert not PassedTests(MAX_PASSED).has_passed()


def test_an_empty_self_test_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = empty_plan().with_artifact("cpu-fp32", argmax_onnx()).write(tmp_path / "b.fastseg")
    with RealtimeSegmentation(path) as session:
        assert session.info.selftest_agreement is None
    assert "has no self-test: nothing tells whether cpu-fp32 computes" in caplog.text
    assert np.array_equal(session.input.width, WIDTH)
