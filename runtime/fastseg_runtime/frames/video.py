"""Videos and cameras by OpenCV: frames in, a video with classes drawn over it out."""

import errno
import logging
import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import IO, Any, Callable, Dict, Iterator, Optional, Sequence, Tuple

import numpy as np

from fastseg_runtime.arrays.image import as_frame, read_image
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.frames.containers import Avi, Mkv, Mp4, missing_bytes
from fastseg_runtime.frames.sources import CAMERA, SourceName, numbered_pictures, parse_source
from fastseg_runtime.frames.stream import StreamFrame, VideoError, stream

try:
    import cv2
except ImportError as error:
    raise ImportError(
        "videos need OpenCV: pip install 'fastseg-runtime[video]', or python3-opencv from your "
        "distribution"
    ) from error

log = logging.getLogger(__name__)
_FALLBACK_FPS = 25.0  # of files and cameras that do not say
_STALL_S = 5.0  # without a frame, after which a camera is given up, or connected to again
_LATE_TICKS = 2  # of an .avi, a picture each: rates that waver catch up
_TAIL_S = 1.0  # by which sound may be longer than the pictures
_LOOK_PAST = 1000  # frames that may be damaged in a row; OpenCV tells each from the end by grab()
# Read as pictures are: upright, and whole or refused. A .png or .ppm may hold several frames.
_ONE_FRAME = (".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_RETRY_S = 1.0  # between attempts to connect
# Of JPEG. Nearer to the picture than OpenCV's MPEG-4, at half its time and two to four times its
# bytes: measured on dash-cam clips, 39.5 against 36.6 dB.
_QUALITY = 75
_NO_DISK = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)  # fsync of what is none
_SYNC_S = 0.5  # a power cut costs what came since the last sync: below a second


class FrameSource:
    """The frames of a file, a camera or another source that sources.py names, "rgb" or "bgr".

    Each frame is an array of its own. Reading is for one thread; close() may come from another.

    Attributes:
        source: its name, without a password.
        is_live: frames come when they come, and what is not taken is lost.
        count, fps: as the source says; 0 and 25 where nothing does.
        stall_s: seconds without a frame after which to give up; None for what ends by itself, or
            connects again.

    Raises:
        VideoError: it cannot be opened.
    """

    def __init__(self, source: str, color: str = "rgb") -> None:
        self._name, self._swap = parse_source(source), color == "rgb"
        self.source, kind = self._name.shown, self._name.kind
        self._capture = _open(self._name)
        if not self._capture.isOpened():
            raise VideoError(f"{self.source}: {_why_not(self._name)}")
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = fps if 0 < fps < 1000 else _FALLBACK_FPS
        self.is_live = self._name.is_live and not (kind == "network" and self.count)  # a file there
        self.stall_s = _STALL_S if self.is_live and kind != "network" else None
        self._time_s, self._reading, self._closed = 0.0, threading.Lock(), threading.Event()
        self._goes_on = False  # behind a frame that cannot be read

    def __iter__(self) -> Iterator[Array]:
        """Yield frames (H, W, 3) uint8 until the end, or until a camera disappears."""
        done = 0
        while not self._closed.is_set():
            frame_HW3 = self._read()
            if frame_HW3 is not None:
                self._time_s = self._stamp(done)
                done += 1
                yield cv2.cvtColor(frame_HW3, cv2.COLOR_BGR2RGB) if self._swap else frame_HW3
            elif not self.is_live:
                self._goes_on = self._name.kind == "file" and self._follows(self.count - 1 - done)
                return
            elif self._name.kind == "network":
                self._connect_again()
            elif not self._closed.is_set():
                raise VideoError(f"{self.source}: the camera gives no more frames")

    def time_s(self) -> float:
        """Return when the newest frame was taken: from a file's start, or by time.monotonic()."""
        return self._time_s

    def check_end(self, done: int) -> None:
        """Raise VideoError if the file was cut off or is damaged, after `done` frames of it."""
        frames = f"{done} of {self.count} frames"
        missing = missing_bytes(Path(self._name.place)) if self._name.kind == "file" else 0
        if missing:
            frames = f"{missing} bytes are missing: {frames}; copy it again"
        elif self._goes_on:
            frames += ": what follows cannot be read; it is damaged there, copy it again"
        short = not self.is_live and done < self.count - 1  # some formats count one too many
        if missing or self._goes_on or (short and self._name.kind == "network"):
            raise VideoError(f"{self.source} ends early, {frames}")
        # Of a pipe nothing but time tells, and sound or a start above 0 look as a cut does.
        if short and self._name.kind == "stdin" and self._time_s < self.count / self.fps - _TAIL_S:
            log.warning("%s: %s; was it cut off? A file given by its name is checked", "-", frames)
        elif short:
            log.info("%s: %s; a trimmed video holds more than it shows", self.source, frames)

    def _follows(self, most: int) -> bool:
        """Return whether frames follow the one that could not be read: none do at a file's end."""
        with self._reading:
            tries = 0 if self._closed.is_set() else min(most, _LOOK_PAST)
            return any(self._capture.grab() for _ in range(tries))

    def close(self) -> None:
        """Free the file or camera, as soon as no thread reads from it any more."""
        self._closed.set()
        if self._reading.acquire(blocking=False):
            self._capture.release()
            self._reading.release()

    def _read(self) -> Optional[Array]:
        closed = self._closed.is_set
        with self._reading:  # a capture that is released while it reads crashes
            there, frame_HW3 = (False, None) if closed() else self._capture.read()
            if closed():
                self._capture.release()
        return frame_HW3 if there and not closed() else None

    def _connect_again(self) -> None:
        log.warning("%s gives no frames; connecting again", self.source)
        while not self._closed.wait(_RETRY_S):
            with self._reading:
                self._capture.release()
                self._capture = _open(self._name)
                if self._capture.isOpened():
                    log.warning("%s is back", self.source)
                    return

    def _stamp(self, done: int) -> float:
        if self.is_live:
            return monotonic()
        time_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
        # Streams without timestamps say 0, or the last one again.
        return time_s if time_s > self._time_s or not done else self._time_s + 1 / self.fps


