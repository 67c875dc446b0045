"""fastseg-run INPUT...: pictures, videos and cameras through a session, into overlays and masks."""

import os
import sys
import threading
from argparse import Namespace
from collections import Counter, deque
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Callable, Deque, Dict, List, Optional, Sequence, Tuple

import numpy as np

from fastseg_runtime.arrays.command import (
    BUGS,
    DONE,
    FAILED,
    Stopped,
    UsageError,
    complain,
    in_words,
    on_signals,
)
from fastseg_runtime.arrays.image import SUFFIXES as IMAGE_SUFFIXES
from fastseg_runtime.arrays.image import encode_class_map, encode_rgb, read_image
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.terminal import ProgressLine, printable
from fastseg_runtime.bundle.manifest import ClassInfo, palette
from fastseg_runtime.cli.coco import CocoFile
from fastseg_runtime.cli.examine import check_usage, open_session, print_json, refuse_existing
from fastseg_runtime.engines.model_file import find_shipped
from fastseg_runtime.frames.session import RealtimeSegmentation
from fastseg_runtime.frames.sources import parse_source
from fastseg_runtime.frames.stream import VIDEO_SUFFIXES, StreamFrame

Progress = Callable[[int, int], None]
# Kind of input -> suffixes of the file that its result may be written to, the usual one first.
_VIDEO_RESULTS = (".mp4", ".mov", ".mkv", ".avi")
RESULT_SUFFIXES = {"image": (".png",), "video": _VIDEO_RESULTS, "camera": _VIDEO_RESULTS}


@dataclass(frozen=True)
class Job:
    """One picture, video or camera, and where its result goes."""

    source: str
    kind: str  # "image", "video" or "camera", which is whatever is live
    output: Path  # without suffix, unless it is the name of the file to write
    names_file: bool = False


@dataclass(frozen=True)
class _Plan:
    """What is run, the files that it writes, and the one of annotations if they are asked for."""

    jobs: List[Job]
    outputs: List[Path]
    annotations: Optional[Path]


class InputError(UsageError):
    """An input does not exist, or holds nothing to run."""


@dataclass(frozen=True)
class Result:
    """What came of one input."""

    input: str
    output: str  # the overlay, or the mask (or annotations) where only masks are saved
    width: int
    height: int
    frames: int
    fps: float  # frames over the wall time of infer(); of a video, over that of everything
    class_shares: Dict[str, float]  # fraction of pixels, classes that occur, largest first
    mask: Optional[str] = None  # beside the overlay


class ClassCounter:
    """Counts the pixels of one input by class."""

    def __init__(self) -> None:
        self._counts = np.zeros(256, np.int64)
        self._size: Tuple[int, ...] = (0, 0)

    def add(self, classes_HW: Array) -> None:
        """Count one frame."""
        self._counts += np.bincount(classes_HW.ravel(), minlength=256)
        self._size = classes_HW.shape

    def result(
        self,
        source: str,
        classes: Sequence[ClassInfo],
        fps: float,
        *outputs: Path,
        frames: int = 1,
    ) -> Result:
        """Return what came of the input."""
        total = max(int(self._counts.sum()), 1)
        found = [(entry.name, int(count) / total) for entry, count in zip(classes, self._counts)]
        shares = dict(sorted(((n, s) for n, s in found if s), key=lambda item: -item[1]))
        (height, width), (output, *beside) = self._size, map(str, outputs)
        return Result(
            parse_source(source).shown, output, width, height, frames, fps, shares, *beside
        )


def run_inputs(options: Namespace) -> int:
    """Run pictures, folders, videos and cameras, with a shipped network if no model is named."""
    plan = _plan(options)
    results: List[Result] = []
    failures: List[Dict[str, str]] = []
    signals: List[int] = []  # that ended it; 0: of a live video, which runs until then

    def note(number: int, frame: Optional[FrameType]) -> None:
        if signals:
            raise Stopped(number)  # the second one does not wait
        signals.append(number)

    with ExitStack() as stack:
        session = stack.enter_context(open_session(options))
        coco, on_frame = None, None
        if plan.annotations is not None:
            coco = CocoFile(plan.annotations, session.classes, [job.source for job in plan.jobs])
            stack.enter_context(coco)
        if options.view:
            from fastseg_runtime.frames.view import View  # a server: for who wants one alone

            view = stack.enter_context(View(session, options.view, plan.outputs[0].parent))
            on_frame = view.show
        progress = stack.enter_context(ProgressLine("done"))
        stack.enter_context(on_signals(note))  # ends it after the picture under way
        for index, job in enumerate(plan.jobs):
            if len(plan.jobs) > 1:
                progress(index, len(plan.jobs))
            try:
                if job.kind == "image":
                    result = _run_image(session, job, options.save, coco)
                else:
                    result = _run_video(session, job, options, progress, signals, coco, on_frame)
            except BUGS:
                raise
            except Exception as error:  # one that fails does not stop the others
                failures.append(_describe_failure(job, error))
                progress.clear()
                complain("fastseg-run", failures[-1]["error"])
            else:
                results.append(result)
                progress.clear()
                if not options.json:
                    print(printable(_describe_result(result)), flush=True)
            if signals:
                break
        used = {
            "backend": session.info.backend,
            "target": session.info.target,
            "usage": session.manifest.model.usage,
        }
    if options.json:
        print_json({"inputs": list(map(asdict, results)), "failed": failures, **used})
    elif len(plan.jobs) > 1:
        print(f"{len(results)} of {len(plan.jobs)} done")
    if any(signals):
        raise Stopped(signals[0])
    return FAILED if failures else DONE


