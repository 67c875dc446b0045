"""One frame through preprocessing, engine and postprocessing, with buffers that are made once.

"stretch" fills the network's input with the frame; "letterbox" keeps its proportions, centres it
and fills the rest with the mean colour, which the normalisation turns into zero.
"""

from contextlib import contextmanager
from time import perf_counter
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from fastseg_runtime.arrays.image import BilinearResizer, opencv, shrink, swap_channels, taps
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.stats import StageTimes
from fastseg_runtime.bundle.manifest import Artifact, InputSpec, OutputSpec
from fastseg_runtime.bundle.reader import BundleError
from fastseg_runtime.engines.backend import CONFIDENCE, Backend, BuiltBackend, on_gpu

# Frames that are larger by more than that are averaged: two neighbours of a place are not all that
# a pixel covers, and what lies between them would be skipped.
MOST_BILINEAR = 2.0
CERTAIN = 255  # a confidence of 1
NO_CONFIDENCE = "this artifact gives no confidence; export one with fastseg-export --confidence"


class Placement(NamedTuple):
    """The part of the network's input that the frame covers, in pixels."""

    top: int
    left: int
    height: int
    width: int


def place(frame_size: Tuple[int, int], spec: InputSpec) -> Placement:
    """Return where a frame of (height, width) lies in the input.

    Raises:
        ValueError: the manifest asks for a way of resizing that is not known here.
    """
    if spec.resize == "stretch":
        return Placement(0, 0, spec.height, spec.width)
    if spec.resize != "letterbox":
        raise ValueError(f"input.resize is {spec.resize!r}; expected 'stretch' or 'letterbox'")
    scale = min(spec.height / frame_size[0], spec.width / frame_size[1])
    height, width = (max(1, round(side * scale)) for side in frame_size)
    return Placement((spec.height - height) // 2, (spec.width - width) // 2, height, width)


class FrameFit:
    """Brings frames of one size into the network's input and class maps back to that size.

    Args:
        frame_size: (height, width) of the frames.
        spec: the network's input.
        mask_size: (height, width) of the class maps that the engine gives.
        swap: frames are BGR.
    """

    def __init__(
        self, frame_size: Tuple[int, int], spec: InputSpec, mask_size: Tuple[int, int], swap: bool
    ) -> None:
        self.key = (frame_size, swap)
        self.frame_size, self._swap = frame_size, swap
        self.placement = place(frame_size, spec)
        self.input_1HW3 = np.full((1, spec.height, spec.width, 3), round(spec.mean), np.uint8)
        at = self.placement
        self._inner_hw3 = self.input_1HW3[0, at.top : at.top + at.height]
        self._inner_hw3 = self._inner_hw3[:, at.left : at.left + at.width]
        self._same_size = frame_size == (at.height, at.width)
        self._fills_input = frame_size == (spec.height, spec.width)
        scales = frame_size[0] / at.height, frame_size[1] / at.width
        self._shrinks = min(scales) >= 1 and max(scales) > MOST_BILINEAR
        self._resizer: Optional[BilinearResizer] = None  # where there is no OpenCV
        self._rows = _mask_index(at.top, at.height, frame_size[0], spec.height, mask_size[0])
        self._columns = _mask_index(at.left, at.width, frame_size[1], spec.width, mask_size[1])
        self._same_mask = mask_size == frame_size and self._fills_input
        self._wide = np.empty((mask_size[0], frame_size[1]), np.uint8)

    def to_input(self, frame_HW3: Array) -> Array:
        """Return the network's input, (1, H, W, 3) RGB; valid until the next call.

        A frame that fits as it is goes in without a copy.
        """
        if self._fills_input and not self._swap and frame_HW3.flags.c_contiguous:
            return frame_HW3[None]
        if self._same_size and self._swap:
            swap_channels(frame_HW3, self._inner_hw3)
        elif self._same_size:
            np.copyto(self._inner_hw3, frame_HW3)
        else:
            self._resize(frame_HW3)
        return self.input_1HW3

    def to_frame(self, classes_hw: Array, out_HW: Array) -> None:
        """Write a class map, (h, w) uint8, into one of the frame's size."""
        if self._same_mask:
            np.copyto(out_HW, classes_hw)
            return
        np.take(classes_hw, self._columns, axis=1, out=self._wide, mode="clip")
        np.take(self._wide, self._rows, axis=0, out=out_HW, mode="clip")

    def _resize(self, frame_HW3: Array) -> None:
        cv2 = opencv()
        at = self.placement
        if cv2 is not None and frame_HW3.strides[0] < 3 * self.frame_size[1]:
            frame_HW3 = np.ascontiguousarray(frame_HW3)  # OpenCV refuses rows that overlap
        if self._shrinks:
            shrink(frame_HW3, self._inner_hw3, self._swap)
            return
        if cv2 is None:
            if self._resizer is None:
                self._resizer = BilinearResizer(self.frame_size, (at.height, at.width), self._swap)
            self._resizer(frame_HW3, self._inner_hw3)
            return
        cv2.resize(frame_HW3, (at.width, at.height), dst=self._inner_hw3)
        if self._swap:
            cv2.cvtColor(self._inner_hw3, cv2.COLOR_BGR2RGB, dst=self._inner_hw3)


def _mask_index(offset: int, covered: int, frame: int, whole: int, mask: int) -> Array:
    """Return the mask pixel under the centre of each pixel of the frame, along one axis."""
    centre = 2 * np.arange(frame, dtype=np.int64) + 1  # numpy 1 on Windows counts in 32 bits
    twice_centre = centre * covered + 2 * frame * offset
    index: Array = twice_centre * mask // (2 * frame * whole)  # integers: no rounding
    return np.minimum(index, mask - 1)


class FrameRunner:
    """Runs frames on a backend that has opened an artifact; not safe from several threads.

    Args:
        num_classes: K, that logits must have; None: any.
    """

    def __init__(
        self,
        backend: Backend,
        artifact: Artifact,
        spec: InputSpec,
        output: OutputSpec,
        num_classes: Optional[int] = None,
    ) -> None:
        self._num_classes = num_classes
        self.times = StageTimes()
        self.gives_logits = "logits" in artifact.io or output.kind == "logits"
        self.gives_confidence = self.gives_logits or CONFIDENCE in artifact.io
        self._backend, self._input = backend, spec
        self.gpu_backend = backend if isinstance(backend, BuiltBackend) else None
        self._channels_last = str(artifact.io.get("logits", "")).endswith("NHWC")
        self._padded = output.cover == "padded"
        self._mask_size = (spec.height // output.mask_stride, spec.width // output.mask_stride)
        self._ids = np.empty(self._mask_size, np.uint8)
        self._decoder: Optional[LogitsToClasses] = None
        self._fit: Optional[FrameFit] = None
        self._plane_fit: Optional[PlaneToFrame] = None
        self._runs: Optional[List[Tuple[float, float]]] = None  # of one frame; see one_frame()

    @contextmanager
    def one_frame(self) -> Iterator[None]:
        """Time what is run meanwhile as one frame; what lies between the runs is its "post"."""
        start, self._runs = perf_counter(), []
        try:
            yield
            pre_s, infer_s = map(sum, zip(*self._runs))
            self.times.add((pre_s, infer_s, perf_counter() - start - pre_s - infer_s))
        finally:
            self._runs = None

    def _note(self, start: float, prepared: float, inferred: float) -> None:
        """Take note of a run that is done now."""
        if self._runs is None:
            self.times.add((prepared - start, inferred - prepared, perf_counter() - inferred))
        else:
            self._runs.append((prepared - start, inferred - prepared))

    def infer(
        self,
        frame_HW3: Array,
        out_HW: Array,
        swap: bool = False,
        confidence_HW: Optional[Array] = None,
    ) -> None:
        """Write the class ids of a frame, uint8, RGB or `swap`ped, into `out_HW`, uint8.

        Likewise its confidence; ValueError if one is wanted and the artifact gives none.
        """
        start = perf_counter()
        fit = self._fit_for(frame_HW3.shape[:2], swap)
        image_1HW3 = fit.to_input(frame_HW3)
        prepared = perf_counter()
        result = self._backend.infer(image_1HW3)
        inferred = perf_counter()
        fit.to_frame(self.class_map(result), out_HW)
        if confidence_HW is not None:
            self._confidence_to_frame(result, fit, confidence_HW)
        self._note(start, prepared, inferred)

    def infer_new(self, image_HW3: Array) -> Array:
        """Return the class ids of an RGB image, (H, W) uint8."""
        out_HW = np.empty(image_HW3.shape[:2], np.uint8)
        self.infer(image_HW3, out_HW)
        return out_HW

    def infer_on_gpu(self, frame: Any, out: Any, confidence_HW: Optional[Array] = None) -> None:
        """Write the class ids of a frame in GPU memory into `out`.

        Args:
            frame: a GPU array, uint8 (H, W, 3) RGB of the input's size, for a `gpu_backend`.
            out: a GPU array that the backend writes to, or uint8 (H, W) in host memory.
            confidence_HW: uint8 (H, W) in host memory; see infer().
        """
        start = perf_counter()
        if self.gpu_backend is not None and on_gpu(out):
            result = self.gpu_backend.infer(frame, out)
            inferred = perf_counter()
        else:
            result = self._backend.infer(frame)
            inferred = perf_counter()
            self._fit_for(out.shape, swap=False).to_frame(self.class_map(result), out)
        if confidence_HW is not None:
            fit = self._fit_for(confidence_HW.shape, swap=False)
            self._confidence_to_frame(result, fit, confidence_HW)
        self._note(start, start, inferred)

    def logits(self, frame_HW3: Array, swap: bool = False, in_frame: bool = False) -> Array:
        """Return a copy of a frame's logits, float32 (K, h, w), or (K, H, W) `in_frame`."""
        start = perf_counter()
        fit = self._fit_for(frame_HW3.shape[:2], swap)
        image_1HW3 = fit.to_input(frame_HW3)
        prepared = perf_counter()
        result = self._backend.infer(image_1HW3)
        inferred = perf_counter()
        logits_Khw: Array = self._planes(result).astype(np.float32, order="C")
        if in_frame:
            logits_Khw = self._planes_to_frame(logits_Khw, fit)
        self._note(start, prepared, inferred)
        return logits_Khw

    def _planes_to_frame(self, planes_Khw: Array, fit: "FrameFit") -> Array:
        planes_KHW: Array = np.empty((len(planes_Khw), *fit.frame_size), np.float32)
        for plane_hw, out_HW in zip(planes_Khw, planes_KHW):
            self._plane_fit_for(plane_hw.shape, fit)(plane_hw, out_HW)
        return planes_KHW

    def _confidence_to_frame(self, result: Any, fit: "FrameFit", out_HW: Array) -> None:
        if self.gives_logits:
            sure_hw = _sureness(self._planes(result))
            self._plane_fit_for(sure_hw.shape, fit)(sure_hw, out_HW)
            return
        if not isinstance(result, tuple):
            raise ValueError(NO_CONFIDENCE)
        confidence_hw = result[1]
        if confidence_hw.ndim != 3 or confidence_hw.dtype.kind not in "iu":
            raise ValueError(
                f"the engine gave a confidence of {confidence_hw.dtype} {confidence_hw.shape}, its "
                "manifest promises bytes (1, h, w); export the bundle again"
            )
        self._plane_fit_for(confidence_hw.shape[1:], fit)(confidence_hw[0], out_HW)

    def _plane_fit_for(self, size: Tuple[int, ...], fit: "FrameFit") -> "PlaneToFrame":
        key = (size, fit.frame_size)
        if self._plane_fit is None or self._plane_fit.key != key:
            self._plane_fit = PlaneToFrame(size, fit.frame_size, self._input, self._padded)
        return self._plane_fit

    def class_map(self, result: Any) -> Array:
        """Return what the engine gave as ids, (h, w) uint8; valid until the next frame."""
        if isinstance(result, tuple):
            result = result[0]
        if self.gives_logits:
            logits_Khw = self._planes(result)
            if self._decoder is None:
                self._decoder = LogitsToClasses(logits_Khw.shape[1:], self._mask_size, self._padded)
            return self._decoder(logits_Khw)
        if result.size != self._ids.size or result.dtype.kind not in "iu":
            raise ValueError(
                f"the engine gave {result.dtype} {result.shape}, its manifest promises class maps "
                f"of {self._mask_size}; export the bundle again"
            )
        ids_hw: Array = result.reshape(self._mask_size)
        if ids_hw.dtype != np.uint8:
            np.copyto(self._ids, ids_hw, casting="unsafe")
            return self._ids
        return ids_hw

    def _planes(self, result: Any) -> Array:
        if result.ndim != 4 or result.dtype.kind != "f":
            raise ValueError(
                f"the engine gave {result.dtype} {result.shape}, its manifest promises logits, "
                "float (1, K, h, w); export the bundle again"
            )
        logits_Khw: Array = result[0].transpose(2, 0, 1) if self._channels_last else result[0]
        if self._num_classes not in (None, len(logits_Khw)):
            raise BundleError(
                f"the network tells {len(logits_Khw)} classes apart, the manifest names "
                f"{self._num_classes}; export the bundle again"
            )
        return logits_Khw

    def _fit_for(self, size: Tuple[int, int], swap: bool) -> FrameFit:
        if self._fit is None or self._fit.key != (size, swap):
            self._fit = FrameFit(size, self._input, self._mask_size, swap)
        return self._fit


def _sureness(logits_Khw: Array) -> Array:
    """Return 255 times the softmax of the best class."""
    sure_hw: Array = CERTAIN / np.exp(logits_Khw - logits_Khw.max(axis=0)).sum(axis=0)
    return sure_hw


class PlaneToFrame:
    """Brings planes (h, w) that cover the network's input into the frame, bilinearly."""

    def __init__(
        self, size: Tuple[int, ...], frame_size: Tuple[int, int], spec: InputSpec, padded: bool
    ) -> None:
        self.key = (size, frame_size)
        at = place(frame_size, spec)
        down, across = plane_scales(size, (spec.height, spec.width), padded)
        top, _, self._down = taps(
            size[0], frame_size[0], down * at.height / frame_size[0], down * at.top
        )
        # Rows of the frame that lie between the same two of the plane are made at once.
        starts = np.flatnonzero(np.diff(top, prepend=-1))
        self._bands = list(zip(top[starts], starts, [*starts[1:], len(top)]))
        self._left, self._right, self._across = taps(
            size[1], frame_size[1], across * at.width / frame_size[1], across * at.left
        )

    def __call__(self, plane_hw: Array, out_HW: Array) -> None:
        """Write a plane into one of the frame's size; where that has bytes, rounded."""
        left, right = (plane_hw[:, side].astype(np.float32) for side in (self._left, self._right))
        wide_hW = left + (right - left) * self._across
        wide_hW += np.float32(0.5 if out_HW.dtype == np.uint8 else 0)  # the cast cuts off
        steps_hW = np.diff(wide_hW, axis=0, append=wide_hW[-1:])
        for top, start, stop in self._bands:
            mixed = self._down[start:stop, None] * steps_hW[top]
            np.add(mixed, wide_hW[top], out=out_HW[start:stop], casting="unsafe")


def plane_scales(
    size: Tuple[int, ...], image_size: Tuple[int, int], padded: bool
) -> Tuple[float, float]:
    """Return how many pixels of a plane lie on one of the network's input, down and across.

    Logits of FastSegNet cover its padding too (`padded`): they grow by a whole factor, and what
    hangs over is cut off.
    """
    factors = [-(-big // small) for small, big in zip(size, image_size)]
    if padded and factors[0] == factors[1]:
        return 1 / factors[0], 1 / factors[1]
    down, across = (small / big for small, big in zip(size, image_size))
    return down, across


class LogitsToClasses:
    """Turns logits of one size into class maps of another, in buffers of its own.

    The same arithmetic as the graphs' own: bilinear by pixel centres, ties to the lowest id.

    Args:
        logits_size: (h, w).
        mask_size: (H, W) of the class map.
        padded: see plane_scales().
    """

    def __init__(
        self, logits_size: Tuple[int, int], mask_size: Tuple[int, int], padded: bool = True
    ) -> None:
        scales = plane_scales(logits_size, mask_size, padded)
        self._top, self._bottom, self._down = taps(logits_size[0], mask_size[0], scales[0])
        self._left, self._right, self._across = taps(logits_size[1], mask_size[1], scales[1])
        self.classes_HW = np.empty(mask_size, np.uint8)
        self._best, self._plane, self._mixed = np.empty((3, *mask_size), np.float32)
        self._better = np.empty(mask_size, bool)

    def __call__(self, logits_Khw: Array) -> Array:
        """Return the ids of the largest upsampled logits, (H, W) uint8; reused by the next call."""
        self.classes_HW.fill(0)
        self._upsample(logits_Khw[0], self._best)
        for index in range(1, len(logits_Khw)):
            self._upsample(logits_Khw[index], self._plane)
            np.greater(self._plane, self._best, out=self._better)
            np.copyto(self.classes_HW, index, where=self._better, casting="unsafe")
            np.maximum(self._plane, self._best, out=self._best)
        return self.classes_HW

    def _upsample(self, plane_hw: Array, out_HW: Array) -> None:
        left, right = plane_hw[:, self._left], plane_hw[:, self._right]
        wide_hW = left + (right - left) * self._across
        np.take(wide_hW, self._top, axis=0, out=out_HW, mode="clip")
        np.take(wide_hW, self._bottom, axis=0, out=self._mixed, mode="clip")
        self._mixed -= out_HW
        self._mixed *= self._down[:, None]
        out_HW += self._mixed
