import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

cv2 = pytest.importorskip("cv2")
from fastseg_runtime.frames.containers import missing_bytes  # noqa: E402
from fastseg_runtime.frames.video import FrameSource, VideoWriter  # noqa: E402

FORMATS = [".mp4", ".mov", ".mkv", ".avi"]
IN_ONE_FOLDER = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def grey(value: int) -> Any:
    return np.full((16, 32, 3), value, np.uint8)


def write(path: Path, times_s: list[float]) -> VideoWriter:
    writer = VideoWriter(str(path), 25)
    for index, time_s in enumerate(times_s):
        writer.write(grey(index * 10), time_s)
    return writer


def read(path: Path) -> list[tuple[int, float]]:
    """What each picture shows, and when."""
    source = FrameSource(str(path))
    return [(round(frame.mean() / 10), source.time_s()) for frame in source]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@IN_ONE_FOLDER
@given(gaps_ms=st.lists(st.integers(1, 20_000), min_size=1, max_size=24))
def test_every_picture_comes_out_at_its_time_before_and_after_the_file_is_finished(
    suffix: str, gaps_ms: list[int], tmp_path: Path
) -> None:
    path = tmp_path / f"clip{suffix}"
    times_s = [0.0, *(float(end) / 1e3 for end in np.cumsum(gaps_ms))]
    writer = write(path, times_s)
    unfinished = tmp_path / f"killed{suffix}"
    unfinished.write_bytes(path.read_bytes())
    writer.finish()
    for file in (unfinished, path):
        shown, when_s = zip(*read(file), strict=True)
        assert list(shown) == list(range(len(times_s)))
        assert when_s == pytest.approx(times_s, abs=1e-3)
        assert missing_bytes(file) == 0


@pytest.mark.parametrize(
    ("off_s", "kept_s"), [(8 * 3600.0, 8 * 3600.0), (13 * 3600.0, 13 * 3600.0), (86400.0, 23860.93)]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_camera_that_was_off_over_night_leaves_a_gap(
    suffix: str, off_s: float, kept_s: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"clip{suffix}"
    write(path, [0.0, off_s, off_s + 1]).finish()
    shown, when_s = zip(*read(path), strict=True)
    assert shown == (0, 1, 2)
    assert when_s == pytest.approx([0.0, kept_s, kept_s + 1], abs=0.01)
    assert (".mkv keeps the times" in caplog.text) == (kept_s < off_s)


def test_an_hour_of_an_avi_is_finished_in_a_moment(tmp_path: Path) -> None:
    writer = write(tmp_path / "clip.avi", [0.0, 3600.0])
    begin_s = time.process_time()
    writer.finish()
    assert time.process_time() - begin_s < 5  # 90,000 entries; by bytes that grew it took 15 s
    assert missing_bytes(tmp_path / "clip.avi") == 0


def test_a_gap_of_a_month_neither_hangs_nor_fills_an_avi(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, month_s = tmp_path / "clip.avi", 30 * 86400.0
    writer = write(path, [0.0, month_s, month_s + 0.04, month_s + 0.4])
    writer.finish()
    assert path.stat().st_size < 30e6 and missing_bytes(path) == 0
    assert "clip.avi: a gap" in caplog.text and caplog.text.count("keeps the times") == 1
    source = FrameSource(str(path))
    assert source.count == 1_000_000 + 1 + 1 + 1 + 9  # the last pictures keep their distances


def test_a_camera_that_was_off_over_night_holds_no_writer_of_an_avi_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, night_s = tmp_path / "clip.avi", 8 * 3600.0
    begin_s = time.process_time()
    writer = write(path, [0.0, night_s])
    assert time.process_time() - begin_s < 3  # 720,000 pictures in one write
    writer.finish()
    assert FrameSource(str(path)).count == 720_000 + 1 and not caplog.text
    assert missing_bytes(path) == 0


def test_an_avi_holds_gaps_as_empty_pictures(tmp_path: Path) -> None:
    write(tmp_path / "clip.avi", [0.0, 0.04, 0.4, 2.0]).finish()
    shown, when_s = zip(*read(tmp_path / "clip.avi"), strict=True)
    assert [shown.index(value) for value in range(4)] == sorted(map(shown.index, range(4)))
    first_s = [when_s[shown.index(value)] for value in range(4)]
    assert first_s == pytest.approx([0.0, 0.04, 0.4, 2.0], abs=0.021)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_was_cut_off_lacks_as_much_as_was_cut(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    write(path, [index / 25 for index in range(20)]).finish()
    content = path.read_bytes()
    assert missing_bytes(path) == 0
    for cut in (1, len(content) // 3):
        path.write_bytes(content[:-cut])
        assert missing_bytes(path) > 0


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_write_that_was_interrupted_spoils_nothing(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    writer = write(path, [index / 25 for index in range(5)])
    with path.open("ab") as file:
        file.write(b"half a fragment" * 9)
    writer.write(grey(50), 0.2)
    with path.open("ab") as file:
        file.write(b"half a fragment" * 9)
    writer.finish()
    assert [value for value, _ in read(path)] == list(range(6))
    assert missing_bytes(path) == 0


@IN_ONE_FOLDER
@given(content=st.binary(max_size=64))
@example(content=b"\x00\x10\x00\x00\x00\x00\x00")  # an element of 2^52 bytes
def test_any_bytes_are_looked_at_without_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any"
    for start in (b"", b"RIFF", b"\x1a\x45\xdf\xa3", b"\0\0\0\x10ftyp", b"\0\0\0\1mdat"):
        path.write_bytes(start + content)
        assert missing_bytes(path) >= 0
