"""RealtimeSegmentation: frames in, class ids out, on whatever this device runs best.

Shape letters: N frames, H and W pixels of a frame, K classes; h and w are the size of what the
engine gives.
"""

import threading
from contextlib import contextmanager
from pathlib import Path
from queue import LifoQueue
from time import perf_counter
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from fastseg_runtime.arrays.image import as_array, as_rgb_uint8
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.stats import StageTimes
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec, Manifest, palette
from fastseg_runtime.engines.backend import on_gpu
from fastseg_runtime.engines.frame_runner import FrameRunner
from fastseg_runtime.engines.opening import SessionInfo, Wish, open_best
from fastseg_runtime.engines.own_onnx import NOTHING_SAID, OwnFile
from fastseg_runtime.engines.selection import cpu_count
from fastseg_runtime.frames import draw

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

    Attributes:
        classes: name and colour of each id.
        input: size and normalisation of the network's input.
        manifest: everything that the bundle says.
        info: what runs, and what was rejected.
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
    ) -> None:
        if color not in ("rgb", "bgr"):
            raise ValueError(f"color is {color!r}; choose 'rgb' or 'bgr'")
        if build not in ("auto", "never"):
            raise ValueError(f"build is {build!r}; choose 'auto' or 'never'")
        for name, count in (("threads", threads), ("engines", engines)):
            if count is not None and (type(count) is not int or count < 1):
                raise ValueError(f"{name} is {count!r}; expected 1 or more")
        most = MAX_ENGINES_PER_CPU * cpu_count()
        if engines > most:
            raise ValueError(
                f"engines is {engines}; expected {most} at most, on {cpu_count()} CPUs"
            )
        wish = Wish(backend, device, threads, build, target, selftest, engines, own_file)
        opened = open_best(model_path, wish)
        self.manifest: Manifest = opened.manifest
        self.classes: Tuple[ClassInfo, ...] = opened.manifest.classes
        self.input: InputSpec = opened.manifest.input
        self.info: SessionInfo = opened.info
        self.color, self.engines = color, engines
        self._gives_logits = opened.runners[0].gives_logits
        self._reads_gpu = opened.runners[0].gpu_backend is not None
        self._times = StageTimes()
        for runner in opened.runners:
            runner.times = self._times  # without the self-test
        self._pool = EnginePool(opened.runners, opened.close)

    def infer(self, image: Any, out: Optional[Any] = None) -> Any:
        """Return the class id of every pixel.

        Args:
            image: a frame (H, W, 3) or a batch (N, H, W, 3), uint8, with any strides. With
                TensorRT also a GPU array (torch, cupy, pycuda) of the input's size.
            out: uint8 (H, W) or (N, H, W) to write to; no array is allocated then. With TensorRT
                also a GPU array for the class map.

        Returns:
            `out`, or a new array.

        Raises:
            ValueError: an array of another shape or type; the message says how to convert it.
            RuntimeError: the session is closed.
        """
        if on_gpu(image) or as_array(image).ndim != 4:
            return self._infer_one(image, out)
        frames = [as_rgb_uint8(frame) for frame in image]
        if not frames:
            raise ValueError("an empty batch; expected frames (N, H, W, 3) with N of 1 or more")
        out = _checked_out(out, (len(frames), *frames[0].shape[:2]))
        for frame_HW3, classes_HW in zip(frames, out):
            self._infer_one(frame_HW3, classes_HW)
        return out

    def logits(self, image: Any) -> Array:
        """Return the scores of a frame, float32 (K, h, w), in the geometry of the input.

        Raises:
            ValueError: the artifact gives class ids; export with --output logits.
        """
        if not self._gives_logits:
            raise ValueError(
                "this artifact gives class ids and keeps no scores; "
                "export one with fastseg-export --output logits"
            )
        frame_HW3 = as_rgb_uint8(image)
        with self._pool.engine() as runner:
            return runner.logits(frame_HW3, swap=self.color == "bgr")

    def overlay(self, frame: Array, classes: Array, alpha: float = 0.5) -> Array:
        """Return the frame with its classes' colours over it, in the frame's channel order."""
        colors_K3 = palette(self.classes)[: len(self.classes)]
        if self.color == "bgr":
            colors_K3 = colors_K3[:, ::-1]
        return draw.overlay(frame, classes, colors_K3, alpha)

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

        Returns:
            Frames per second of wall time, reading and writing included.

        Raises:
            VideoError: the source cannot be read, has no frame, ends early or disappears, or the
                file cannot be written.
        """
        from fastseg_runtime.frames.video import infer_video

        return float(infer_video(self, src, dst, progress, draw, stop, overwrite))

    def stream(self, frames: Union[str, Iterable[Any]], **options: Any) -> Iterator[Any]:
        """Run frames through a pipeline that overlaps its stages; see stream.stream.

        Args:
            frames: uint8 (H, W, 3) each, or what infer_video() takes as `src`.
            options: those of stream.stream.
        """
        from fastseg_runtime.frames.stream import stream

        if isinstance(frames, str):
            from fastseg_runtime.frames.video import FrameSource  # needs OpenCV

            frames = FrameSource(frames, self.color)
        return iter(stream(self, frames, **options))

    def benchmark(self, iterations: int = 100, warmup: int = 10) -> Dict[str, Any]:
        """Time infer() on a noise frame of the input's size.

        Returns:
            "fps" (frames over wall time), "avg_time_ms", "p50_ms", "p90_ms", "p99_ms" (None where
            there were too few frames to say), "iterations", and "stages" as `timing` has them.
        """
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}; expected 1 or more")
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
        """Return p50, p90 and p99 of the stages of the last 1000 frames, in milliseconds."""
        return self._times.summary()

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

    def _infer_one(self, image: Any, out: Optional[Any]) -> Any:
        if on_gpu(image):
            if not self._reads_gpu or self.color == "bgr":
                raise ValueError(
                    "frames in GPU memory need the tensorrt backend and RGB, this session has "
                    f"{self.info.backend} and {self.color}; give a numpy array, as "
                    "frame.cpu().numpy()"
                )
            if out is None:
                out = np.empty((self.input.height, self.input.width), np.uint8)
            with self._pool.engine() as runner:
                runner.infer_on_gpu(image, out)
            return out
        frame_HW3 = as_rgb_uint8(image)
        out = _checked_out(out, frame_HW3.shape[:2])
        with self._pool.engine() as runner:
            runner.infer(frame_HW3, out, swap=self.color == "bgr")
        return out


def _checked_out(out: Optional[Any], shape: Tuple[int, ...]) -> Array:
    """Return an array for the ids: the caller's, or a new one; ValueError if it does not fit."""
    if out is None:
        return np.empty(shape, np.uint8)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.uint8:
        found = f"{getattr(out, 'dtype', type(out).__name__)} {getattr(out, 'shape', '')}"
        raise ValueError(f"out must be a numpy array of uint8 {shape}, got {found}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; give an array of your own, or a copy of this one")
    return out


class EnginePool:
    """Lends engines to threads, one frame each at a time; who finds none free waits."""

    def __init__(self, runners: Sequence[FrameRunner], close: Callable[[], None]) -> None:
        self._count, self._close = len(runners), close
        self._free: LifoQueue[FrameRunner] = LifoQueue()  # novm: not evaluated in a function
        for runner in runners:
            self._free.put(runner)
        self._closing, self._closed = threading.Lock(), False

    @contextmanager
    def engine(self) -> Iterator[FrameRunner]:
        """Hold an engine.

        Raises:
            RuntimeError: the session is closed.
        """
        runner = self._free.get()
        try:
            if self._closed:
                raise RuntimeError("this session is closed; open the model again")
            yield runner
        finally:
            self._free.put(runner)

    def close(self) -> None:
        """Wait for the frames under way, then free the engines; may be called twice."""
        with self._closing:
            if self._closed:
                return
            runners: List[FrameRunner] = []
            try:
                while len(runners) < self._count:  # Ctrl-C may end the wait for one in use
                    runners.append(self._free.get())
                self._closed = True
                self._close()
            finally:
                for runner in runners:  # for threads that wait: they are told
                    self._free.put(runner)
