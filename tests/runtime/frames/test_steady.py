"""Flicker is damped, motion is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.bundle.manifest import OutputSpec
from fastseg_runtime.frames.steady import MOVED_SURE, SURE, Steadier, flicker

from tests.doubles.tiny_bundle import argmax_onnx, empty_plan, noise, strongest_channel

Array = np.ndarray[Any, Any]
SIZE = (4, 160)


def plain(class_id: int) -> Array:
    return np.full(SIZE, class_id, np.uint8)


def sure(probability: float) -> Array:
    return np.full(SIZE, round(probability * 255), np.uint8)


def test_a_class_of_one_unsure_frame_is_not_shown_and_one_that_stays_is() -> None:
    steadier = Steadier()
    shown = [int(steadier(plain(k), sure(0.5))[0, 0]) for k in (0, 1, 0, 1, 0, 2, 2, 2)]
    assert shown == [0, 0, 0, 0, 0, 0, 2, 2]


@pytest.mark.parametrize(("probability", "shown"), [(SURE + 0.005, 1), (SURE - 0.005, 0)])
def test_a_class_that_the_network_is_sure_of_is_shown_at_once(
    probability: float, shown: int
) -> None:
    steadier = Steadier()
    steadier(plain(0), sure(0.9))
    assert (steadier(plain(1), sure(probability)) == shown).all()


@pytest.mark.parametrize(
    ("probability", "shown"), [(MOVED_SURE + 0.005, 1), (MOVED_SURE - 0.005, 0)]
)
@pytest.mark.parametrize("step", [2, -2])  # of 160 pixels: 1/80
def test_a_thing_that_moves_is_believed_sooner(probability: float, shown: int, step: int) -> None:
    before, after = plain(0), plain(0)
    before[:, 80:82] = 1
    after[:, 80 + step : 82 + step] = 1
    steadier = Steadier()
    steadier(before, sure(0.9))
    result = steadier(after, sure(probability))
    assert (result[:, 80 + step : 82 + step] == shown).all()


def test_another_size_begins_anew_and_what_was_given_stays_as_it_is() -> None:
    steadier, first = Steadier(), plain(3)
    steadier(first, sure(0.1))
    small = np.zeros((2, 1), np.uint8)
    assert (steadier(small, small) == 0).all()
    assert (steadier(small + 1, small) == 0).all()
    assert (first == 3).all()


def test_flicker_is_the_share_of_pixels_that_go_and_come_back() -> None:
    first, second = np.array([[0, 0, 0, 1]]), np.array([[0, 1, 1, 1]])
    assert flicker(first, second, np.array([[0, 0, 2, 1]])) == 0.25


def test_a_stream_is_steadied_and_gives_the_confidence_if_asked_for(tmp_path: Path) -> None:
    plan = empty_plan(output=OutputSpec("logits"))
    plan = plan.with_artifact("cpu-fp32", argmax_onnx(kind="logits"), io={"logits": "float32 NCHW"})
    red = np.full_like(noise(), 100)
    red[..., 0] = 101
    green = np.full_like(red, 100)
    green[..., 1] = 101
    with RealtimeSegmentation(plan.write(tmp_path / "x.fastseg"), engines=2) as session:
        frames = [red, green, red, red, green, green, green]
        raw = [int(r.classes.max()) for r in session.stream(frames)]
        steady = [int(r.classes.max()) for r in session.stream(frames, steady=True)]
        sure = next(iter(session.stream([noise()], confidence=True)))
    assert raw == [0, 1, 0, 0, 1, 1, 1]
    assert steady == [0, 0, 0, 0, 0, 1, 1]
    assert sure.confidence is not None and sure.confidence.shape == noise().shape[:2]
    np.testing.assert_array_equal(sure.classes, strongest_channel(noise()))


def test_a_stream_of_an_artifact_without_confidence_says_what_steadiness_needs(
    bundle_path: Path,
) -> None:
    with (
        RealtimeSegmentation(bundle_path) as session,
        pytest.raises(ValueError, match="fastseg-export --confidence"),
    ):
        list(session.stream([noise()], steady=True))
