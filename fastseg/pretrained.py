"""The weights that ship with the package, by name; docs/models.md is their model card."""

import functools
import sys
from pathlib import Path

from fastseg_runtime.bundle.usage import describe_usage
from fastseg_runtime.engines.model_file import PREFERRED

from fastseg.checkpoint import CheckpointError, CheckpointInfo, load_checkpoint
from fastseg.fastsegnet import FastSegNet

FOLDER = Path(__file__).parent / "weights"


def names() -> list[str]:
    """Return the names of the shipped weights, such as "base-camvid"."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def default() -> str | None:
    """Return the name of the network that is taken where none is named, None if none ships."""
    shipped = names()
    return next((name for name in (*PREFERRED, *shipped) if name in shipped), None)


def find(name: str) -> Path | None:
    """Return the file of shipped weights, or None if there are none of that name."""
    return FOLDER / f"{name}.safetensors" if name in names() else None


def file_of(spec: str | Path) -> Path:
    """Return a file of weights, or that of a network that ships under this name.

    Raises:
        CheckpointError: there is neither; the message lists those that ship.
    """
    path = Path(spec) if Path(spec).exists() else find(str(spec))
    if path is None:
        raise CheckpointError(f"no file {spec}; of networks that ship: {', '.join(names())}")
    return path


def load(name: str, num_classes: int | None = None) -> tuple[FastSegNet, CheckpointInfo]:
    """Open shipped weights and say on stderr, once, what they were trained on.

    See load_checkpoint for what is returned, and for another number of classes.

    Raises:
        CheckpointError: there are none of that name; the message lists those that ship.
    """
    path = find(name)
    if path is None:
        raise CheckpointError(
            f"no shipped network {name!r}; choose one of {', '.join(names()) or '(none ships)'}"
        )
    model, info = load_checkpoint(path, num_classes)
    usage = f"; {describe_usage(info.usage)}" if info.usage else ""
    _tell(f"{name}: trained on {info.trained_on}; licence of the data: {info.data_licence}{usage}")
    return model, info


@functools.cache
def _tell(line: str) -> None:
    print(line, file=sys.stderr)
