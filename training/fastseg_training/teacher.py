"""A teacher: a network of any kind whose classes are summed into the data's.

Shape letters: C classes of the teacher, K of the data, H and W pixels, h and w of a soft label.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from fastseg_runtime.arrays.image import parse_size, resize_bilinear
from fastseg_runtime.arrays.terminal import printable
from fastseg_runtime.bundle.manifest import ClassInfo, numbered_classes
from fastseg_runtime.bundle.named_files import check_onnx, files_beside
from fastseg_runtime.bundle.usage import NOT_STATED, RESEARCH
from torch import Tensor

from fastseg import CheckpointError, Network, open_network
from fastseg.checkpoint import read_info, usage_of_weights
from fastseg.data import Array
from fastseg.imagenet_weights import split_terms
from fastseg.logit_check import check_logits
from fastseg.network import is_factory, is_onnx, name_of, open_onnx
from fastseg.normalization import CENTRED, Normalization, parse_normalization
from fastseg.outputs import SUM_ERROR, Reading, ReadingError
from fastseg.own_code import code_sha256
from fastseg_training import distributed
from fastseg_training.class_map import ClassMap, listed, read_class_map, same_classes
from fastseg_training.config import ConfigError, TrainConfig, option_name
from fastseg_training.precision import choose_device

if TYPE_CHECKING:
    from fastseg.backend_onnx import OnnxFile

Size = tuple[int, int]
Names = tuple[str, ...]
FOREIGN_OPTIONS = (
    *("teacher_weights", "teacher_normalization", "teacher_output_name"),
    *("teacher_licence", "teacher_usage"),
)
# Of the sides of a picture that is not of --teacher-size's shape: the stride of most backbones.
DIVISOR = 32
TINY = 1e-6  # the least sum: where all classes round to 0 none is taught


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A network that makes soft labels.

    Attributes:
        scores: takes a uint8 (1, H, W, 3) picture, gives logits or probabilities (1, C, h, w).
        size: (width, height) at which it sees a picture of that shape, pixels; others are scaled
            to as many pixels.
        fixed_size: whether it takes no other size: pictures of another shape are stretched.
        class_map: from its C classes to the data's K.
        licence: of its weights and of what it was trained on; "" where nobody says.
        spec: as --teacher names it.
        sha256: of its weights.
        normalization: what it takes.
        init_licence: of the ImageNet weights that it started from; "" where nobody says.
        output_name: of several outputs, the logits.
        code_sha256: of the files that define a factory's layers; "" of other kinds.
        gives_probabilities: its scores are no logits.
    """

    scores: Callable[[Array], Tensor]
    size: Size
    fixed_size: bool
    class_map: ClassMap
    licence: str
    spec: str
    sha256: str
    normalization: Normalization
    init_licence: str = ""
    output_name: str = ""
    code_sha256: str = ""
    gives_probabilities: bool = False

    @property
    def name(self) -> str:
        """For messages and the header of what it taught."""
        return name_of(self.spec)

    @property
    def identity(self) -> dict[str, str]:
        """All that its labels depend on but the picture."""
        pairs = zip(self.class_map.teacher, self.class_map.target_C, strict=True)
        return {
            "teacher": self.spec if is_factory(self.spec) else self.name,
            "sha256": self.sha256,
            "classes": json.dumps([self.class_map.classes, list(pairs)]),
            "size": f"{self.size[0]}x{self.size[1]}",
            "normalization": str(self.normalization),
            **({"output": self.output_name} if self.output_name else {}),
            **({"code": self.code_sha256} if self.code_sha256 else {}),
            **({"scores": "probabilities"} if self.gives_probabilities else {}),
        }

    def probabilities(self, image_HW3: Array, grid: Size) -> Array:
        """Return the probabilities of the data's classes, (h, w, K) float32, on a grid (w, h)."""
        width, height = self.size_for(image_HW3.shape[1], image_HW3.shape[0])
        scores_1Chw = self.scores(resize_bilinear(image_HW3, width, height)[None]).float()
        if not bool(scores_1Chw.isfinite().all()):
            raise ConfigError(
                f"{self.name} gives values that are no numbers for a picture of {width}x{height}; "
                "look at its weights and --teacher-normalization"
            )
        if self.gives_probabilities:
            p_1Chw = scores_1Chw / scores_1Chw.sum(1, keepdim=True).clamp(min=TINY)
        else:
            p_1Chw = scores_1Chw.softmax(1)
        coarser = p_1Chw.shape[-1] >= grid[0]
        mode = {"mode": "area"} if coarser else {"mode": "bilinear", "align_corners": False}
        p_1Chw = F.interpolate(p_1Chw, size=grid[::-1], **mode)
        return sum_classes(p_1Chw, self.class_map)[0].permute(1, 2, 0).cpu().numpy()

    def size_for(self, width: int, height: int) -> Size:
        """Return the (width, height) at which it sees a picture of this size."""
        if self.fixed_size or width * self.size[1] == height * self.size[0]:
            return self.size
        zoom = (self.size[0] * self.size[1] / (width * height)) ** 0.5
        return _near(width * zoom), _near(height * zoom)


