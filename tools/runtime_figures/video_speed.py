"""A video segmented by infer_video(), which overlaps its stages, and frame by frame.

Frame by frame the engine has all cores; infer_video() is given one engine per core. However well
its stages overlap, the cores do the work that they do: with C seconds of CPU a frame on n cores no
pipeline gives more than n / C frames a second. That bound is reported beside the speed.
"""

from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import cv2
import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.engines.selection import cpu_count
from fastseg_runtime.frames.video import FrameSource, VideoWriter

WIDTH, HEIGHT, FRAMES, ROUNDS = 1280, 720, 200, 3


def video_figures(bundle: Path, folder: Path, video: Path | None) -> dict[str, float]:
    """Return speeds of both ways, medians over alternating rounds, and the bound of the cores.

    Args:
        bundle: with a target cpu-fp32.
        folder: for the videos that are written.
        video: None: one is generated.
    """
    source = video or generated_video(folder / "drive.mp4")
    cores = cpu_count()
    open_session = partial(RealtimeSegmentation, bundle, target="cpu-fp32", color="bgr")
    with open_session() as plain, open_session(engines=cores) as streaming:
        frame_by_frame(plain, source, folder / "warm-up.mp4")
        rounds = [one_round(plain, streaming, source, folder) for _ in range(ROUNDS)]
    plain_fps, stream_fps, stream_cpu_s = (float(value) for value in np.median(rounds, axis=0))
    ratio = np.median([stream / plain for plain, stream, _ in rounds])
    return {
        "video frame by frame, FPS": round(plain_fps, 2),
        f"video by infer_video(), {cores} engines, FPS": round(stream_fps, 2),
        "infer_video() / frame by frame": round(float(ratio), 3),
        "the most that these cores allow": round(cores / stream_cpu_s / plain_fps, 3),
    }


def one_round(
    plain: RealtimeSegmentation, streaming: RealtimeSegmentation, source: Path, folder: Path
) -> tuple[float, float, float]:
    """Return FPS frame by frame, FPS of infer_video(), and the CPU seconds of its frames."""
    start = perf_counter()
    frames = frame_by_frame(plain, source, folder / "plain.mp4")
    plain_fps = frames / (perf_counter() - start)
    start_cpu = process_time()
    stream_fps = streaming.infer_video(source, folder / "stream.mp4")
    return plain_fps, stream_fps, (process_time() - start_cpu) / frames


def frame_by_frame(session: RealtimeSegmentation, source: Path, target: Path) -> int:
    """Read, infer, draw, write, one after the other; return the number of frames."""
    frames = FrameSource(str(source), session.color)
    writer = VideoWriter(str(target), frames.fps, session.color)
    for count, frame_HW3 in enumerate(frames, start=1):  # noqa: B007 (it is returned)
        writer.write(session.overlay(frame_HW3, session.infer(frame_HW3)))
    frames.close()
    writer.finish()
    return count


def generated_video(path: Path) -> Path:
    """Write a video of coloured blocks that move over a gradient."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (WIDTH, HEIGHT))
    ramp_HW = np.add.outer(np.arange(HEIGHT) // 6, np.arange(WIDTH) // 10)
    picture_HW3 = np.stack([ramp_HW, 255 - ramp_HW, ramp_HW // 2], axis=-1).astype(np.uint8)
    for index in range(FRAMES):
        frame_HW3 = picture_HW3.copy()
        for block in range(8):
            left, top = (150 * block + 9 * index) % (WIDTH - 120), 80 * block
            frame_HW3[top : top + 90, left : left + 120] = 30 * block
        writer.write(frame_HW3)
    writer.release()
    return path
