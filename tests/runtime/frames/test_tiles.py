"""Large frames: in tiles, a part alone, and shrunk by averages."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.bundle.manifest import OutputSpec
from fastseg_runtime.engines.backend_onnxruntime import OnnxRuntimeBackend
from fastseg_runtime.frames.tiles import MAX_TILES, TiledFrames, _places, grid_of
from fastseg_runtime.masks import Box

from tests.doubles.tiny_bundle import (
    HEIGHT,
    WIDTH,
    argmax_onnx,
    empty_plan,
    full_plan,
    strongest_channel,
)

Array = np.ndarray[Any, Any]


@pytest.fixture
def with_logits(tmp_path: Path) -> Path:
    plan = empty_plan(output=OutputSpec("logits"))
    plan = plan.with_artifact("cpu-fp32", argmax_onnx(kind="logits"), io={"logits": "float32 NCHW"})
    return plan.write(tmp_path / "logits.fastseg")


@pytest.fixture
def with_ids(tmp_path: Path) -> Path:
    return full_plan().write(tmp_path / "ids.fastseg")


def red_with_a_far_pedestrian() -> tuple[Array, tuple[slice, slice]]:
    """A frame four times the input's size, and where its one small green thing is."""
    frame = np.full((4 * HEIGHT, 4 * WIDTH, 3), (101, 100, 99), np.uint8)
    place = slice(41, 43), slice(69, 71)
    frame[place] = (100, 102, 99)
    return frame, place


def test_where_neither_frame_nor_tile_is_sure_the_class_is_the_frame_s() -> None:
    class Unsure:
        gives_confidence = True

        def infer(self, frame: Array, out: Array, swap: bool, sure: Array) -> None:
            out.fill(2)
            sure.fill(0)

    frame = np.zeros((40, 60, 3), np.uint8)
    tiled = TiledFrames((40, 60), 2)
    tiled._tiled.fill(200)  # as memory that was not written, or frames before
    tiled._tiled_sure.fill(90)
    ids = np.empty((40, 60), np.uint8)
    tiled.run(Unsure(), frame, ids, False)  # type: ignore[arg-type]
    assert (ids == 2).all()


@pytest.mark.parametrize("bundle", ["with_logits", "with_ids"])
def test_what_is_small_in_a_large_frame_is_found_in_tiles(
    bundle: str, request: pytest.FixtureRequest
) -> None:
    frame, place = red_with_a_far_pedestrian()
    with RealtimeSegmentation(request.getfixturevalue(bundle)) as session:
        once = session.infer(frame)
        tiled = session.infer(frame, tiles=(4, 4))
        out = np.empty(frame.shape[:2], np.uint8)
        assert session.infer(frame, out, tiles=4) is out
    assert (once == 0).all()
    assert (tiled[place] == 1).mean() > 0.7
    assert (tiled != strongest_channel(frame)).sum() < 6
    np.testing.assert_array_equal(out, tiled)


def test_a_plain_frame_shows_no_seam_and_a_batch_is_tiled_frame_by_frame(with_ids: Path) -> None:
    frame = np.full((97, 151, 3), (10, 20, 30), np.uint8)
    with RealtimeSegmentation(with_ids) as session:
        assert (session.infer(frame, tiles=(3, 2)) == 2).all()
        both = session.infer(np.stack([frame, frame[..., ::-1]]), tiles=(3, 2))
    assert (both[0] == 2).all() and (both[1] == 0).all()


def test_the_surest_of_frame_and_tiles_decides_and_says_how_sure(with_logits: Path) -> None:
    frame, place = red_with_a_far_pedestrian()
    confidence = np.empty(frame.shape[:2], np.uint8)
    with RealtimeSegmentation(with_logits) as session:
        session.infer(frame, confidence=confidence)
        once = confidence[place].mean()
        session.infer(frame, confidence=confidence, tiles=4)
        assert confidence[place].mean() > once
        assert confidence.min() > 80  # a third: never below what three classes share


