import copy
import itertools
import logging
import pickle
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastseg_runtime import BundleError, RealtimeSegmentation
from fastseg_runtime.bundle.manifest import InputSpec, Manifest, OutputSpec
from fastseg_runtime.frames import engine_pool
from fastseg_runtime.frames.engine_pool import EnginePool
from onnx import TensorProto
from PIL import Image

from tests.doubles.tiny_bundle import (
    CLASSES,
    HEIGHT,
    WIDTH,
    BundlePlan,
    argmax_onnx,
    empty_plan,
    full_plan,
    long_running_onnx,
    noise,
    strongest_channel,
)

Array = np.ndarray[Any, Any]


@pytest.fixture
def session(bundle_path: Path) -> Any:
    with RealtimeSegmentation(bundle_path) as session:
        yield session


def test_a_bundle_is_opened_and_gives_class_ids(session: RealtimeSegmentation) -> None:
    frame = noise(seed=1)
    classes = session.infer(frame)
    assert classes.dtype == np.uint8
    assert np.array_equal(classes, strongest_channel(frame))


def test_a_session_tells_what_runs(session: RealtimeSegmentation) -> None:
    assert session.classes == CLASSES
    assert session.input == InputSpec(WIDTH, HEIGHT)
    assert (session.info.backend, session.info.target) == ("onnxruntime", "cpu-fp32")
    assert (session.info.precision, session.info.selftest_agreement) == ("fp32", 1.0)


def test_class_ids_have_the_frames_size_whatever_it_is(session: RealtimeSegmentation) -> None:
    for height, width in [(HEIGHT, WIDTH), (1, 1), (101, 37), (HEIGHT, WIDTH), (480, 640)]:
        assert session.infer(noise(height, width)).shape == (height, width)


def test_whole_blocks_of_pixels_keep_their_class_at_any_scale(
    session: RealtimeSegmentation,
) -> None:
    block = noise(seed=2)
    frame = block.repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(session.infer(frame), strongest_channel(frame))


def test_strided_frames_give_the_same_as_their_copies(session: RealtimeSegmentation) -> None:
    frame = noise(2 * HEIGHT, 2 * WIDTH)
    rows_that_overlap = [
        np.lib.stride_tricks.as_strided(frame, (height, 24, 3), (50, 3, 1)) for height in (20, 99)
    ]
    planes = frame.transpose(2, 0, 1).copy().transpose(1, 2, 0)
    views = frame[::2, ::2], frame[::-2, ::-2], frame[10:30, 5:25], planes
    for view in (*views, *rows_that_overlap, np.broadcast_to(frame[:1], (200, 96, 3))):
        assert np.array_equal(session.infer(view), session.infer(view.copy()))


def test_bgr_frames_give_the_same_as_rgb(bundle_path: Path) -> None:
    frame = noise(70, 90)
    with (
        RealtimeSegmentation(bundle_path) as rgb,
        RealtimeSegmentation(bundle_path, color="bgr") as bgr,
    ):
        assert np.array_equal(rgb.infer(frame), bgr.infer(frame[..., ::-1]))
        small = noise()
        assert np.array_equal(rgb.infer(small), bgr.infer(small[..., ::-1]))


def test_a_batch_gives_what_its_frames_give(session: RealtimeSegmentation) -> None:
    batch = np.stack([noise(40, 50, seed) for seed in range(3)])
    out = np.empty((3, 40, 50), np.uint8)
    found = session.infer(batch, out)
    assert found is out
    for frame, classes in zip(batch, found, strict=True):
        assert np.array_equal(classes, session.infer(frame))


def test_a_batch_may_be_any_view_of_memory(session: RealtimeSegmentation) -> None:
    batch = np.stack([noise(), noise()[::-1]])
    for given in (memoryview(batch), torch.from_numpy(batch), list(map(memoryview, batch))):
        assert np.array_equal(session.infer(given), session.infer(batch))


def test_results_stay_valid_after_the_next_call(session: RealtimeSegmentation) -> None:
    first = session.infer(noise(seed=1))
    kept = first.copy()
    session.infer(noise(seed=2))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (50, 70)])
