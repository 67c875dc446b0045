"""One way to name a network, for every command: a checkpoint, a shipped one, or one's own."""

import dataclasses
import hashlib
import importlib
import inspect
import math
import sys
from pathlib import Path

import torch
from fastseg_runtime.manifest import ClassInfo
from torch import Tensor, nn

from fastseg import pretrained
from fastseg.checkpoint import (
    CheckpointError,
    CheckpointInfo,
    load_checkpoint,
    read_state_dict,
)
from fastseg.deploy import main_logits
from fastseg.outputs import choose, leaves
from fastseg.own_code import own_code


@dataclasses.dataclass(frozen=True)
class Network:
    """A network in eval mode with what is known of it.

    Attributes:
        model: the author's module, as it is.
        info: classes, size, normalisation and provenance.
        name: for files: "base-camvid".
        sha256: of the weights, as names, shapes and values: the identity of the network.
        output_name: of several outputs, the one that is the logits; "": the one that can be.
        threshold: of the probability above which one logit means the second class.
    """

    model: nn.Module
    info: CheckpointInfo
    name: str
    sha256: str
    output_name: str = ""
    threshold: float = 0.5

    def logits(self, image_NHW3: Tensor) -> Tensor:
        """Run the author's module as its author calls it: the reference for all that we make.

        Nothing of the deploy graph is used here: what is judged by this must not be in it.

        Args:
            image_NHW3: uint8 RGB (N, H, W, 3) at the network's input size.

        Returns:
            Float logits (N, K, h, w), K at least 2, as large as the module gives them.

        Raises:
            CheckpointError: the module fails, or gives no logits for each class.
        """
        width, height = image_NHW3.shape[2], image_NHW3.shape[1]
        image_N3HW = self.info.input_normalization().normalise(image_NHW3)
        with own_code(f"{self.name} at {width}x{height}"), torch.inference_mode():
            result = self.model(image_N3HW)
        try:
            choice = choose(result, image_N3HW, len(self.info.classes), self.output_name)
        except ValueError as error:
            raise CheckpointError(f"{self.name}: {error}") from error
        logits_NKhw: Tensor = leaves(result)[choice.path].float()
        if logits_NKhw.shape[1] > 1:
            return logits_NKhw
        # softmax of (-z/2, z/2) is sigmoid(z): these two logits say what the one said.
        half_N1hw = (logits_NKhw - math.log(self.threshold / (1 - self.threshold))) / 2
        return torch.cat([-half_N1hw, half_N1hw], dim=1)


def open_network(
    spec: str | Path,
    classes: tuple[ClassInfo, ...] | None = None,
    weights: Path | None = None,
    size: tuple[int, int] | None = None,
) -> Network:
    """Open what a user names.

    Args:
        spec: a checkpoint file, the name of shipped weights ("base-camvid"), or
            "package.module:factory", a callable that returns a torch module (normalised image
            in, logits out). The current folder is searched for the module too.
        classes: for one's own network: its classes; for a checkpoint: other names and colours.
        weights: for one's own network: a state dict (.pth, .pt, .safetensors).
        size: (width, height) to run at, instead of the checkpoint's.

    Raises:
        CheckpointError: the network cannot be had from this.
    """
    if _is_factory(spec):
        model, info = _from_factory(str(spec), classes, weights)
    else:
        model, info = _from_file(spec, None if classes is None else len(classes))
        if classes is not None:
            info = dataclasses.replace(info, classes=classes)
    if size is not None:
        info = dataclasses.replace(info, width=size[0], height=size[1])
    return Network(model.eval(), info, name_of(spec), hash_weights(model.state_dict()))


def check_logits(spec: str, model: nn.Module, num_classes: int, size: tuple[int, int]) -> None:
    """Run a network once and refuse one that has no logits for each class.

    Args:
        spec: its name, for the message.
        model: in eval mode.
        num_classes: K.
        size: (width, height) to try it at.

    Raises:
        CheckpointError: it fails at that size, or what it gives is no (N, K, h, w).
    """
    try:
        with torch.inference_mode():
            logits_NKhw = main_logits(model(torch.zeros(1, 3, size[1], size[0])))
    except (ValueError, RuntimeError) as error:  # torch's own for shapes that do not fit
        raise CheckpointError(f"{spec}, tried at {size[0]}x{size[1]}: {error}") from error
    if logits_NKhw.shape[1] != num_classes:
        raise CheckpointError(
            f"{spec} tells {logits_NKhw.shape[1]} classes apart, expected {num_classes}; a factory "
            "with a parameter num_classes is told how many"
        )


def name_of(spec: str | Path) -> str:
    """Return a network's name: its run's folder, the file's, or the factory's; "" for ""."""
    if _is_factory(spec):
        return str(spec).rpartition(":")[2].lower()
    path = Path(spec)
    return path.absolute().parent.name if path.stem == "model" else path.stem


def hash_weights(weights: dict[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _is_factory(spec: str | Path) -> bool:
    module, _, name = str(spec).rpartition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _from_file(spec: str | Path, num_classes: int | None) -> tuple[nn.Module, CheckpointInfo]:
    if Path(spec).suffix or Path(spec).exists():
        return load_checkpoint(spec, num_classes)
    return pretrained.load(str(spec), num_classes)


def _from_factory(
    spec: str, classes: tuple[ClassInfo, ...] | None, weights: Path | None
) -> tuple[nn.Module, CheckpointInfo]:
    if classes is None:
        raise CheckpointError(f"{spec} needs the names of its classes: --classes FILE")
    model = _call_factory(spec, len(classes))
    if weights is not None:
        try:
            model.load_state_dict(read_state_dict(weights))
        except RuntimeError as error:
            raise CheckpointError(f"{weights} does not fit {spec}: {error}") from error
    return model, CheckpointInfo(variant=spec, classes=classes)


def _call_factory(spec: str, num_classes: int) -> nn.Module:
    module_name, _, name = spec.rpartition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"cannot import {spec} from {Path.cwd()}: {error}") from error
    takes_classes = "num_classes" in inspect.signature(factory).parameters
    model = factory(num_classes=num_classes) if takes_classes else factory()
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"{spec} returned {type(model).__name__}, expected a torch.nn.Module")
    return model
