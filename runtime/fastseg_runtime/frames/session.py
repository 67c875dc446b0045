"""RealtimeSegmentation: frames in, class ids out, on whatever this device runs best.

Shape letters: N frames, H and W pixels of a frame, K classes; h and w are the size of what the
engine gives.
"""

import logging
import operator
import os
import threading
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from fastseg_runtime.arrays.image import as_array, as_frame
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.stats import StageTimes
from fastseg_runtime.arrays.strict_tables import check_above_0, checked_count
from fastseg_runtime.bundle.manifest import (
    IGNORE_INDEX,
    ClassInfo,
    InputSpec,
    Manifest,
    palette,
)
from fastseg_runtime.engines.backend import on_gpu
from fastseg_runtime.engines.frame_runner import NO_CONFIDENCE, FrameRunner
from fastseg_runtime.engines.opening import Opened, SessionInfo, Wish, open_best
from fastseg_runtime.engines.own_onnx import NOTHING_SAID, OwnFile
from fastseg_runtime.engines.selection import cpu_count
from fastseg_runtime.frames import draw
from fastseg_runtime.frames.engine_pool import EnginePool, LateFrames
from fastseg_runtime.frames.tiles import TiledFrames, Tiles

log = logging.getLogger(__name__)
MAX_ENGINES_PER_CPU = 8  # more only wait for each other, and each takes its megabytes


