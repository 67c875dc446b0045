"""A session that runs for months: another network between two frames, and frames that come late."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime import NoBackendError, RealtimeSegmentation
from fastseg_runtime.bundle.manifest import ClassInfo, OutputSpec

from tests.doubles.tiny_bundle import (
    BundlePlan,
    argmax_onnx,
    empty_plan,
    full_plan,
    noise,
    strongest_channel,
)


def weakest_channel(image_HW3: Any) -> Any:
    return image_HW3.argmin(axis=2).astype(np.uint8)


def weakest_plan() -> BundlePlan:
    """Another network with the same classes."""
    network, image = argmax_onnx().replace(b"ArgMax", b"ArgMin"), noise()
    return empty_plan().with_artifact("cpu-fp32", network).with_scene(image, weakest_channel(image))


@pytest.fixture
def other_path(tmp_path: Path) -> Path:
    return weakest_plan().write(tmp_path / "other.fastseg")


def test_a_swap_takes_the_place_of_the_network(bundle_path: Path, other_path: Path) -> None:
    frame = noise(60, 70)
    with RealtimeSegmentation(bundle_path) as session:
        with RealtimeSegmentation(other_path) as other:
            expected = other.infer(frame)
        session.swap(other_path)
        assert np.array_equal(session.infer(frame), expected)
        assert session.timing["frames"] == 1
        session.swap(bundle_path)
        assert np.array_equal(session.infer(noise()), strongest_channel(noise()))


@pytest.mark.parametrize("engines", [1, 2])
def test_no_frame_is_lost_or_wrong_while_networks_are_swapped(
    engines: int, bundle_path: Path, other_path: Path
) -> None:
    frame, swapped = noise(seed=3), threading.Event()
    answers, seen = [strongest_channel(frame), weakest_channel(frame)], [0, 0]
    with RealtimeSegmentation(bundle_path, engines=engines) as session:

        def swap() -> None:
            end_s = time.monotonic() + 60
            try:
                for done in count():
                    session.swap(other_path)
                    session.swap(bundle_path)
                    if done >= 3 and min(seen) > 0:  # on a busy machine frames wait for long
                        return
                    assert time.monotonic() < end_s, seen
            finally:
                swapped.set()

        def source() -> Any:
            while not swapped.is_set():
                yield frame

        with ThreadPoolExecutor(1) as pool:
            swapping = pool.submit(swap)
            for number, result in enumerate(session.stream(source())):
                assert result.index == number
                which = [np.array_equal(result.classes, answer) for answer in answers]
                assert which.count(True) == 1
                seen[which.index(True)] += 1
            swapping.result()
        assert session.timing["frames"] == min(sum(seen), 1000)
    assert min(seen) > 0


def wrong_selftest() -> BundlePlan:
    scene = (noise(), weakest_channel(noise()))
    return empty_plan().with_artifact("cpu-fp32", argmax_onnx()).with_scene(*scene)


def logits_plan() -> BundlePlan:
    plan = empty_plan(output=OutputSpec("logits"))
    onnx = argmax_onnx(kind="logits")
    return plan.with_artifact("cpu-fp32", onnx, io={"logits": "float32 NCHW"})


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        (wrong_selftest(), NoBackendError, "self-test"),
        (empty_plan().with_artifact("cpu-fp32", argmax_onnx()), ValueError, "has no self-test"),
        (full_plan(classes=[ClassInfo(n, (0, 0, 0)) for n in "abc"]), ValueError, "other classes"),
        (logits_plan(), ValueError, "another output"),
    ],
)
def test_a_network_that_does_not_fit_or_pass_leaves_the_old_one(
    plan: BundlePlan, error: type[Exception], message: str, bundle_path: Path, tmp_path: Path
) -> None:
    path = plan.write(tmp_path / "bad.fastseg")
    with RealtimeSegmentation(bundle_path, selftest=False) as session:
        before = session.info
        with pytest.raises(error, match=message):
            session.swap(path)
        with pytest.raises(FileNotFoundError):
            session.swap(tmp_path / "absent.fastseg")
        assert session.info is before
        assert np.array_equal(session.infer(noise()), strongest_channel(noise()))


def test_what_gave_a_confidence_goes_on_to_give_one(bundle_path: Path, other_path: Path) -> None:
    with RealtimeSegmentation(bundle_path) as session:
        assert not session.gives_confidence
        session.gives_confidence = True  # of an artifact that was exported with --confidence
        with pytest.raises(ValueError, match="gives no confidence; export it with --confidence"):
            session.swap(other_path)


def test_a_closed_session_is_not_swapped(bundle_path: Path, other_path: Path) -> None:
    session = RealtimeSegmentation(bundle_path)
    session.close()
    with pytest.raises(RuntimeError, match="session is closed"):
        session.swap(other_path)


def test_frames_after_their_deadline_are_counted_and_said_once_in_a_while(
    bundle_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with RealtimeSegmentation(bundle_path, deadline_ms=0.001) as session:
        for _ in range(2):
            session.infer(noise())
        assert session.timing["late"] == 2
        assert [result.late for result in session.stream([noise()] * 2)] == [1, 2]
    said = [text for text in caplog.messages if "more than deadline_ms=0.001" in text]
    assert len(said) == 1
    with RealtimeSegmentation(bundle_path, deadline_ms=60_000) as session:
        session.infer(noise())
        assert session.timing["late"] == 0
        assert [result.late for result in session.stream([noise()])] == [0]


def test_the_wait_for_an_engine_counts_too(bundle_path: Path) -> None:
    with RealtimeSegmentation(bundle_path, deadline_ms=100) as session:
        with session._pool.engine():
            waiting = threading.Thread(target=session.infer, args=(noise(),), daemon=True)
            waiting.start()
            time.sleep(0.2)
        waiting.join(60)
        assert session.timing["late"] == 1


@pytest.mark.parametrize("wish", [0, -5, float("nan"), "50", [50]])
def test_a_deadline_that_makes_no_sense_is_refused(wish: Any, bundle_path: Path) -> None:
    with pytest.raises(ValueError, match="expected milliseconds above 0"):
        RealtimeSegmentation(bundle_path, deadline_ms=wish)