def _near(side: float) -> int:
    return max(1, round(side / DIVISOR)) * DIVISOR


def are_probabilities(scores_1Chw: Tensor) -> bool:
    """Return whether scores are what a softmax gives, in few bits perhaps, in most pixels."""
    low, high = scores_1Chw.aminmax()
    # Of each pixel and not of their mean, which logits that end in a ReLU may happen to have.
    errors_1hw = (scores_1Chw.sum(1) - 1).abs()
    return bool(low >= 0 and high <= 1 + SUM_ERROR and errors_1hw.median() < SUM_ERROR)


def sum_classes(p_1Chw: Tensor, class_map: ClassMap) -> Tensor:
    """Return (1, K, h, w): what falls together added up, what is mapped nowhere left out."""
    target_C = torch.tensor(class_map.target_C, device=p_1Chw.device)
    (used,) = torch.nonzero(target_C >= 0, as_tuple=True)
    shape = (1, len(class_map.classes), *p_1Chw.shape[-2:])
    return p_1Chw.new_zeros(shape).index_add_(1, target_C[used], p_1Chw[:, used])


def open_teacher(config: TrainConfig, classes: tuple[ClassInfo, ...], size: Size) -> Teacher | None:
    """Return the teacher that a configuration names, None for none; its student takes that size.

    Raises:
        ConfigError, CheckpointError: it cannot be had, or its classes are not those of the map.
    """
    if not config.teacher:
        return None
    names = tuple(entry.name for entry in classes)
    class_map = read_class_map(config.teacher_map, names) if config.teacher_map else None
    if class_map is not None and len(class_map.taught) < 2:
        raise ConfigError(
            f"{config.teacher_map} names {len(class_map.taught)} of the data's classes: nothing is "
            "learnt of one without another; map two or more"
        )
    try:
        if is_onnx(config.teacher):
            teacher = _from_onnx(config, class_map, names, size)
        elif is_factory(config.teacher):
            teacher = _from_factory(config, class_map, names, size)
        else:
            teacher = _from_checkpoint(config, class_map, names)
        teacher = dataclasses.replace(teacher, gives_probabilities=_try(teacher))
    except CheckpointError as error:
        told = re.sub("--(?=weights|normalization|output-name)", "--teacher-", str(error))
        raise CheckpointError(told) from error
    for gap in teacher.class_map.gaps():
        _say(f"{teacher.name}: {gap}")
    return teacher


def usage_of_teacher(config: TrainConfig) -> str:
    """Return what a teacher may be used for, and so what it teaches.

    Of a teacher of others nobody here knows it: unless somebody says so, research only.
    """
    if not (is_factory(config.teacher) or is_onnx(config.teacher)):
        return open_network(config.teacher).info.usage
    weights = Path(config.teacher_weights)
    said = usage_of_weights(weights) if config.teacher_weights else NOT_STATED
    if is_onnx(config.teacher) and (path := Path(config.teacher)).is_file():
        manifest = open_onnx(path).manifest  # which a file that fastseg-export wrote has
        said = NOT_STATED if manifest is None else manifest.model.usage
    if config.teacher_usage == RESEARCH:  # the user's stricter word
        return RESEARCH
    return said or config.teacher_usage or RESEARCH


