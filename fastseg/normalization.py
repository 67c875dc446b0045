"""How a network wants its pictures: scale, mean, standard deviation and order of the channels."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_runtime.engines.own_onnx import STATISTICS
from torch import Tensor

Color = Literal["rgb", "bgr"]
Triple = tuple[float, float, float]
WHOLE = 0.02  # of a byte: rounding of float32
MOST = 0.5  # of a picture's values: the rest may be padding
MAX_FILE_BYTES = 1 << 16  # a hundred times what such a file takes


class NormalizationError(ValueError):
    """No normalisation can be had from what was said; the message says why."""


@dataclass(frozen=True)
class Normalization:
    """y_c = (byte_c * scale / 255 - mean_c) / std_c, channel by channel as the network takes them.

    Attributes:
        mean: for the network's first, second and third channel, in units of `scale`.
        std: likewise.
        scale: what the byte 255 is before mean and std: 255 or 1.
        color: the order of the network's channels.

    Raises:
        NormalizationError: a std that is not above 0, a mean that no byte can have, another scale.
    """

    mean: Triple
    std: Triple
    scale: int
    color: Color = "rgb"

    def __post_init__(self) -> None:
        """Refuse what no network can have been trained with."""
        if self.scale not in (1, 255):
            raise NormalizationError(
                f"scale is {self.scale}; expected 255 (bytes as they are) or 1"
            )
        if not all(0 <= value <= self.scale for value in self.mean):
            raise NormalizationError(
                f"mean is {list(self.mean)}, outside of 0 to {self.scale}, which scale = "
                f"{self.scale} gives; is the other scale meant?"
            )
        if not all(1e-6 <= value <= 1e6 for value in self.std):
            raise NormalizationError(f"std is {list(self.std)}; expected numbers above 0")

    def normalise(self, image_NHW3: Tensor) -> Tensor:
        """Return float32 (N, 3, H, W), channels last in memory, of uint8 RGB (N, H, W, 3)."""
        image_NHW3 = image_NHW3.flip(-1) if self.color == "bgr" else image_NHW3
        image_NHW3 = image_NHW3.float() * (self.scale / 255)
        mean_3, std_3 = (image_NHW3.new_tensor(values) for values in (self.mean, self.std))
        return image_NHW3.sub_(mean_3).div_(std_3).permute(0, 3, 1, 2)

    def restore(self, image_N3HW: Tensor) -> Tensor:
        """Return the uint8 RGB picture (N, H, W, 3) of a normalised one."""
        image_NHW3 = image_N3HW.permute(0, 2, 3, 1)
        mean_3, std_3 = (image_NHW3.new_tensor(values) for values in (self.mean, self.std))
        bytes_NHW3 = (image_NHW3 * std_3 + mean_3) * (255 / self.scale)
        bytes_NHW3 = bytes_NHW3.flip(-1) if self.color == "bgr" else bytes_NHW3
        return bytes_NHW3.round().clamp(0, 255).to(torch.uint8)

    def explains(self, image_N3HW: Tensor) -> bool:
        """Return whether most values of pictures are whole bytes, normalised like this."""
        mean_311, std_311 = (
            image_N3HW.new_tensor(values).float()[:, None, None] for values in (self.mean, self.std)
        )
        bytes_N3HW = (image_N3HW.float() * std_311 + mean_311) * (255 / self.scale)
        whole_N3HW = (bytes_N3HW - bytes_N3HW.round()).abs() < WHOLE
        inside_N3HW = (bytes_N3HW > -WHOLE) & (bytes_N3HW < 255 + WHOLE)
        return bool((whole_N3HW & inside_N3HW).float().mean() > MOST)

    def limits(self) -> tuple[Triple, Triple]:
        """Return what the bytes 0 and 255 become, for each of the network's channels."""
        pairs = list(zip(self.mean, self.std, strict=True))
        low, high = ([(end - mean) / std for mean, std in pairs] for end in (0, self.scale))
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def to_table(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def __str__(self) -> str:
        """Say it as a formula for each channel, such as "R (x / 255 - 0.485) / 0.229"."""
        byte = "x" if self.scale == 255 else "x / 255"
        parts = [
            f"{channel.upper()} ({byte} - {mean:g}) / {std:g}"
            for channel, mean, std in zip(self.color, self.mean, self.std, strict=True)
        ]
        return ", ".join(parts)


NAMED = {
    name: Normalization((r, g, b), (u, v, w), scale)
    for name, ((r, g, b), (u, v, w), scale) in STATISTICS.items()
}
CENTRED = NAMED["centred"]


def parse_normalization(text: str | None, color: str | None = None) -> Normalization | None:
    """Return the normalisation that a user names, None where nothing is named.

    Args:
        text: "imagenet", "unit", "centred" or a TOML file with mean, std, scale and perhaps
            color. The numbers of a name belong to colours: for "bgr" they are turned round. Those
            of a file stand in the order of the network's channels.
        color: "rgb" or "bgr"; None: what the file says, else "rgb".

    Raises:
        NormalizationError: no such name or file, or a file that does not say it.
    """
    if text is None:
        return None if color is None else _in_order(CENTRED, color)
    if text in NAMED:
        return _in_order(NAMED[text], color or "rgb")
    table = _read(Path(text))
    if color is not None and table.setdefault("color", color) != color:
        raise NormalizationError(
            f"{text} says color = {table['color']!r}, --color {color}; choose one"
        )
    try:
        return from_table(Normalization, table, text)
    except ValueError as error:
        raise NormalizationError(str(error)) from error


def _in_order(normalization: Normalization, color: str) -> Normalization:
    if color not in ("rgb", "bgr"):
        raise NormalizationError(f"color is {color!r:.80}; expected 'rgb' or 'bgr'")
    if color == "rgb":
        return normalization
    (r, g, b), (u, v, w) = normalization.mean, normalization.std
    return dataclasses.replace(normalization, mean=(b, g, r), std=(w, v, u), color="bgr")


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(MAX_FILE_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise NormalizationError(
            f"no normalisation {str(path)!r}: choose imagenet (mean 0.485 0.456 0.406, std 0.229 "
            "0.224 0.225 of 0 to 1), unit (0 to 1), centred ((x - 128) / 64) or a TOML file"
        ) from error
    except (OSError, ValueError) as error:
        raise NormalizationError(f"cannot read the normalisation {path}: {error}") from error
