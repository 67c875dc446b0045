"""How a network of others is used: what its TOML file says, and how it is opened for given data.

Shape letters: C classes of a network, K of the data.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from fastseg_exporters.convert.source import NetworkSource
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_runtime.bundle.manifest import ClassInfo, numbered_classes
from fastseg_training.class_map import ClassMap, listed, read_class_map

from fastseg import open_network, pretrained
from fastseg.backend_onnx import OnnxFile
from fastseg.checkpoint import CheckpointError, read_info
from fastseg.data import Dataset
from fastseg.network import is_factory, is_onnx
from fastseg.normalization import Normalization, parse_normalization
from fastseg.outputs import Reading

MAX_BYTES = 100_000


@dataclass(frozen=True)
class Rival:
    """A TOML file that says how a network of others is used; "" is what open_network takes.

        network = "rivals:fddwnet"      # package.module:factory, or an ONNX file
        weights = "fddwnet.pth"
        size = "960x720"                # of its input
        normalization = "imagenet"
        class_map = "cityscapes-to-camvid"

    Paths are relative to the file.

    Attributes:
        network: as every command takes it.
        weights: of a factory's network: a state dict, or the name of shipped weights.
        size: WxH of its input, pixels; "": what the file fixes, else of the data's images.
        normalization: what pictures are normalised with: a name or a TOML file.
        color: "rgb" or "bgr".
        output_name: of several outputs, the path of the logits.
        class_map: which of its classes make up those of the data; "": it has the data's own.
        threshold: of the probability above which one logit means the second class.
        fit: "stretch" or "letterbox"; "": what it says itself, else stretch.
    """

    network: str
    weights: str = ""
    size: str = ""
    normalization: str = ""
    color: str = ""
    output_name: str = ""
    class_map: str = ""
    threshold: float = Reading.threshold
    fit: str = ""


def read_rival(spec: str) -> Rival:
    """Return how a network is used: what its .toml says, else as it is.

    Raises:
        ValueError: the file says something else.
    """
    if not spec.endswith(".toml"):
        return Rival(spec)
    path = Path(spec)
    try:
        with path.open("rb") as file:
            return from_table(Rival, tomllib.loads(file.read(MAX_BYTES).decode("utf-8")), "")
    except OSError as error:
        raise ValueError(f"cannot read {spec}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{spec} does not say how a network is used: {error}") from error


def source_of(spec: str, samples: Dataset) -> tuple[NetworkSource, Array | None]:
    """Return how a network is opened, and where its ids go if a class map says that.

    Args:
        spec: see open_network, or a Rival's .toml.
        samples: whose classes and size are taken where it has none of its own.

    Raises:
        CheckpointError: its weights or its ONNX file cannot be read.
        ConfigError: its class map cannot be read.
        ValueError: the file says something else, or does not fit the network.
    """
    rival = read_rival(spec)
    beside = partial(_beside, Path(spec).parent if spec.endswith(".toml") else Path())
    at_hand, weights = beside(rival.network), beside(rival.weights)
    own = is_factory(at_hand) or is_onnx(at_hand)
    file = OnnxFile(Path(at_hand)) if is_onnx(at_hand) and Path(at_hand).is_file() else None
    size = parse_size(rival.size) if rival.size else None
    normalization = parse_normalization(beside(rival.normalization) or None, rival.color or None)
    if file is not None:
        _check_normalization(spec, rival, file, normalization)
    known = _own_names(at_hand, weights, file)
    classes: tuple[ClassInfo, ...] | None = None
    lookup_256: Array | None = None
    if rival.class_map:
        class_map = read_class_map(beside(rival.class_map), [c.name for c in samples.classes])
        _check_names(spec, rival, known, class_map)
        classes, lookup_256 = numbered_classes(len(class_map.teacher)), _lookup(class_map)
    elif own and not known:
        classes = samples.classes
    source = NetworkSource(
        at_hand,
        classes,
        weights or None,
        size or (_default_size(samples, file) if own else None),
        normalization,
        rival.output_name,
        rival.threshold,
        rival.fit or None,
    )
    return source, lookup_256


def _check_normalization(
    spec: str, rival: Rival, file: OnnxFile, normalization: Normalization | None
) -> None:
    try:
        file.check_normalization(normalization)
    except CheckpointError as error:
        if file.port.takes_bytes:
            raise ValueError(
                f'{spec} says normalization = "{rival.normalization}", but {rival.network} takes '
                "bytes as they are; leave that key out"
            ) from error
        raise ValueError(
            f"{spec} takes float pictures and does not say how they are normalised: name a .toml "
            f'with network = "{rival.network}" and normalization = "imagenet" (docs/speed.md)'
        ) from error


def _check_names(spec: str, rival: Rival, known: list[str], class_map: ClassMap) -> None:
    if known not in ([], list(class_map.teacher)):
        raise ValueError(
            f"{spec} knows {listed(known)}, {rival.class_map} has {listed(class_map.teacher)}; "
            "its `teacher` has to name the same in their order"
        )


def _lookup(class_map: ClassMap) -> Array:
    """Return the ids of the data for those of the network, K for none."""
    lookup_256 = np.zeros(256, np.uint8)
    target_C = np.array(class_map.target_C)
    lookup_256[: len(target_C)] = np.where(target_C < 0, len(class_map.classes), target_C)
    return lookup_256


def _default_size(samples: Dataset, file: OnnxFile | None) -> tuple[int, int]:
    """Return the (width, height) that a file fixes, a side that it leaves open as the data's."""
    height, width = samples[0].image_HW3.shape[:2]
    if file is None:
        return width, height
    return file.port.width or width, file.port.height or height


def _own_names(network: str, weights: str, file: OnnxFile | None) -> list[str]:
    """Return the classes that a file names, in their order; none where it numbers or has none."""
    classes: tuple[ClassInfo, ...] = ()
    if is_factory(network):
        header = read_info(pretrained.file_of(weights)) if weights else None
        classes = header.classes if header else ()
    elif file is not None:
        classes = file.manifest.classes if file.manifest else ()
    elif not is_onnx(network):
        classes = open_network(network).info.classes
    names, numbered = ([c.name for c in x] for x in (classes, numbered_classes(len(classes))))
    return [] if names == numbered else names


def _beside(folder: Path, named: str) -> str:
    """Return the file of a folder that is named, else the name: of something that ships."""
    return str(folder / named) if named and (folder / named).is_file() else named