def _from_checkpoint(config: TrainConfig, class_map: ClassMap | None, names: Names) -> Teacher:
    for name in FOREIGN_OPTIONS:
        if getattr(config, name):
            raise ConfigError(
                f"--{option_name(name)} is for a teacher of others; the checkpoint "
                f"{config.teacher} knows its own"
            )
    size = parse_size(config.teacher_size) if config.teacher_size else None
    network = open_network(config.teacher, size=size)
    return _of_network(config, network, _agreed_map(config, network.info.classes, class_map, names))


def _from_factory(
    config: TrainConfig, class_map: ClassMap | None, names: Names, size: Size
) -> Teacher:
    weights = Path(config.teacher_weights) if config.teacher_weights else None
    if weights is not None and not weights.is_file():
        raise ConfigError(f"no --teacher-weights {weights}; name a .pth or .safetensors file")
    header = None if weights is None else read_info(weights)
    if weights is None:
        _say(f"no --teacher-weights: {config.teacher} is taken with the weights it comes with")
    known = () if header is None else header.classes
    class_map = _agreed_map(config, known, class_map, names)
    said = config.teacher_normalization or None
    normalization = parse_normalization(said) if header else _normalization(config)
    own = size if header is None else (header.width, header.height)
    wanted = parse_size(config.teacher_size) if config.teacher_size else own
    classes = tuple(ClassInfo(name, (0, 0, 0)) for name in class_map.teacher)  # none is drawn
    how = (normalization, config.teacher_output_name)
    network = open_network(config.teacher, classes, weights, wanted, *how)
    return _of_network(config, network, class_map)


def _agreed_map(
    config: TrainConfig, known: tuple[ClassInfo, ...], class_map: ClassMap | None, names: Names
) -> ClassMap:
    """Return the map from a teacher's classes, by default to those of the same names.

    Raises:
        ConfigError: it says itself that it knows others; numbers for names say nothing.
    """
    knows = tuple(entry.name for entry in known)
    if knows == tuple(entry.name for entry in numbered_classes(len(knows))):
        return class_map or _assumed(config, names)
    expected = class_map.teacher if class_map else names
    if knows != expected:
        raise ConfigError(
            f"the teacher {config.teacher} knows {listed(knows)}, "
            f"{config.teacher_map or 'the data'} has {listed(expected)}; they have to be the "
            "same, or a --teacher-map has to say which go together"
        )
    return class_map or same_classes(names)


def _of_network(config: TrainConfig, network: Network, class_map: ClassMap) -> Teacher:
    if len(class_map.teacher) == 2:  # of which one logit may tell, but no probability
        network.check(config.teacher)
    device = choose_device(distributed.local_device(config.device))
    network.model.to(device)

    def scores(image_1HW3: Array) -> Tensor:
        return network.logits(torch.from_numpy(image_1HW3).to(device))

    info = network.info
    return Teacher(
        scores=scores,
        size=(info.width, info.height),
        fixed_size=False,
        class_map=class_map,
        licence=config.teacher_licence or info.data_licence,
        spec=config.teacher,
        sha256=network.sha256,
        normalization=info.input_normalization(),
        init_licence=info.training.get("init_licence", ""),
        output_name=config.teacher_output_name,
        code_sha256=(
            code_sha256(config.teacher, network.model.modules())
            if is_factory(config.teacher)
            else ""
        ),
    )