def test_out_is_filled_and_returned_even_if_strided(
    size: tuple[int, int], session: RealtimeSegmentation
) -> None:
    frame = noise(*size)
    canvas = np.zeros((2 * size[0], 2 * size[1]), np.uint8)
    out = canvas[::2, ::2]
    assert session.infer(frame, out) is out
    assert np.array_equal(out, session.infer(frame))
    assert not canvas[1::2].any()


def test_an_out_may_lie_in_the_frames_of_its_batch(session: RealtimeSegmentation) -> None:
    batch = np.stack([noise(), noise()[::-1]])
    expected = session.infer(batch)
    for place in (lambda x: x[::-1, ..., 0], lambda x: x.reshape(-1)[: expected.size]):
        frames = batch.copy()
        out = place(frames).reshape(expected.shape)
        assert np.array_equal(session.infer(frames, out), expected)


def test_a_stream_that_copies_nothing_takes_pil_pictures_and_batches(
    session: RealtimeSegmentation,
) -> None:
    classes = session.infer(noise())
    (result,) = session.stream([Image.fromarray(noise())], copy=False)
    assert np.array_equal(result.classes, classes) and np.array_equal(result.frame, noise())
    (result,) = session.stream([noise()[None]], copy=False)
    assert np.array_equal(result.classes, classes[None])


def test_a_pil_picture_is_rgb_and_no_frame_of_a_bgr_session(bundle_path: Path) -> None:
    picture = Image.fromarray(noise())
    with RealtimeSegmentation(bundle_path) as session:
        assert np.array_equal(session.infer(picture), session.infer(noise()))
    with (
        RealtimeSegmentation(bundle_path, color="bgr") as session,
        pytest.raises(ValueError, match="a PIL picture is RGB, and this session takes bgr"),
    ):
        session.infer(picture)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "YCbCr"])
def test_a_pil_picture_of_another_mode_is_to_be_made_rgb_first(
    mode: str, bundle_path: Path
) -> None:
    with (
        RealtimeSegmentation(bundle_path, color="bgr") as session,
        pytest.raises(ValueError, match=rf"mode {mode}; give picture.convert\('RGB'\)"),
    ):
        session.infer(Image.fromarray(noise()).convert(mode))


def test_a_pil_picture_gets_into_a_bgr_session_by_no_other_way(
    bundle_path: Path, tmp_path: Path
) -> None:
    picture: Any = Image.fromarray(noise())
    pattern = f"{tmp_path}/%d.png"
    picture.save(tmp_path / "1.png")
    with RealtimeSegmentation(bundle_path, color="bgr") as session:
        for enter in (
            lambda: list(session.stream([picture])),
            lambda: list(session.stream([picture], copy=False)),
            lambda: session.infer([picture, picture]),
            lambda: session.overlay(picture, session.infer(noise())),
            lambda: session.infer_video(pattern, tmp_path / "o.mp4", draw=lambda *_: picture),
        ):
            with pytest.raises(ValueError, match="a PIL picture is RGB, and this session takes"):
                enter()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth is 0; expected 1 or more"),
        ({"depth": -3}, "depth is -3; expected 1 or more"),
        ({"depth": 1.5}, r"depth is 1\.5; expected 1 or more"),
        ({"stall_s": 0}, "stall_s is 0; expected seconds above 0"),
        ({"stall_s": "2"}, "stall_s is '2'; expected seconds above 0"),
    ],
)
def test_a_stream_without_a_bound_is_refused_at_the_call(
    options: dict[str, Any], message: str, session: RealtimeSegmentation
) -> None:
    with pytest.raises(ValueError, match=message):
        session.stream([noise()], **options)
    assert len(list(session.stream([noise()], depth=np.int64(1), stall_s=9.5))) == 1


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_session_says_that_it_cannot_be_pickled_or_copied(
    take: Any, session: RealtimeSegmentation
) -> None:
    with pytest.raises(TypeError, match="cannot be pickled or copied; open the model in each"):
        take(session)


