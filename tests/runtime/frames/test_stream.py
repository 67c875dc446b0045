import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.frames.stream import VideoError, stream


class EchoSession:
    """Gives the frame's first channel as its class map."""

    engines = 1

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s

    def infer(self, frame: Any) -> Any:
        time.sleep(self.delay_s)
        return frame[..., 0]


def frames(count: int) -> Iterator[Any]:
    for value in range(count):
        yield np.full((2, 3, 3), value, np.uint8)


def test_every_frame_comes_out_once_and_in_order_with_its_own_class_map() -> None:
    results = list(stream(EchoSession(), frames(50)))
    assert [r.index for r in results] == list(range(50))
    assert all(r.classes[0, 0] == r.index == r.frame[0, 0, 0] for r in results)


def test_drawing_gets_frame_and_classes() -> None:
    results = stream(EchoSession(), frames(5), draw=lambda frame, classes: (frame, classes))
    assert all(np.array_equal(r.picture[0][..., 0], r.picture[1]) for r in results)


def test_a_slow_consumer_slows_the_source_down() -> None:
    read = []

    def source() -> Iterator[Any]:
        for index, frame in enumerate(frames(1000)):
            read.append(index)
            yield frame

    results = stream(EchoSession(), source(), depth=2)
    next(results)
    time.sleep(0.3)
    assert len(read) < 20
    results.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth is 0; expected 1 or more, a whole number"),
        ({"depth": True}, "depth is True; expected"),
        ({"depth": 2.0}, r"depth is 2\.0; expected"),
        ({"stall_s": 0.0}, r"stall_s is 0\.0; expected seconds above 0"),
        ({"stall_s": np.zeros(2)}, r"stall_s is array\(.*; expected seconds above 0"),
    ],
)
def test_what_would_not_bound_a_stream_is_refused_at_the_call(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stream(EchoSession(), frames(1), **options)


def test_a_stream_that_nobody_asks_for_frames_starts_no_thread() -> None:
    before = threading.active_count()
    results = stream(EchoSession(), frames(9))
    assert threading.active_count() == before
    results.close()


def test_latest_mode_drops_what_waited_and_counts_it() -> None:
    results = list(stream(EchoSession(delay_s=0.02), frames(200), latest=True))
    assert results[-1].index == 199
    assert results[-1].dropped > 0
    assert [r.index for r in results] == sorted(r.index for r in results)
    assert len(results) + results[-1].dropped == 200


def test_latest_mode_gives_the_engine_the_newest_frame_there_is() -> None:
    taken, all_read = threading.Event(), threading.Event()

    def source() -> Iterator[Any]:
        for index, frame in enumerate(frames(10)):
            assert index == 0 or taken.wait(60)
            yield frame
        all_read.set()

    class Busy(EchoSession):
        def infer(self, frame: Any) -> Any:
            taken.set()
            assert all_read.wait(60)
            return super().infer(frame)

    results = list(stream(Busy(), source(), latest=True))
    assert [(result.index, result.dropped) for result in results] == [(0, 8), (9, 8)]


@pytest.mark.parametrize("stage", ["source", "session", "draw"])
def test_an_error_of_any_stage_surfaces_in_the_caller(stage: str) -> None:
    def fail(*_: Any) -> Any:
        raise OSError("the camera is gone")

    def source() -> Iterator[Any]:
        yield from frames(3)
        if stage == "source":
            fail()

    session = EchoSession()
    if stage == "session":
        session.infer = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="camera is gone"):
        list(stream(session, source(), draw=fail if stage == "draw" else None))


def test_leaving_the_loop_ends_all_threads() -> None:
    before = threading.active_count()
    results = stream(EchoSession(), frames(10_000), draw=lambda frame, classes: frame)
    next(results)
    results.close()
    assert threading.active_count() == before


class SlowFirstSession(EchoSession):
    """Two engines, of which the one that got an even frame takes longer."""

    engines = 2

    def __init__(self) -> None:
        super().__init__()
        self.running = self.most_running = 0

    def infer(self, frame: Any) -> Any:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        time.sleep(0.01 if frame[0, 0, 0] % 2 == 0 else 0.001)
        self.running -= 1
        return super().infer(frame)


def test_several_engines_work_at_the_same_time_and_the_order_is_kept() -> None:
    session = SlowFirstSession()
    results = list(stream(session, frames(40), draw=lambda frame, classes: classes + 1))
    assert [r.index for r in results] == list(range(40))
    assert all(r.classes[0, 0] == r.index == r.picture[0, 0] - 1 for r in results)
    assert session.most_running == 2