class RealtimeSegmentation:
    """A network ready to run; safe from several threads, which take turns.

    `engines` of them may run a frame at the same time, each with its share of the CPU.

    Args:
        model_path: a bundle, or a bare .onnx, .safetensors or .pth.
        backend: "auto" takes the best that this device runs, or a name from ENGINES.
        device: "auto", "cpu", or what the backend documents: "cuda", "cuda:1", "cpu_and_ne".
        color: order of the frames' channels, "rgb" or "bgr" (OpenCV's).
        threads: for each engine, at most one a CPU; None: its own default, or its share of the
            CPUs.
        build: "auto" lets TensorRT build its engine now, which takes minutes; "never" raises
            BuildRefusedError instead. `fastseg-run --prepare` builds ahead.
        target: run this artifact of the bundle and no other.
        selftest: try the scenes of the bundle's self-test before trusting an engine: all the
            first time, one where they passed before.
        engines: copies of the network that work on different frames at the same time. One is best
            for the latency of a camera; one per core or two gives videos the most FPS on a CPU.
        own_file: what an ONNX file of others does not say itself: OwnFile(normalization="unit").
        deadline_ms: frames that take longer are counted in `timing` as "late", and said (WARNING).

    Attributes:
        classes: name and colour of each id.
        input: size and normalisation of the network's input.
        manifest: everything that the bundle says.
        info: what runs, and what was rejected.
        gives_confidence: whether infer() can write one.
        engines, color: as given.

    Raises:
        FileNotFoundError: no such file.
        BundleError: a damaged or foreign bundle.
        NoBackendError: nothing in it runs here; the message says what would.
    """

    def __init__(
        self,
        model_path: Union[str, Path],
        backend: str = "auto",
        device: str = "auto",
        color: str = "rgb",
        threads: Optional[int] = None,
        build: str = "auto",
        target: Optional[str] = None,
        selftest: bool = True,
        engines: int = 1,
        own_file: OwnFile = NOTHING_SAID,
        deadline_ms: Optional[float] = None,
    ) -> None:
        if color not in ("rgb", "bgr"):
            raise ValueError(f"color is {color!r}; choose 'rgb' or 'bgr'")
        if build not in ("auto", "never"):
            raise ValueError(f"build is {build!r}; choose 'auto' or 'never'")
        threads = None if threads is None else checked_count("threads", threads)
        engines = checked_count("engines", engines)
        check_above_0("deadline_ms", deadline_ms, "milliseconds")
        most = MAX_ENGINES_PER_CPU * cpu_count()
        if engines > most:
            raise ValueError(
                f"engines is {engines}; expected {most} at most, on {cpu_count()} CPUs"
            )
        wish = Wish(backend, device, threads, build, target, selftest, engines, own_file)
        self.color, self.engines, self.deadline_ms, self._wish = color, engines, deadline_ms, wish
        self._times, self._late = StageTimes(), LateFrames(deadline_ms)
        self._swapping = threading.Lock()
        opened = open_best(model_path, wish)
        self._note_times(opened)
        self._show(opened)
        self._pool = EnginePool(opened.runners, opened.close)

    def _show(self, opened: Opened) -> None:
        self.manifest: Manifest = opened.manifest
        self.classes: Tuple[ClassInfo, ...] = opened.manifest.classes
        self.input: InputSpec = opened.manifest.input
        self.info: SessionInfo = opened.info
        self._gives_logits = opened.runners[0].gives_logits
        self.gives_confidence: bool = opened.runners[0].gives_confidence
        self._reads_gpu = opened.runners[0].gpu_backend is not None

    def _note_times(self, opened: Opened) -> None:
        for runner in opened.runners:
            runner.times = self._times  # without the self-test

    def swap(self, model_path: Union[str, Path]) -> None:
        """Exchange the network for that of another bundle, between two frames.

        Other threads go on meanwhile with the old one, which is freed when its last frame is done.
        Whatever is raised, the old one stays. Until then both are in memory.

        Args:
            model_path: a bundle with the same classes and kind of output; it is opened as the
                session was, and its self-test is run.

        Raises:
            ValueError: its classes or output are others, or it has no self-test.
            Whatever opening a session raises, NoBackendError where its self-test fails.
            RuntimeError: the session is closed.
        """
        with self._swapping:
            self._swap(
                model_path, open_best(model_path, replace(self._wish, selftest=True, trust=False))
            )

    def _swap(self, model_path: Union[str, Path], opened: Opened) -> None:
        try:
            names = [entry.name for entry in opened.manifest.classes]
            if names != [entry.name for entry in self.classes]:
                raise ValueError(f"{model_path} has other classes; open it in a session of its own")
            if opened.runners[0].gives_logits != self._gives_logits:
                raise ValueError(f"{model_path} gives another output; export it like the old one")
            if self.gives_confidence and not opened.runners[0].gives_confidence:
                raise ValueError(f"{model_path} gives no confidence; export it with --confidence")
            if not opened.manifest.selftest:
                raise ValueError(f"{model_path} has no self-test; a swap wants a bundle that has")
            self._note_times(opened)
            free_old = self._pool.exchange(opened.runners, opened.close)
        except BaseException:
            opened.close()
            raise
        self._show(opened)
        free_old()

    def infer(
        self,
        image: Any,
        out: Optional[Any] = None,
        confidence: Optional[Array] = None,
        tiles: Optional[Tiles] = None,
        region: Optional[Sequence[int]] = None,
    ) -> Any:
        """Return the class id of every pixel.

        Args:
            image: a frame (H, W, 3) or a batch (N, H, W, 3), uint8, with any strides. With
                TensorRT also a GPU array (torch, cupy, pycuda) of the input's size.
            out: uint8 (H, W) or (N, H, W) to write to; no array is allocated then. With TensorRT
                also a GPU array for the class map.
            confidence: uint8 (H, W) or (N, H, W) to write to how sure the network is of each
                pixel's class: 255 times the probability that it is right. For artifacts exported
                with --confidence; of one that gives logits, their softmax as it is.
            tiles: (columns, rows), or one number for both: also run the frame in so many
                overlapping tiles, for what is small in a large one. Each pixel takes the class of
                which the frame or a tile is surest.
            region: (left, top, right, bottom), such as a masks.Box: run this part of the frame
                alone. The rest gets id 255 and a confidence of 0.

        Returns:
            `out`, or a new array.

        Raises:
            ValueError: an array of another shape or type; the message says how to convert it. Or a
                confidence is wanted, and the artifact gives none.
            RuntimeError: the session is closed.
        """
        if on_gpu(image) or as_array(image).ndim != 4:
            return self._infer_one(image, out, confidence, tiles, region)
        batch = as_array(image) if isinstance(image, memoryview) else image  # which has no rows
        frames = [as_frame(frame, self.color) for frame in batch]
        if not frames:
            raise ValueError("an empty batch; expected frames (N, H, W, 3) with N of 1 or more")
        shape = (len(frames), *frames[0].shape[:2])
        out = _checked_out(out, shape)
        _check_confidence(confidence, shape, out)
        if any(np.may_share_memory(out, frame) for frame in frames[1:]):  # as its own channel does
            frames = [frame.copy() for frame in frames]
        for index, frame_HW3 in enumerate(frames):
            sure = None if confidence is None else confidence[index]
            self._infer_one(frame_HW3, out[index], sure, tiles, region)
        return out

    def logits(self, image: Any, in_frame: bool = False) -> Array:
        """Return the scores of a frame, float32.

        Args:
            image: as for infer().
            in_frame: bring them into the frame's geometry, bilinearly.

        Returns:
            (K, H, W) in the frame; else (K, h, w), as the network gives them of its input.

        Raises:
            ValueError: the artifact gives class ids; export with --output logits.
        """
        if not self._gives_logits:
            raise ValueError(
                "this artifact gives class ids and keeps no scores; "
                "export one with fastseg-export --output logits"
            )
        frame_HW3 = as_frame(image, self.color)
        with self._late.timed(), self._pool.engine() as runner:
            return runner.logits(frame_HW3, self.color == "bgr", in_frame)

    def overlay(self, frame: Array, classes: Array, alpha: float = 0.5) -> Array:
        """Return the frame with its classes' colours over it, in the frame's channel order."""
        colors_K3 = palette(self.classes)[: len(self.classes)]
        if self.color == "bgr":
            colors_K3 = colors_K3[:, ::-1]
        return draw.overlay(as_frame(frame, self.color), classes, colors_K3, alpha)

    def legend(self) -> Array:
        """Return a picture with the name and colour of each class, RGB."""
        return draw.legend(self.classes)

    def infer_video(
        self,
        src: Any,
        dst: Any,
        progress: Optional[Callable[[int, int], None]] = None,
        draw: Optional[Callable[[Array, Array], Array]] = None,
        stop: Optional[threading.Event] = None,
        overwrite: bool = True,
        on_frame: Optional[Callable[[Any], None]] = None,
        steady: bool = False,
    ) -> float:
        """Write a video with its classes drawn over it, each picture at the time of its frame.

        However it ends, the file plays up to the last picture, and a log record or the error says
        how many there are.

        Args:
            src: a video file, or a source as sources.py has them: "camera:0:1280x720@30",
                "/dev/video0", "rtsp://host/path", "http://host/path", a GStreamer pipeline,
                "frames/%06d.png", "-" for stdin. Live ones run until Ctrl-C.
            dst: the file to write, an .mp4, .mov, .mkv or .avi.
            progress: called with the frames done and their total (0: unknown).
            draw: (frame, classes) to the picture to write, both in `color` order and of any one
                size; default: overlay().
            stop: ends it once it is set, also while a camera blocks.
            overwrite: take the place of a file `dst`, which is an error otherwise.
            on_frame: called with each StreamFrame once its picture is written.
            steady: damp flicker; see stream.stream.

        Returns:
            Frames per second of wall time, reading and writing included.

        Raises:
            VideoError: the source cannot be read, has no frame, ends early or disappears, or the
                file cannot be written.
        """
        from fastseg_runtime.frames.video import infer_video

        return float(infer_video(self, src, dst, progress, draw, stop, overwrite, on_frame, steady))

    def stream(
        self, frames: Union[str, "os.PathLike[str]", Iterable[Any]], **options: Any
    ) -> Iterator[Any]:
        """Run frames through a pipeline that overlaps its stages; see stream.stream.

        Args:
            frames: uint8 (H, W, 3) each, or what infer_video() takes as `src`.
            options: those of stream.stream.

        Raises:
            ValueError: a depth below 1, or a stall_s of 0 or below.
            VideoError: the source cannot be read.
        """
        from fastseg_runtime.frames.stream import stream  # futures: for who streams alone

        if isinstance(frames, (str, os.PathLike)):
            from fastseg_runtime.frames.video import FrameSource  # needs OpenCV

            frames = FrameSource(os.fspath(frames), self.color)
        return iter(stream(self, frames, **options))

    def benchmark(self, iterations: int = 100, warmup: int = 10) -> Dict[str, Any]:
        """Time infer() on a noise frame of the input's size.

        Returns:
            "fps" (frames over wall time), "avg_time_ms", "p50_ms", "p90_ms", "p99_ms" (None where
            there were too few frames to say), "iterations", and "stages" as `timing` has them.
        """
        iterations, warmup = (
            checked_count("iterations", iterations),
            checked_count("warmup", warmup, least=0),
        )
        frame = np.random.default_rng(0).integers(
            0, 256, (self.input.height, self.input.width, 3), np.uint8
        )
        out = np.empty(frame.shape[:2], np.uint8)
        for _ in range(warmup):
            self.infer(frame, out)
        times = StageTimes(iterations)
        start = perf_counter()
        for _ in range(iterations):
            self.infer(frame, out)
            times.add(self.newest_stages_s)
        wall_s = perf_counter() - start
        summary = times.summary()
        return {
            "fps": iterations / wall_s,
            "avg_time_ms": wall_s / iterations * 1e3,
            **{f"{name}_ms": value for name, value in summary["total"].items()},
            "iterations": iterations,
            "stages": {name: summary[name] for name in ("pre", "infer", "post")},
        }

    @property
    def timing(self) -> Dict[str, Any]:
        """Return p50, p90 and p99 of the stages of the last 1000 frames, in milliseconds.

        With `deadline_ms` also "late", how many of all frames took longer.
        """
        late = {} if self.deadline_ms is None else {"late": self._late.count}
        return {**self._times.summary(), **late}

    @property
    def newest_stages_s(self) -> Tuple[float, ...]:
        """Return the seconds that the newest frame spent in pre, infer and post."""
        return self._times.newest

    def close(self) -> None:
        """Free the engine; the session cannot be used afterwards."""
        self._pool.close()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a session cannot be pickled or copied; open the model in each process")

    def __enter__(self) -> "RealtimeSegmentation":
        """Return the session itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Free the engine."""
        self.close()

    def _infer_one(
        self,
        image: Any,
        out: Optional[Any],
        confidence: Optional[Array],
        tiles: Optional[Tiles],
        region: Optional[Sequence[int]],
    ) -> Any:
        if on_gpu(image):
            if tiles is not None or region is not None:
                raise ValueError("tiles and region are for numpy arrays; crop on the GPU")
            if not self._reads_gpu or self.color == "bgr":
                raise ValueError(
                    "frames in GPU memory need the tensorrt backend and RGB, this session has "
                    f"{self.info.backend} and {self.color}; give a numpy array, as "
                    "frame.cpu().numpy()"
                )
            if out is None or isinstance(out, np.ndarray):
                out = _checked_out(out, (self.input.height, self.input.width))
            _check_confidence(confidence, (self.input.height, self.input.width), out)
            with self._late.timed(), self._pool.engine() as runner:
                runner.infer_on_gpu(image, out, confidence)
            return out
        frame_HW3 = as_frame(image, self.color)
        out = _checked_out(out, frame_HW3.shape[:2])
        _check_confidence(confidence, frame_HW3.shape[:2], out)
        part = (slice(None), slice(None)) if region is None else _part(region, frame_HW3)
        sure_HW = None if confidence is None else confidence[part]
        with self._late.timed(), self._pool.engine() as runner:
            if tiles is None:
                runner.infer(frame_HW3[part], out[part], self.color == "bgr", sure_HW)
            else:
                self._infer_tiled(runner, frame_HW3[part], out[part], sure_HW, tiles)
        if region is not None:  # not before: `out` may be a channel of the frame
            _fill_around(part, out, IGNORE_INDEX)
            if confidence is not None:
                _fill_around(part, confidence, 0)
        return out

    def _infer_tiled(
        self,
        runner: FrameRunner,
        frame_HW3: Array,
        out: Array,
        confidence: Optional[Array],
        tiles: Tiles,
    ) -> None:
        if confidence is not None and not runner.gives_confidence:
            raise ValueError(NO_CONFIDENCE)
        with runner.one_frame():
            tiled = TiledFrames(frame_HW3.shape[:2], tiles)
            sure_HW = tiled.run(runner, frame_HW3, out, self.color == "bgr")
            if confidence is not None:
                np.copyto(confidence, sure_HW)


