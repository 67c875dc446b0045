"""Videos and cameras by OpenCV: frames in, a video with classes drawn over it out."""

import os
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Iterator, Optional

import numpy as np

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.frames.stream import CAMERA, stream

try:
    import cv2
except ImportError as error:
    raise ImportError(
        "videos need OpenCV: pip install 'fastseg-runtime[video]', or python3-opencv from your "
        "distribution"
    ) from error

_FALLBACK_FPS = 25.0  # of files and cameras that do not say


class VideoError(OSError):
    """A video cannot be read or written."""


class FrameSource:
    """The frames of a video file or a camera ("camera:0"), in "rgb" or "bgr" order.

    Raises:
        VideoError: it cannot be opened.
    """

    def __init__(self, source: str, color: str = "rgb") -> None:
        self.source, self._swap = source, color == "rgb"
        self.is_camera = source.startswith(CAMERA)
        number = source[len(CAMERA) :]
        if self.is_camera and not number.isdecimal():
            raise VideoError(f"{source}: expected a camera's number, such as camera:0")
        self._capture = cv2.VideoCapture(int(number) if self.is_camera else source)
        if not self._capture.isOpened():
            reason = "not a video that OpenCV can decode; convert it to H.264 in .mp4"
            if self.is_camera:
                reason = "no such camera, or another program has it"
            elif not Path(source).is_file():
                reason = "no such file"
            raise VideoError(f"{source}: {reason}")
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))  # 0: unknown
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = fps if 0 < fps < 1000 else _FALLBACK_FPS

    def __iter__(self) -> Iterator[Array]:
        """Yield frames (H, W, 3) uint8 until the end, or until the camera disappears."""
        while True:
            there, frame_HW3 = self._capture.read()
            if not there:
                if self.is_camera:
                    raise VideoError(f"{self.source}: the camera gives no more frames")
                return
            yield cv2.cvtColor(frame_HW3, cv2.COLOR_BGR2RGB) if self._swap else frame_HW3

    def close(self) -> None:
        """Free the file or camera."""
        self._capture.release()


class VideoWriter:
    """Writes an .mp4, .mov, .mkv or .avi; the file appears under its name when complete."""

    def __init__(self, path: str, fps: float, color: str = "rgb") -> None:
        self._path, self._fps, self._swap = Path(path), fps, color == "rgb"
        self._partial = self._path.with_name(f"{self._path.stem}.part{self._path.suffix}")
        self._writer: Optional[Any] = None
        self._size = (0, 0)  # width, height

    def write(self, picture_HW3: Array) -> None:
        """Append a picture, uint8; one of another size than the first is scaled to that.

        Raises:
            VideoError: the file cannot be written.
        """
        if self._writer is None:
            self._size = (picture_HW3.shape[1], picture_HW3.shape[0])
            code = "MJPG" if self._path.suffix.lower() == ".avi" else "mp4v"
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fourcc = cv2.VideoWriter.fourcc(*code)
            self._writer = cv2.VideoWriter(str(self._partial), fourcc, self._fps, self._size)
            if not self._writer.isOpened():
                raise VideoError(f"{self._path}: cannot be written; use a name that ends in .mp4")
        pixels = np.ascontiguousarray(picture_HW3)
        if pixels.shape[1::-1] != self._size:  # OpenCV would leave it out without a word
            pixels = cv2.resize(pixels, self._size)
        self._writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if self._swap else pixels)

    def finish(self) -> None:
        """Close the file and give it its name.

        Raises:
            VideoError: nothing was written.
        """
        if self._writer is None:
            raise VideoError(f"{self._path}: no frame to write")
        self._writer.release()
        os.replace(str(self._partial), str(self._path))

    def abandon(self) -> None:
        """Remove what was written; does nothing after finish()."""
        if self._writer is not None:
            self._writer.release()
        if self._partial.exists():
            self._partial.unlink()


def infer_video(
    session: Any,
    src: Any,
    dst: Any,
    progress: Optional[Callable[[int, int], None]] = None,
    draw: Optional[Callable[[Array, Array], Array]] = None,
) -> float:
    """Do what RealtimeSegmentation.infer_video() says."""
    source = FrameSource(str(src), session.color)
    writer = VideoWriter(str(dst), source.fps, session.color)
    done, start = 0, perf_counter()
    results = stream(session, source, draw or session.overlay, latest=source.is_camera)
    with ExitStack() as stack:  # a second Ctrl-C in the first does not keep the others from it
        for clean_up in (writer.abandon, source.close, results.close):
            stack.callback(clean_up)
        try:
            for result in results:
                writer.write(result.picture)
                done += 1
                if progress is not None:
                    progress(done, source.count)
        except KeyboardInterrupt:
            if not source.is_camera:
                raise
        except VideoError as error:
            if not (source.is_camera and done):
                raise
            writer.finish()
            raise VideoError(f"{error}; what it gave until then is in {dst}") from error
        writer.finish()
    return done / (perf_counter() - start)