def test_a_frame_in_tiles_is_timed_as_one_with_all_its_runs(
    with_logits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, run_s = OnnxRuntimeBackend.infer, 0.005

    def infer_slowly(backend: OnnxRuntimeBackend, image_1HW3: Array) -> Any:
        time.sleep(run_s)
        return infer(backend, image_1HW3)

    monkeypatch.setattr(OnnxRuntimeBackend, "infer", infer_slowly)
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    with RealtimeSegmentation(with_logits) as session:
        session.infer(frame)
        start = time.perf_counter()
        session.infer(frame, tiles=(4, 4))
        wall_s = time.perf_counter() - start
        assert session.timing["frames"] == 2
        assert (4 * 4 + 1) * run_s <= session.newest_stages_s[1]
        assert sum(session.newest_stages_s) < wall_s
        session.infer(frame, tiles=2, region=(0, 0, 9, 9))
        session.infer(frame)
        assert session.timing["frames"] == 4


def test_a_region_alone_is_run_and_the_rest_is_nothing(with_logits: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    box, inside = Box(10, 5, 70, 45), (slice(5, 45), slice(10, 70))
    confidence = np.full((50, 80), 7, np.uint8)
    with RealtimeSegmentation(with_logits) as session:
        whole = session.infer(frame, confidence=confidence, region=box)
        alone = session.infer(frame[inside])
        tiled = session.infer(frame, region=box, tiles=2)
    np.testing.assert_array_equal(whole[inside], alone)
    outside = np.ones((50, 80), bool)
    outside[inside] = False
    assert (whole[outside] == 255).all() and (confidence[outside] == 0).all()
    assert (tiled[outside] == 255).all() and (tiled[inside] < 3).all()
    assert confidence[inside].all()


def test_a_map_may_be_written_over_the_frame_that_it_is_of(with_logits: Path) -> None:
    rng, box = np.random.default_rng(0), Box(10, 5, 70, 45)
    frames = rng.integers(0, 256, (2, 50, 80, 3), np.uint8)
    with RealtimeSegmentation(with_logits) as session:
        for options in ({}, {"region": box}, {"region": box, "tiles": 2}, {"tiles": 2}):
            confidence = np.empty((2, 50, 80), np.uint8)
            expected = session.infer(frames, confidence=confidence, **options)
            shared = frames.copy()
            session.infer(shared, shared[..., 0], shared[..., 2], **options)
            np.testing.assert_array_equal(shared[..., 0], expected)
            np.testing.assert_array_equal(shared[..., 2], confidence)
            np.testing.assert_array_equal(shared[..., 1], frames[..., 1])


def test_one_array_does_not_hold_both_ids_and_confidence(with_logits: Path) -> None:
    memory = np.empty((2, 9, 8), np.uint8)
    frames = np.zeros((2, 9, 8, 3), np.uint8)
    with RealtimeSegmentation(with_logits) as session:
        for frame, array in ((frames[0], memory[0]), (frames, memory)):
            with pytest.raises(ValueError, match="out and confidence share memory"):
                session.infer(frame, array, array[::-1])


@pytest.mark.parametrize(
    "region", [(0, 0, 81, 50), (0, 0, 80, 51), (-1, 0, 5, 5), (5, 5, 5, 9), (5, 9, 9, 9), (0, 0, 1),
               (0, 0, 10.5, 10), "abcd", 5],
)  # fmt: skip
def test_a_region_outside_of_the_frame_is_refused(region: tuple[int, ...], with_ids: Path) -> None:
    frame = np.zeros((50, 80, 3), np.uint8)
    with RealtimeSegmentation(with_ids) as session:
        with pytest.raises(ValueError, match="region is .* within 80x50"):
            session.infer(frame, region=region)
        session.infer(frame, region=(0, 0, 80, 50))


@pytest.mark.parametrize("tiles", [2.0, 0, True, (2, 0), (2,), (1, 2, 3), (2, 1.5), "22", None])
def test_tiles_that_are_none_are_refused(tiles: Any) -> None:
    with pytest.raises(ValueError, match="expected .columns, rows. or one number, 1 to 64"):
        grid_of(tiles)
    assert grid_of(np.int64(2)) == (2, 2)  # type: ignore[arg-type]


def test_tiles_of_any_side_leave_no_gap() -> None:
    for side in range(1, 130):
        for count in range(1, MAX_TILES + 1):
            starts, size = _places(side, count)
            covered = np.zeros(side, bool)
            for start in starts:
                covered[start : start + size] = True
            assert covered.all() and starts[-1] + size == side, (side, count)


def test_odd_grids_are_refused_and_the_largest_is_taken() -> None:
    assert grid_of(3) == (3, 3) and grid_of((MAX_TILES, 1)) == (MAX_TILES, 1)
    for wrong in (0, MAX_TILES + 1, (2,), (2, 0), (2, 2.0), (1, 2, 3), True, "22"):
        with pytest.raises(ValueError, match=r"expected \(columns, rows\) or one number, 1 to 64"):
            grid_of(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (360, 480), (2160, 3840)])
@pytest.mark.parametrize("tiles", [1, 2, (5, 3)])
def test_tiles_cover_every_pixel_and_each_overlaps_its_neighbour(
    size: tuple[int, int], tiles: Any
) -> None:
    covered = np.zeros(size, int)
    tiled = TiledFrames(size, tiles)
    places = [place for place, _, _ in tiled._tiles()]
    for place in places:
        assert covered[place].shape == tiled._ids.shape
        covered[place] += 1
    assert covered.min() >= 1
    if tiles != 1 and min(size) > 100:
        assert 0.2 < (covered > 1).mean() < 0.8