def _plan(options: Namespace) -> _Plan:
    """Fill in what the user left out, and refuse what cannot be, before a model is opened."""
    annotations = plan_annotations(options) if options.format == "coco" else None
    jobs = plan_jobs(options.inputs, options.output)
    if annotations and any(job.kind == "camera" for job in jobs):  # its regions fill the memory
        raise InputError("--format coco is for pictures and videos; record the camera first")
    options.save = options.save or ("mask" if annotations else "overlay")
    outputs = [path for job in jobs for path in _outputs(job, options.save, annotations)]
    refuse_inputs(outputs, jobs)
    refuse_existing(outputs, options)
    if options.model is None:
        options.model = find_shipped()
        print(f"no bundle named: taking {options.model.stem}", file=sys.stderr)
    check_usage(options)
    for name in ("view", "steady"):
        if getattr(options, name) and all(job.kind == "image" for job in jobs):
            raise UsageError(f"--{name} is for videos and cameras; name one")
    return _Plan(jobs, outputs, annotations)


def _describe_failure(job: Job, error: Exception) -> Dict[str, str]:
    text = " ".join(in_words(error).split()) or type(error).__name__
    name = parse_source(job.source).shown
    return {"input": name, "error": text if name in text else f"{name}: {text}"}


def _describe_result(result: Result) -> str:
    largest = list(result.class_shares.items())[:4]
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in largest)
    where = result.output + (f" and {result.mask}" if result.mask else "")
    return (
        f"{result.input}: {result.width}x{result.height}, {result.fps:.1f} FPS, {shares} -> {where}"
    )


def _run_image(
    session: RealtimeSegmentation, job: Job, save: str, coco: Optional[CocoFile]
) -> Result:
    image_HW3 = read_image(Path(job.source))
    start = perf_counter()
    classes_HW = session.infer(image_HW3)
    seconds = perf_counter() - start
    counter = ClassCounter()
    counter.add(classes_HW)
    outputs = _outputs(job, save, coco.path if coco else None)
    if save != "mask":
        write_file(outputs[0], encode_rgb(session.overlay(image_HW3, classes_HW)))
    if coco is not None:
        coco.add(job.source, classes_HW)
    elif save != "overlay":
        write_file(outputs[-1], encode_class_map(classes_HW, palette(session.classes)))
    return counter.result(job.source, session.classes, 1 / seconds, *outputs)


def _run_video(
    session: RealtimeSegmentation,
    job: Job,
    options: Namespace,
    progress: Progress,
    signals: List[int],
    coco: Optional[CocoFile],
    on_frame: Optional[Callable[[StreamFrame], None]],
) -> Result:
    """Write one video; for "both", overlay and mask side by side.

    A signal ends it after the frame under way, and is added to `signals`.
    """
    save, stop, written, is_live = options.save, threading.Event(), 0, job.kind == "camera"
    drawn: Deque[Array] = deque()  # class maps of pictures that are not in the video yet

    def note(number: int, frame: Optional[FrameType]) -> None:
        if stop.is_set():
            raise Stopped(number)  # the second one does not wait
        signals.append(0 if is_live else number)
        stop.set()

    def show(done: int, total: int) -> None:
        nonlocal written, is_live
        is_live = is_live and not total  # a URL may be that of a file
        while written < done:
            written += 1
            classes_HW = drawn.popleft()
            counter.add(classes_HW)
            if coco is not None:
                coco.add(job.source, classes_HW, written)
        progress(done, total)

    counter, colors_K3 = ClassCounter(), palette(session.classes)

    def draw(frame_HW3: Array, classes_HW: Array) -> Array:
        drawn.append(classes_HW.copy())
        if save == "mask":
            return colors_K3[classes_HW]
        overlay_HW3 = session.overlay(frame_HW3, classes_HW)
        if save == "both":
            return np.hstack([overlay_HW3, colors_K3[classes_HW]])
        return overlay_HW3

    output, *beside = _outputs(job, save, coco.path if coco else None)
    with on_signals(note):
        fps = session.infer_video(
            job.source,
            output,
            show,
            draw,
            stop,
            options.overwrite,
            on_frame,
            options.steady,
        )
    return counter.result(job.source, session.classes, fps, output, *beside, frames=written)