class _Pictures:
    """Numbered pictures, or a single one, as a cv2.VideoCapture."""

    def __init__(self, files: Sequence[Path], fps: Optional[float]) -> None:
        self._files, self._fps = files, fps or _FALLBACK_FPS
        self._left = iter(self._files)

    def isOpened(self) -> bool:
        return bool(self._files)

    def get(self, prop: int) -> float:
        known = {cv2.CAP_PROP_FRAME_COUNT: len(self._files), cv2.CAP_PROP_FPS: self._fps}
        return float(known.get(prop, 0))

    def read(self) -> Tuple[bool, Any]:
        file = next(self._left, None)
        if file is None:
            return False, None
        return True, cv2.cvtColor(read_image(file), cv2.COLOR_RGB2BGR)

    def release(self) -> None:
        self._left = iter(())


def _open(name: SourceName) -> Any:
    """Return a cv2.VideoCapture, or what stands for one; it may not have opened."""
    if 0 in (name.fps, *(name.size or ())):
        raise VideoError(f"{name.place}: a size or rate of 0; expected more, or leave it out")
    if name.kind == "camera":
        return _open_camera(name)
    if name.kind == "sequence":
        return _Pictures(numbered_pictures(name.place), name.fps)
    if name.kind == "network":
        limit_ms = int(1000 * _STALL_S)
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            limit_ms,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            limit_ms,
        ]
        return cv2.VideoCapture(_for_opencv(name.place), cv2.CAP_FFMPEG, limits)
    if name.kind == "pipeline":
        return cv2.VideoCapture(_for_opencv(name.place), cv2.CAP_GSTREAMER)
    if name.kind == "file" and not os.path.isfile(name.place):
        raise VideoError(f"{name.shown}: no such file")
    if name.kind == "file" and name.place.lower().endswith(_ONE_FRAME):
        return _Pictures([Path(name.place)], None)
    # FFmpeg takes what stands before the first colon for a protocol, but not behind a slash.
    path = "pipe:0" if name.kind == "stdin" else os.path.join(os.curdir, name.place)
    return cv2.VideoCapture(_for_opencv(path))