def test_an_out_that_is_read_only_is_refused(session: RealtimeSegmentation) -> None:
    out = np.zeros((HEIGHT, WIDTH), np.uint8)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        session.infer(noise(), out)


@pytest.mark.parametrize(
    ("frame", "advice"),
    [
        ([[1, 2], [3]], "got list; give a picture as numpy array"),
        ([noise(4, 4), noise(5, 5)], "got list; .* of one size as a batch"),
        ("photo.jpg", "got str; give a picture"),
        (None, "got NoneType"),
        (torch.zeros(4, 4, 3, dtype=torch.bfloat16), "got Tensor; give a picture as numpy"),
        (torch.zeros(2, 4, 4, 3, requires_grad=True), "got Tensor; give a picture as numpy"),
        (np.zeros((4, 4, 1), np.uint8), "repeat the grey channel"),
        (Image.new("YCbCr", (4, 4)), r"of mode YCbCr; give picture.convert\('RGB'\)"),
        (Image.new("L", (4, 4)), r"of mode L; give picture.convert\('RGB'\)"),
        (np.zeros((4, 4, 3), np.int8), "0 to 255"),
        (np.zeros((4, 4, 3), bool), "0 to 255"),
        (np.zeros((2, 4, 4, 3), np.int32), "0 to 255"),
    ],
)
def test_what_is_no_frame_is_told_in_a_sentence(
    frame: Any, advice: str, session: RealtimeSegmentation
) -> None:
    with pytest.raises(ValueError, match=r"expected a frame of uint8 \(H, W, 3\), .*" + advice):
        session.infer(frame)


def test_an_overlay_of_what_is_no_frame_is_told(session: RealtimeSegmentation) -> None:
    frame, classes = noise(), session.infer(noise())
    with pytest.raises(ValueError, match="expected a frame of uint8"):
        session.overlay(frame.astype(float), classes)
    with pytest.raises(ValueError, match="expected ids of uint8"):
        session.overlay(frame, classes.astype(float))


@pytest.mark.parametrize(
    "out", [np.zeros((2, 2), np.uint8), np.zeros((HEIGHT, WIDTH), np.int32), [[1]]]
)
def test_an_out_that_does_not_fit_is_refused(out: Any, session: RealtimeSegmentation) -> None:
    with pytest.raises(ValueError, match=r"out must be a numpy array of uint8 \(32, 48\), got"):
        session.infer(noise(), out)


@pytest.mark.parametrize("size", [(256, 512), (300, 400)])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_no_array_is_allocated_per_frame_when_out_is_given(
    size: tuple[int, int], color: str, tmp_path: Path
) -> None:
    path = full_plan(512, 256).write(tmp_path / "large.fastseg")
    with RealtimeSegmentation(path, color=color) as session:
        frame, out = noise(*size), np.empty(size, np.uint8)
        for _ in range(3):
            session.infer(frame, out)
        tracemalloc.start()
        try:
            for _ in range(5):
                session.infer(frame, out)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # Views, floats and the engine's small objects; the smallest array here has 100,000 bytes.
    assert peak_bytes < 20_000


def test_several_threads_may_share_a_session(session: RealtimeSegmentation) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        frame = noise(40 + seed, 60, seed)
        expected = session.infer(frame)
        for _ in range(50):
            if not np.array_equal(session.infer(frame), expected):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_other_threads_run_while_the_engine_does(tmp_path: Path) -> None:
    plan = empty_plan(512, 256).with_artifact("cpu-fp32", long_running_onnx(512, 256))
    done, ticks = threading.Event(), [0]

    def tick() -> None:
        while not done.wait(0.001):
            ticks[0] += 1

    with RealtimeSegmentation(plan.write(tmp_path / "busy.fastseg"), threads=1) as session:
        frame, out = noise(256, 512), np.empty((256, 512), np.uint8)
        session.infer(frame, out)
        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        before = ticks[0]
        session.infer(frame, out)
        during = ticks[0] - before
        done.set()
        ticker.join(60)
    assert during >= 3