def _from_onnx(
    config: TrainConfig, class_map: ClassMap | None, names: Names, size: Size
) -> Teacher:
    path = Path(config.teacher)
    if config.teacher_weights:
        raise ConfigError(f"{path} holds its weights; leave out --teacher-weights")
    if path.is_file():  # before it is opened, which lets it name any file beside it
        check_onnx(path.read_bytes(), str(path), files_beside(path, bearing_its_name=True))
    file = open_onnx(path)
    class_map = _agreed_map(
        config, file.manifest.classes if file.manifest else (), class_map, names
    )
    file.num_classes = len(class_map.teacher)
    taken = _taken_by(file, config)
    wanted, is_fixed = _size_of(file, config, size)
    file.chosen = _output_of(file, config)  # integers of others are no ids of these classes
    reading = Reading(None, file.chosen)  # in maps of any size, brought to the soft labels'
    if len(class_map.teacher) == 2:
        check_logits(str(path), file, reading, wanted, taken)

    def scores(image_1HW3: Array) -> Tensor:
        image_13HW = taken.normalise(torch.from_numpy(image_1HW3))
        try:
            return reading.logits(file(image_13HW), image_13HW)
        except ReadingError as error:
            raise ConfigError(
                f"{path} {error} (of fastseg's own: fastseg-export --output logits)"
            ) from error

    licence, behind = split_terms(file.manifest.model.data_licence if file.manifest else "")
    return Teacher(
        scores=scores,
        size=wanted,
        fixed_size=is_fixed,
        class_map=class_map,
        licence=config.teacher_licence or licence,
        spec=config.teacher,
        sha256=bytes(file.get_buffer("sha256").tolist()).hex(),
        normalization=taken,
        init_licence=behind,
        output_name=config.teacher_output_name,
    )


def _taken_by(file: "OnnxFile", config: TrainConfig) -> Normalization:
    """Return what pictures are normalised with; what takes bytes undoes it."""
    if not file.port.takes_bytes:
        return _normalization(config)
    said = parse_normalization(config.teacher_normalization or None)
    file.check_normalization(said)
    return said or CENTRED


def _size_of(file: "OnnxFile", config: TrainConfig, size: Size) -> tuple[Size, bool]:
    """Return the size that a file runs at, and whether it takes no other."""
    port = file.port
    fixed = (port.width, port.height) if port.width and port.height else None
    wanted = parse_size(config.teacher_size) if config.teacher_size else fixed or size
    if fixed not in (None, wanted):
        raise ConfigError(
            f"{file.path} takes pictures of {port.width}x{port.height} alone, not "
            f"--teacher-size {config.teacher_size}"
        )
    return wanted, fixed is not None


def _output_of(file: "OnnxFile", config: TrainConfig) -> str:
    """Return the name of the output that is the logits; of several none is guessed."""
    output = config.teacher_output_name or file.names[0]
    if output not in file.names or (len(file.names) > 1 and not config.teacher_output_name):
        raise ConfigError(
            f"{file.path} gives {', '.join(file.names)}; --teacher-output-name says which are the "
            "logits"
        )
    return output


def _try(teacher: Teacher) -> bool:
    """Return whether it gives probabilities, judged once: one picture may look otherwise.

    Raises:
        ConfigError, CheckpointError: it gives no scores for each class at its size.
    """
    width, height = teacher.size
    noise_1HW3 = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    scores_1Chw = teacher.scores(noise_1HW3)
    expected = len(teacher.class_map.teacher)
    if scores_1Chw.shape[1] != expected:
        raise ConfigError(
            f"{teacher.name} tells {scores_1Chw.shape[1]} classes apart, expected {expected}; a "
            "--teacher-map names all of them and says which go together"
        )
    return are_probabilities(scores_1Chw.float())


def _assumed(config: TrainConfig, names: Names) -> ClassMap:
    _say(f"no --teacher-map: outputs of {config.teacher} are taken for {listed(names)}")
    return same_classes(names)


def _normalization(config: TrainConfig) -> Normalization:
    named = parse_normalization(config.teacher_normalization or None)
    if named is None:
        _say(
            f"no --teacher-normalization: {config.teacher} is given (x - 128) / 64; many want "
            "imagenet"
        )
    return named or CENTRED


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr)