def _outputs(job: Job, save: str, annotations: Optional[Path]) -> List[Path]:
    """Return the files that a job writes, the usual one first, and the annotations."""
    kinds = [kind for kind in ("overlay", "mask") if save in (kind, "both")]
    if job.kind != "image":
        kinds = kinds[:1]
    elif annotations:
        kinds = [kind for kind in kinds if kind != "mask"]
    outputs = [_output_name(job, kind, save) for kind in kinds]
    return [*outputs, annotations] if annotations else outputs


def _output_name(job: Job, kind: str, save: str) -> Path:
    if job.names_file and kind == ("mask" if save == "mask" else "overlay"):
        return job.output
    stem = job.output.stem if job.names_file else job.output.name
    return job.output.with_name(f"{stem}.{kind}{RESULT_SUFFIXES[job.kind][0]}")


def plan_jobs(inputs: Sequence[str], output: Path) -> List[Job]:
    """Turn inputs into jobs.

    Args:
        inputs: pictures, folders of pictures, videos, "camera:0".
        output: a folder; or, for one picture or video alone, a file.

    Raises:
        InputError: a missing file, a folder without pictures, an unknown kind of file, or an output
            that cannot hold the result.
    """
    sources = [source for name in inputs for source in _expand(name)]
    if output.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) and not output.is_dir():
        if len(sources) > 1:
            raise InputError(
                f"{len(sources)} inputs do not fit into one file {output}; name a folder"
            )
        return [_job_into_file(sources[0], output)]
    names = [_result_name(source) for source in sources]
    stems = [name.rpartition(".")[0] or name for name in names]
    # "a.jpg" and "a.png" give results "a" unless both are there.
    times = Counter(stems)
    unique = [stem if times[stem] == 1 else name for stem, name in zip(stems, names)]
    if len(set(unique)) < len(unique):
        unique = [f"{index:04d}-{name}" for index, name in enumerate(names)]
    return [Job(s, kind_of(s), output / name) for s, name in zip(sources, unique)]


def refuse_inputs(outputs: Sequence[Path], jobs: Sequence[Job]) -> None:
    """Raise InputError if what comes of one input would take the place of one, --overwrite or not.

    A folder that has been run into itself holds its own results.
    """
    sources = {_file_id(path): path for path in (Path(job.source) for job in jobs)}
    for output in outputs:
        source = sources.get(_file_id(output))
        if output.is_file() and source is not None:
            raise InputError(
                f"{output} is an input; name another file or folder, or leave {source} out"
            )


def _file_id(path: Path) -> Tuple[int, int]:
    """Return what all names of a file have in common; (0, 0) where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # a URL may be no path at all
        return 0, 0
    return status.st_dev, status.st_ino  # as os.path.samefile has it


def plan_annotations(options: Namespace) -> Path:
    """Return where annotations go: a .json that --output names, or into its folder."""
    output: Path = options.output
    if output.suffix.lower() != ".json" or output.is_dir():
        named = output.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) and not output.is_dir()
        return (output.parent if named else output) / "annotations.json"
    options.output = output.parent
    return output


def is_input(name: str) -> bool:
    """Return whether a name is that of something to run, not of a model."""
    with suppress(InputError):
        return bool(kind_of(name))
    return Path(name).is_dir()


def kind_of(source: str) -> str:
    """Return "image", "video" or "camera".

    Raises:
        InputError: a file of another kind.
    """
    suffix, name = Path(source).suffix.lower(), parse_source(source)
    if name.kind != "file":
        return "camera" if name.is_live else "video"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in IMAGE_SUFFIXES:
        return "image"
    raise InputError(
        f"{source} is neither a picture ({', '.join(IMAGE_SUFFIXES)}) nor a video "
        f"({', '.join(VIDEO_SUFFIXES)}); convert it, or give its folder"
    )


def _expand(name: str) -> List[str]:
    path = Path(name)
    if os.path.isdir(name):  # Path.is_dir() fails for a pipeline of 256 letters
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise InputError(f"no pictures in {name}; expected *{', *'.join(IMAGE_SUFFIXES)}")
        return [str(file) for file in files]
    if parse_source(name).kind == "file" and not os.path.isfile(name):
        raise InputError(
            f"no such file or folder: {name}; expected a picture, folder, video or camera:N"
        )
    kind_of(name)
    return [name]


def _job_into_file(source: str, output: Path) -> Job:
    kind = kind_of(source)
    suffixes = RESULT_SUFFIXES[kind]
    if output.suffix.lower() not in suffixes:
        raise InputError(
            f"{output} cannot hold what comes of {parse_source(source).shown}; "
            "expected a name that ends in "
            f"{' or '.join(suffixes)}, or a folder"
        )
    return Job(source, kind, output, names_file=True)


def _result_name(source: str) -> str:
    name = parse_source(source)
    return Path(source).name if name.kind == "file" else f"{name.stem}.mp4"