def test_several_engines_give_what_one_gives(bundle_path: Path) -> None:
    frames = [noise(40, 70, seed=seed) for seed in range(24)]
    with RealtimeSegmentation(bundle_path) as one:
        expected = [one.infer(frame) for frame in frames]
    with RealtimeSegmentation(bundle_path, engines=3) as several:
        results = [result.classes for result in several.stream(frames)]
        assert several.timing["frames"] == len(frames)
    np.testing.assert_array_equal(results, expected)


def test_closing_waits_for_the_frames_under_way(bundle_path: Path) -> None:
    session = RealtimeSegmentation(bundle_path, engines=2)
    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(session.infer, noise()) for _ in range(40)]
        session.close()
    errors = {str(result.exception()) for result in results} - {"None"}
    assert errors <= {"this session is closed; open the model again"}


@pytest.mark.parametrize(
    "count",
    [{"engines": 0}, {"threads": -1}, {"engines": 1.5}, {"threads": True}, {"threads": np.True_}],
)
def test_a_count_below_one_is_refused(count: dict[str, Any], bundle_path: Path) -> None:
    ((name, value),) = count.items()
    with pytest.raises(ValueError, match=f"{name} is {value!r}; expected 1 or more, a whole"):
        RealtimeSegmentation(bundle_path, **count)


def test_a_count_may_be_numpys(bundle_path: Path) -> None:
    one: Any = np.int64(1)
    with RealtimeSegmentation(bundle_path, threads=one, engines=one) as session:
        assert session.engines == 1
        assert session.benchmark(iterations=one, warmup=one)["iterations"] == 1


def test_frames_may_change_their_size_at_any_time(bundle_path: Path) -> None:
    sizes = [(HEIGHT, WIDTH), (40, 70), (8, 8), (40, 70), (HEIGHT, WIDTH)] * 3
    frames = [noise(*size, seed=seed) for seed, size in enumerate(sizes)]
    with RealtimeSegmentation(bundle_path, engines=2) as session:
        results = [result.classes for result in session.stream(frames)]
        for frame, classes in zip(frames, results, strict=True):
            np.testing.assert_array_equal(classes, session.infer(frame))