def test_an_error_comes_after_all_frames_before_it() -> None:
    def source() -> Iterator[Any]:
        yield from frames(9)
        raise OSError("the camera is gone")

    seen = []
    with pytest.raises(OSError, match="camera is gone"):
        for result in stream(SlowFirstSession(), source()):
            seen.append(result.index)
    assert seen == list(range(9))


class CopyingSession(EchoSession):
    """Gives class maps of its own, as real sessions do."""

    def infer(self, frame: Any) -> Any:
        return super().infer(frame).copy()


def ring(count: int) -> Iterator[Any]:
    """A camera that writes each frame to the same memory."""
    buffer = np.empty((2, 3, 3), np.uint8)
    for value in range(count):
        buffer[...] = value
        yield buffer


def test_a_source_that_reuses_its_buffer_gives_right_maps_and_frames() -> None:
    for latest in (False, True):
        results = list(stream(CopyingSession(0.001), ring(40), latest=latest))
        assert all(r.classes[0, 0] == r.frame[0, 0, 0] == r.index for r in results)


def test_views_of_one_buffer_are_kept_apart_too() -> None:
    memory = bytearray(6)

    def source() -> Iterator[Any]:
        for value in range(20):
            memory[:] = bytes([value]) * 6
            yield memoryview(memory).cast("B", (1, 2, 3))

    results = list(stream(CopyingSession(), source()))
    assert [r.frame[0, 0, 0] for r in results] == list(range(20))


def test_a_drawing_that_reuses_its_canvas_gives_right_pictures() -> None:
    canvas = np.empty((2, 3, 3), np.uint8)

    def draw(frame: Any, classes: Any) -> Any:
        canvas[...] = frame
        return canvas

    results = list(stream(CopyingSession(), ring(40), draw=draw))
    assert [r.picture[0, 0, 0] for r in results] == list(range(40))


def test_who_says_that_frames_are_new_ones_gets_them_as_they_are() -> None:
    given = list(frames(3))
    results = list(stream(EchoSession(), given, copy=False))
    assert all(result.frame is frame for result, frame in zip(results, given, strict=True))


def test_each_frame_has_the_time_at_which_it_was_taken() -> None:
    before_s = time.monotonic()
    times_s = [result.time_s for result in stream(EchoSession(0.01), frames(5))]
    assert before_s <= times_s[0] and times_s == sorted(times_s)
    assert times_s[-1] <= time.monotonic()


class BlockedCamera:
    """Gives some frames, and blocks then until it is freed."""

    def __init__(self, count: int = 1) -> None:
        self.count, self.freed = count, threading.Event()

    def __iter__(self) -> Iterator[Any]:
        yield from frames(self.count)
        self.freed.wait(60)


@pytest.fixture
def camera() -> Iterator[BlockedCamera]:
    camera = BlockedCamera()
    yield camera
    camera.freed.set()


def test_closing_does_not_wait_for_a_camera_that_blocks(camera: BlockedCamera) -> None:
    results = stream(EchoSession(), camera)
    next(results)
    start_s = time.monotonic()
    results.close()
    assert time.monotonic() - start_s < 2


def test_a_source_that_stalls_is_noticed_in_the_time_set(camera: BlockedCamera) -> None:
    start_s, seen = time.monotonic(), []
    with pytest.raises(VideoError, match=r"the source gave no frame for 0\.3 s"):
        for result in stream(EchoSession(), camera, stall_s=0.3):
            seen.append(result.index)
    assert seen == [0] and 0.3 <= time.monotonic() - start_s < 4


def test_a_slow_engine_is_no_stalled_source() -> None:
    results = list(stream(EchoSession(delay_s=0.2), frames(2), stall_s=0.05))
    assert len(results) == 2


def test_a_stop_ends_the_loop_though_the_camera_blocks(camera: BlockedCamera) -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    start_s = time.monotonic()
    assert [result.index for result in stream(EchoSession(), camera, stop=stop)] == [0]
    assert time.monotonic() - start_s < 4


def test_a_stop_ends_a_source_that_never_does() -> None:
    stop, seen = threading.Event(), []
    for result in stream(EchoSession(), ring(10**9), stop=stop):
        seen.append(result.index)
        if result.index == 5:
            stop.set()
    assert seen == list(range(6))