def _for_opencv(place: str) -> Any:
    """Return a text, or its bytes where they are no UTF-8: OpenCV crashes at such a text."""
    try:
        place.encode()
    except UnicodeEncodeError:
        return os.fsencode(place)
    return place


def _open_camera(name: SourceName) -> Any:
    number = name.place[len(CAMERA) :]
    if name.place.startswith(CAMERA) and not number.isdecimal():
        raise VideoError(
            f"{name.place}: expected a camera's number, as in camera:0 or camera:0:1280x720@30"
        )
    device = name.place.startswith("/dev/")
    capture = (
        cv2.VideoCapture(name.place, cv2.CAP_V4L2) if device else cv2.VideoCapture(int(number))
    )
    width, height = name.size or (0, 0)
    if width:  # raw pixels in a large size are too many for USB 2
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    sides = {cv2.CAP_PROP_FRAME_WIDTH: width, cv2.CAP_PROP_FRAME_HEIGHT: height}
    wishes = {**sides, cv2.CAP_PROP_FPS: name.fps}
    for prop, value in wishes.items():
        if value and capture.isOpened():
            capture.set(prop, value)
            if round(capture.get(prop)) != round(value):
                log.warning("%s gives %g, not %g", name.place, capture.get(prop), value)
    return capture


def _why_not(name: SourceName) -> str:
    registry = cv2.videoio_registry
    # getBackends() also has plug-ins that are not there; OpenCV 4.2 knows nothing else.
    has = getattr(registry, "hasBackend", registry.getBackends().__contains__)
    if name.kind == "pipeline" and not has(cv2.CAP_GSTREAMER):
        return (
            "this OpenCV has no GStreamer; that of your distribution (python3-opencv) may have it"
        )
    return {
        "camera": "no such camera, or another program has it",
        "network": f"no video comes from there within {_STALL_S:g} s",
        "pipeline": "GStreamer cannot run it; it has to end in appsink",
        "sequence": "no such pictures; write the number of each file as %d, or %06d with zeros",
        "stdin": "no video that a pipe can hold; give .mkv, .ts or Motion JPEG",
    }.get(name.kind, "not a video that OpenCV can decode; convert it to H.264 in .mp4")


class VideoWriter:
    """Writes an .mp4, .mov, .mkv or .avi that plays up to its last picture, wherever it ends.

    Args:
        path: the file; it appears with the first picture.
        fps: the usual rate.
        color: order of the pictures' channels.
        overwrite: take the place of a file of this name; else that is an error.

    Attributes:
        count: pictures written.
    """

    def __init__(self, path: str, fps: float, color: str = "rgb", overwrite: bool = True) -> None:
        self._path, self._fps, self._swap = Path(path), fps, color == "rgb"
        self._mode = "w+b" if overwrite else "x+b"
        self._suffix = self._path.suffix.lower()
        if self._suffix not in _CONTAINERS:
            known = ", ".join(_CONTAINERS)
            raise VideoError(f"{path} cannot be written; use a name that ends in one of {known}")
        self.count, self._tick, self._size = 0, -1, (0, 0)  # width, height
        self._is_late = False
        self._container: Optional[Any] = None
        self._ended = threading.Event()
        self._lost: Optional[OSError] = None  # what the disk said of pictures that it had taken
        self._syncing = threading.Thread(target=self._sync, daemon=True)

    def write(self, picture_HW3: Array, time_s: Optional[float] = None) -> None:
        """Append a picture, uint8; one of another size than the first is scaled to that.

        Args:
            time_s: when it is shown, later than those before it; None: at the usual rate.

        Raises:
            VideoError: the file cannot be written.
        """
        pixels = np.ascontiguousarray(picture_HW3)
        self._size = self._size if self.count else pixels.shape[1::-1]
        if pixels.shape[1::-1] != self._size:
            pixels = cv2.resize(pixels, self._size)
        if self._swap:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        time_s = self.count / self._fps if time_s is None else time_s
        with self._telling():
            if self._lost is not None:
                raise self._lost
            container = self._container or self._open()
            due = round(time_s * container.ticks_per_s)
            self._tick = max(self._tick + 1, due)
            if self._tick - due > _LATE_TICKS and not self._is_late:
                self._is_late = True
                log.warning("%s: an .avi has one rate, and these come faster; they will be "
                            "shown late, as an .mp4 would not", self._path)  # fmt: skip
            container.add(self._tick, jpeg)
        self.count += 1

    def finish(self) -> None:
        """Add what players seek by, and close the file; may be called again.

        Raises:
            VideoError: nothing was written, or it cannot be.
        """
        if self._container is None:
            raise VideoError(f"{self._path}: no frame to write")
        with self._telling():
            self._end()

    def settle(self) -> None:
        """Do the same after an error, as far as that lets it."""
        with suppress(OSError):
            self._end()

    def _end(self) -> None:
        if self._container is None or self._ended.is_set():
            return
        self._ended.set()
        self._syncing.join()
        with self._file:
            try:
                self._container.finish()
                os.fsync(self._file.fileno())
            finally:
                self._file.truncate(self._container.end)
        if self._lost is not None:
            raise self._lost

    def _open(self) -> Any:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(str(self._path), self._mode, buffering=0)  # noqa: SIM115
        try:
            self._container = _CONTAINERS[self._suffix](self._file, self._size, self._fps)
            self._syncing.start()
        except BaseException:
            self._file.close()
            raise
        return self._container

    def _sync(self) -> None:
        while not self._ended.wait(_SYNC_S):  # a thread: a slow card does not delay the frames
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                if error.errno not in _NO_DISK:  # Linux tells a lost write once: here
                    self._lost = self._lost or error

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raise what goes wrong as an error that names the file and the cause."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if isinstance(error, FileExistsError) and self._path.exists():
                reason = "is there already"
            raise VideoError(f"{self._path} cannot be written: {reason}") from error