def test_a_clock_that_jumps_changes_no_timing(
    session: RealtimeSegmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.cycle([0.0, 4e9, -1e6, 1.7e9])  # a board without a battery finds the time
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    report = session.benchmark(iterations=70, warmup=1)
    assert 0 < report["p50_ms"] <= report["p90_ms"] < 60_000
    assert 0 < report["fps"] < 1e6
    assert len(list(session.stream([noise()] * 5))) == 5


def test_a_closed_session_says_so_and_may_be_closed_again(bundle_path: Path) -> None:
    session = RealtimeSegmentation(bundle_path)
    session.close()
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.infer(noise())


@pytest.mark.parametrize("wish", [{"color": "yuv"}, {"build": "maybe"}])
def test_a_wish_that_makes_no_sense_is_refused(wish: dict[str, str], bundle_path: Path) -> None:
    with pytest.raises(ValueError, match="choose"):
        RealtimeSegmentation(bundle_path, **wish)  # type: ignore[arg-type]


def test_letterboxed_bundles_map_back_exactly(tmp_path: Path) -> None:
    spec = InputSpec(WIDTH, HEIGHT, resize="letterbox")
    block = noise(HEIGHT, HEIGHT)
    frame = block.repeat(2, axis=0).repeat(2, axis=1)
    with RealtimeSegmentation(full_plan(input=spec).write(tmp_path / "l.fastseg")) as session:
        assert np.array_equal(session.infer(frame), strongest_channel(frame))


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
def test_ids_of_other_integer_types_come_out_as_bytes(kind: int, tmp_path: Path) -> None:
    plan = empty_plan().with_artifact("cpu-fp32", argmax_onnx(output_type=kind))
    with RealtimeSegmentation(plan.write(tmp_path / "int.fastseg")) as session:
        frame = noise()
        assert np.array_equal(session.infer(frame), strongest_channel(frame))


def test_logits_are_turned_into_ids_and_can_be_had(tmp_path: Path) -> None:
    plan = empty_plan(output=OutputSpec("logits"))
    plan = plan.with_artifact("cpu-fp32", argmax_onnx(kind="logits"), io={"logits": "float32 NCHW"})
    with RealtimeSegmentation(plan.write(tmp_path / "logits.fastseg")) as session:
        frame = noise()
        assert np.array_equal(session.infer(frame), strongest_channel(frame))
        assert np.array_equal(session.logits(frame), frame.transpose(2, 0, 1).astype(np.float32))


@pytest.mark.parametrize("in_frame", [False, True])
def test_logits_are_timed_and_held_to_the_deadline_as_any_frame(
    in_frame: bool, tmp_path: Path
) -> None:
    plan = empty_plan(output=OutputSpec("logits"))
    plan = plan.with_artifact("cpu-fp32", argmax_onnx(kind="logits"), io={"logits": "float32 NCHW"})
    path = plan.write(tmp_path / "logits.fastseg")
    with RealtimeSegmentation(path, deadline_ms=0.001) as session:
        session.logits(noise(), in_frame)
        assert (session.timing["frames"], session.timing["late"]) == (1, 1)
        assert min(session.newest_stages_s) > 0


def test_logits_come_back_in_the_geometry_of_the_frame_if_asked_for(tmp_path: Path) -> None:
    plan = empty_plan(output=OutputSpec("logits"))
    plan = plan.with_artifact("cpu-fp32", argmax_onnx(kind="logits"), io={"logits": "float32 NCHW"})
    with RealtimeSegmentation(plan.write(tmp_path / "logits.fastseg")) as session:
        frame = np.ascontiguousarray(np.kron(noise(), np.ones((2, 2, 1), np.uint8)))
        logits = session.logits(frame, in_frame=True)
        assert logits.shape == (3, 2 * HEIGHT, 2 * WIDTH) and logits.dtype == np.float32
        own = session.logits(frame)
        inner = logits[:, 1:-1:2, 1:-1:2]  # a quarter of the way to the next pixel, both ways
        mixed = own[:, :-1] * 0.75 + own[:, 1:] * 0.25
        mixed = mixed[:, :, :-1] * 0.75 + mixed[:, :, 1:] * 0.25
        np.testing.assert_allclose(inner, mixed, atol=1e-3)


def test_a_confidence_that_the_artifact_does_not_give_is_refused(
    session: RealtimeSegmentation,
) -> None:
    with pytest.raises(ValueError, match="fastseg-export --confidence"):
        session.infer(noise(), confidence=np.zeros(noise().shape[:2], np.uint8))


def test_logits_of_a_network_that_gives_ids_are_refused(session: RealtimeSegmentation) -> None:
    with pytest.raises(ValueError, match="--output logits"):
        session.logits(noise())


def test_a_mask_of_another_size_than_promised_is_an_error(tmp_path: Path) -> None:
    plan = empty_plan(output=OutputSpec(mask_stride=2)).with_artifact("cpu-fp32", argmax_onnx())
    session = RealtimeSegmentation(plan.write(tmp_path / "m.fastseg"))
    with session, pytest.raises(ValueError, match="promises class maps"):
        session.infer(noise())


def test_benchmark_counts_frames_over_wall_time(session: RealtimeSegmentation) -> None:
    result = session.benchmark(iterations=70, warmup=2)
    assert result["fps"] == pytest.approx(1000 / result["avg_time_ms"])
    assert result["iterations"] == 70
    assert 0 < result["p50_ms"] <= result["p90_ms"]
    assert result["p99_ms"] is None
    assert set(result["stages"]) == {"pre", "infer", "post"}


def test_benchmark_of_no_frames_is_refused(session: RealtimeSegmentation) -> None:
    for count in (0, 20.0, "20"):
        with pytest.raises(ValueError, match="iterations is .*; expected 1 or more"):
            session.benchmark(iterations=count)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"warmup is 0\.5; expected 0 or more"):
        session.benchmark(warmup=0.5)  # type: ignore[arg-type]


