"""What fastseg-run has to do: the inputs named on the command line, and where results go."""

from dataclasses import dataclass
from pathlib import Path
from typing import List, Sequence

from fastseg_runtime.arrays.command import UsageError
from fastseg_runtime.arrays.image_files import SUFFIXES as IMAGE_SUFFIXES

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
CAMERA = "camera:"
# Kind of input -> suffixes of the file that its result may be written to, the usual one first.
_VIDEO_RESULTS = (".mp4", ".mov", ".mkv", ".avi")
RESULT_SUFFIXES = {"image": (".png",), "video": _VIDEO_RESULTS, "camera": _VIDEO_RESULTS}


@dataclass(frozen=True)
class Job:
    """One picture, video or camera, and where its result goes."""

    source: str
    kind: str  # "image", "video" or "camera"
    output: Path  # without suffix, unless it is the name of the file to write
    names_file: bool = False


class InputError(UsageError):
    """An input does not exist, or holds nothing to run."""


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
    unique = [stem if stems.count(stem) == 1 else name for stem, name in zip(stems, names)]
    if len(set(unique)) < len(unique):
        unique = [f"{index:04d}-{name}" for index, name in enumerate(names)]
    return [Job(s, kind_of(s), output / name) for s, name in zip(sources, unique)]


def is_input(name: str) -> bool:
    """Return whether a name is that of something to run, not of a model."""
    suffix = Path(name).suffix.lower()
    return (
        name.startswith(CAMERA)
        or suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
        or Path(name).is_dir()
    )


def kind_of(source: str) -> str:
    """Return "image", "video" or "camera".

    Raises:
        InputError: a file of another kind.
    """
    suffix = Path(source).suffix.lower()
    if source.startswith(CAMERA):
        return "camera"
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
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise InputError(f"no pictures in {name}; expected *{', *'.join(IMAGE_SUFFIXES)}")
        return [str(file) for file in files]
    if not (name.startswith(CAMERA) or path.is_file()):
        raise InputError(
            f"no such file or folder: {name}; expected a picture, folder, video or {CAMERA}N"
        )
    kind_of(name)
    return [name]


def _job_into_file(source: str, output: Path) -> Job:
    kind = kind_of(source)
    suffixes = RESULT_SUFFIXES[kind]
    if output.suffix.lower() not in suffixes:
        raise InputError(
            f"{output} cannot hold what comes of {source}; expected a name that ends in "
            f"{' or '.join(suffixes)}, or a folder"
        )
    if output.exists() and kind != "camera" and output.samefile(source):
        raise InputError(f"{output} is the input; name another file or a folder")
    return Job(source, kind, output, names_file=True)


def _result_name(source: str) -> str:
    return source.replace(":", "") + ".mp4" if source.startswith(CAMERA) else Path(source).name