_CONTAINERS: Dict[str, Callable[..., Any]] = {
    ".mp4": partial(Mp4, brand=b"isom"),
    ".mov": partial(Mp4, brand=b"qt  "),
    ".mkv": Mkv,
    ".avi": Avi,
}


def infer_video(
    session: Any,
    src: Any,
    dst: Any,
    progress: Optional[Callable[[int, int], None]] = None,
    draw: Optional[Callable[[Array, Array], Array]] = None,
    stop: Optional[threading.Event] = None,
    overwrite: bool = True,
    on_frame: Optional[Callable[[StreamFrame], None]] = None,
    steady: bool = False,
) -> float:
    """Do what RealtimeSegmentation.infer_video() says."""
    if os.path.isfile(str(src)) and os.path.exists(dst) and os.path.samefile(str(src), dst):
        raise VideoError(f"{dst} is the input; name another file")
    source = FrameSource(str(src), session.color)
    writer = VideoWriter(str(dst), source.fps, session.color, overwrite)
    start, first_s = perf_counter(), None
    sure = on_frame is not None and session.gives_confidence  # whoever looks may want it
    draw = draw or session.overlay
    results = stream(session, source, draw, stop=stop, confidence=sure, steady=steady)
    with ExitStack() as stack:  # a second Ctrl-C in the first does not keep the others from it
        for clean_up in (source.close, results.close, writer.settle):
            stack.callback(clean_up)
        try:
            for result in results:
                first_s = result.time_s if first_s is None else first_s
                writer.write(_checked(result.picture, session.color), result.time_s - first_s)
                if on_frame is not None:
                    on_frame(result)
                if progress is not None:
                    progress(writer.count, source.count)
            if stop is not None and stop.is_set():
                log.info("%s: stopped after %d frames, in %s", source.source, writer.count, dst)
            else:
                source.check_end(writer.count)
        except VideoError as error:
            if not writer.count:
                raise
            kept = f"the {writer.count} frames until then are in {dst}"
            raise VideoError(f"{error}; {kept}") from error
        except BaseException as error:
            if writer.count:
                log.warning("%s holds the %d frames until then", dst, writer.count)
            if not (source.is_live and isinstance(error, KeyboardInterrupt)):
                raise
        writer.finish()
    return writer.count / (perf_counter() - start)


def _checked(picture: Any, color: str) -> Array:
    try:
        return as_frame(picture, color)
    except ValueError as error:
        raise ValueError(f"draw() is to return a picture: {error}") from None
