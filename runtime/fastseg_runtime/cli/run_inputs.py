"""fastseg-run INPUT...: pictures, videos and cameras through a session, into overlays and masks."""

import sys
from argparse import Namespace
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from fastseg_runtime.arrays.command import BUGS, DONE, FAILED, complain
from fastseg_runtime.arrays.image_files import encode_class_map, encode_rgb, read_image
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.plain_text import printable
from fastseg_runtime.arrays.progress import ProgressLine
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.bundle.palette import palette
from fastseg_runtime.cli.examine import check_usage, open_session, print_json
from fastseg_runtime.engines.model_file import find_shipped
from fastseg_runtime.frames.job import RESULT_SUFFIXES, Job, plan_jobs
from fastseg_runtime.frames.session import RealtimeSegmentation

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Result:
    """What came of one input."""

    input: str
    output: str  # the overlay, or the mask where only masks are saved
    width: int
    height: int
    frames: int
    fps: float  # frames over the wall time of infer(); of a video, over that of everything
    class_shares: Dict[str, float]  # fraction of pixels, classes that occur, largest first
    mask: Optional[str] = None  # beside the overlay


@dataclass(frozen=True)
class Failure:
    """An input that could not be run."""

    input: str
    error: str  # a sentence that names the input


@dataclass
class ClassCounter:
    """Counts pixels by class over frames."""

    counts: Array = field(default_factory=lambda: np.zeros(256, np.int64))
    frames: int = 0
    size: Tuple[int, int] = (0, 0)

    def add(self, classes_HW: Array) -> None:
        """Count one frame."""
        self.counts += np.bincount(classes_HW.ravel(), minlength=256)
        self.frames += 1
        self.size = (classes_HW.shape[0], classes_HW.shape[1])

    def shares(self, classes: Sequence[ClassInfo]) -> Dict[str, float]:
        """Return the fraction of pixels of each class that occurs, largest first."""
        total = max(int(self.counts.sum()), 1)
        found = [(entry.name, int(count) / total) for entry, count in zip(classes, self.counts)]
        return dict(sorted(((n, s) for n, s in found if s), key=lambda item: -item[1]))


def run_inputs(options: Namespace) -> int:
    """Run pictures, folders, videos and cameras, with a shipped network if no model is named."""
    jobs = plan_jobs(options.inputs, options.output)
    if options.model is None:
        options.model = find_shipped()
        print(f"no bundle named: taking {options.model.stem}", file=sys.stderr)
    check_usage(options)
    results: List[Result] = []
    failures: List[Failure] = []
    with open_session(options) as session, ProgressLine("done") as progress:
        for outcome in run_jobs(session, jobs, options.save, progress):
            progress.clear()
            if isinstance(outcome, Failure):
                failures.append(outcome)
                complain("fastseg-run", outcome.error)
            else:
                results.append(outcome)
                if not options.json:
                    print(printable(_describe_result(outcome)), flush=True)
        used = {
            "backend": session.info.backend,
            "target": session.info.target,
            "usage": session.manifest.model.usage,
        }
    if options.json:
        inputs, failed = ([asdict(item) for item in items] for items in (results, failures))
        print_json({"inputs": inputs, "failed": failed, **used})
    elif len(jobs) > 1:
        print(f"{len(results)} of {len(jobs)} done")
    return FAILED if failures else DONE


def _describe_result(result: Result) -> str:
    largest = list(result.class_shares.items())[:4]
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in largest)
    where = result.output + (f" and {result.mask}" if result.mask else "")
    return (
        f"{result.input}: {result.width}x{result.height}, {result.fps:.1f} FPS, {shares} -> {where}"
    )


def run_jobs(
    session: RealtimeSegmentation, jobs: Sequence[Job], save: str, progress: Progress
) -> Iterator[Any]:
    """Yield a Result or a Failure for each job; one that fails does not stop the others.

    Args:
        session: takes RGB.
        jobs: from plan_jobs.
        save: "overlay", "mask" or "both".
        progress: called with what is done and the total: of pictures, or of a video's frames.
    """
    for index, job in enumerate(jobs):
        if len(jobs) > 1:
            progress(index, len(jobs))
        try:
            if job.kind == "image":
                yield _run_image(session, job, save)
            else:
                yield _run_video(session, job, save, progress)
        except BUGS:
            raise
        except Exception as error:  # engines and OpenCV raise classes of their own
            text = " ".join(str(error).split()) or type(error).__name__
            yield Failure(job.source, text if job.source in text else f"{job.source}: {text}")


def _run_image(session: RealtimeSegmentation, job: Job, save: str) -> Result:
    image_HW3 = read_image(Path(job.source))
    start = perf_counter()
    classes_HW = session.infer(image_HW3)
    seconds = perf_counter() - start
    counter = ClassCounter()
    counter.add(classes_HW)
    names = [_output_name(job, kind, save) for kind in ("overlay", "mask")]
    if save != "mask":
        write_file(names[0], encode_rgb(session.overlay(image_HW3, classes_HW)))
    if save != "overlay":
        write_file(names[1], encode_class_map(classes_HW, palette(session.classes)))
    return _result(session, job, counter, 1 / seconds, names, save)


def _run_video(session: RealtimeSegmentation, job: Job, save: str, progress: Progress) -> Result:
    """Write one video; for "both", overlay and mask side by side."""
    counter, colors_K3 = ClassCounter(), palette(session.classes)

    def draw(frame_HW3: Array, classes_HW: Array) -> Array:
        counter.add(classes_HW)
        if save == "mask":
            return colors_K3[classes_HW]
        overlay_HW3 = session.overlay(frame_HW3, classes_HW)
        if save == "both":
            return np.hstack([overlay_HW3, colors_K3[classes_HW]])
        return overlay_HW3

    kind = "overlay" if save == "both" else save
    name = _output_name(job, kind, save)
    fps = session.infer_video(job.source, str(name), progress, draw)
    return _result(session, job, counter, fps, [name, name], kind)


def _output_name(job: Job, kind: str, save: str) -> Path:
    if job.names_file and kind == ("mask" if save == "mask" else "overlay"):
        return job.output
    stem = job.output.stem if job.names_file else job.output.name
    return job.output.with_name(f"{stem}.{kind}{RESULT_SUFFIXES[job.kind][0]}")


def _result(
    session: RealtimeSegmentation,
    job: Job,
    counter: ClassCounter,
    fps: float,
    names: Sequence[Path],
    save: str,
) -> Result:
    return Result(
        input=job.source,
        output=str(names[1] if save == "mask" else names[0]),
        width=counter.size[1],
        height=counter.size[0],
        frames=counter.frames,
        fps=fps,
        class_shares=counter.shares(session.classes),
        mask=str(names[1]) if save == "both" else None,
    )