def _part(region: Sequence[int], frame_HW3: Array) -> Tuple[slice, slice]:
    """Return the rows and columns of a region.

    Raises:
        ValueError: it does not lie in the frame.
    """
    height, width = frame_HW3.shape[:2]
    try:
        left, top, right, bottom = map(operator.index, region)
    except (TypeError, ValueError):  # a detector's boxes are floats
        left = top = right = bottom = 0
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(
            f"region is {region!r}; expected whole left, top, right, bottom within {width}x{height}"
        )
    return slice(top, bottom), slice(left, right)


def _fill_around(part: Tuple[slice, slice], array_HW: Array, value: int) -> None:
    rows, columns = part
    array_HW[: rows.start] = array_HW[rows.stop :] = value
    array_HW[rows, : columns.start] = array_HW[rows, columns.stop :] = value


def _checked_out(out: Optional[Any], shape: Tuple[int, ...], name: str = "out") -> Array:
    """Return an array for bytes: the caller's, or a new one; ValueError if it does not fit."""
    if out is None:
        return np.empty(shape, np.uint8)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.uint8:
        found = f"{getattr(out, 'dtype', type(out).__name__)} {getattr(out, 'shape', '')}"
        raise ValueError(f"{name} must be a numpy array of uint8 {shape}, got {found}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only; give an array of your own, or a copy of this one")
    return out


def _check_confidence(confidence: Optional[Any], shape: Tuple[int, ...], out: Any) -> None:
    if confidence is None:
        return
    _checked_out(confidence, shape, "confidence")
    if isinstance(out, np.ndarray) and np.shares_memory(out, confidence):
        raise ValueError("out and confidence share memory; give each an array of its own")