def test_timing_covers_the_last_frames_by_stage(session: RealtimeSegmentation) -> None:
    assert session.timing["frames"] == 0
    for _ in range(11):
        session.infer(noise())
    timing = session.timing
    assert timing["frames"] == 11
    stages = [timing[stage]["p50"] for stage in ("pre", "infer", "post")]
    assert all(stage > 0 for stage in stages)
    assert timing["total"]["p90"] is None
    assert len(session.newest_stages_s) == 3
    assert min(session.newest_stages_s) > 0


def test_opening_logs_what_runs_and_the_licence_of_the_data(
    bundle_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastseg_runtime")
    RealtimeSegmentation(bundle_path).close()
    assert "trained on colours; licence of the data: CC0" in caplog.text
    assert "running cpu-fp32 (fp32) with onnxruntime" in caplog.text


def test_a_bare_onnx_file_names_its_classes_by_number(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    path.write_bytes(argmax_onnx())
    with RealtimeSegmentation(path) as session:
        assert session.classes[0].name == "class_0"
        assert (session.input.width, session.input.height) == (WIDTH, HEIGHT)
        frame = noise(60, 80)
        assert session.infer(frame).shape == (60, 80)


def test_a_bare_onnx_file_with_our_metadata_keeps_its_classes(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    manifest: Manifest = replace(full_plan().manifest, artifacts=(), selftest=())
    path.write_bytes(argmax_onnx(metadata={"fastseg": manifest.to_json()}))
    with RealtimeSegmentation(path) as session:
        assert session.classes == CLASSES


def test_a_file_that_is_no_onnx_says_so(tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(ValueError, match="is no ONNX file that loads here"):
        RealtimeSegmentation(path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    for name in ("none.onnx", "none.fastseg"):
        with pytest.raises(FileNotFoundError, match=name):
            RealtimeSegmentation(tmp_path / name)


def test_a_damaged_artifact_is_said_and_no_other_is_used_instead(tmp_path: Path) -> None:
    plan = full_plan().with_artifact("slow", argmax_onnx(), precision="fp16")
    member = "artifacts/cpu-fp32/model.onnx"
    other = bytes(reversed(plan.members[member]))
    path = BundlePlan(plan.manifest, {**plan.members, member: other}).write(tmp_path / "b.fastseg")
    with pytest.raises(BundleError, match="SHA-256"):
        RealtimeSegmentation(path)
    with RealtimeSegmentation(path, target="slow") as session:  # what is whole can be asked for
        assert session.info.target == "slow"


def test_a_foreign_file_is_no_bundle(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(BundleError, match="is not a fastseg bundle"):
        RealtimeSegmentation(path)


def test_a_close_that_ctrl_c_interrupts_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    runners: list[Any] = ["first", "second"]
    pool = EnginePool(runners, lambda: closed.append(True))

    class Interrupting:
        def get(self) -> None:
            raise KeyboardInterrupt

        def put(self, item: None) -> None:
            pass

    with pool.engine():
        monkeypatch.setattr(engine_pool, "SimpleQueue", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            pool.close()
        monkeypatch.undo()
    assert not closed
    with pool.engine() as one, pool.engine() as other:
        assert sorted([one, other]) == runners
    again = threading.Thread(target=pool.close, daemon=True)
    again.start()
    again.join(timeout=30)
    assert closed == [True]
    with pytest.raises(RuntimeError, match="session is closed"), pool.engine():
        pass


def test_ctrl_c_at_any_moment_of_a_frame_loses_no_engine() -> None:
    """Signals are heard where a function begins and after calls into C, among others."""

    def interrupt_after(calls: int) -> Any:
        left = itertools.count(calls, -1)

        def profile(frame: Any, event: str, argument: Any) -> None:
            if event in ("call", "c_return") and next(left) == 0:
                raise KeyboardInterrupt

        return profile

    closed: list[int] = []
    for calls in range(150):
        pool = EnginePool([object()], partial(closed.append, calls))  # type: ignore[list-item]
        try:
            sys.setprofile(interrupt_after(calls))
            with pool.engine():
                pass
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        closing = threading.Thread(target=pool.close, daemon=True)
        closing.start()
        closing.join(timeout=30)
        assert closed[-1:] == [calls]
