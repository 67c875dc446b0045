"""Calibration images: a stream from the training split, in the geometry of the network's input."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from fastseg_runtime.arrays.image import resize_bilinear
from fastseg_runtime.arrays.metrics import Array

from fastseg.data import DataError, open_dataset

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Calibration:
    """Where calibration images come from.

    Attributes:
        data: a data set ("camvid:PATH"), whose training split is used, or a folder of images;
            None: generated scenes.
        count: how many, spread evenly over what there is.
    """

    data: str | None = None
    count: int = 64

    def images(self, width: int, height: int) -> Iterator[Array]:
        """Yield uint8 RGB images (1, height, width, 3), one in memory at a time.

        Raises:
            DataError: no image there, or one that cannot be read.
        """
        data = self.data or "synthetic"
        folder = Path(data)
        for image_HW3 in self._folder(folder) if folder.is_dir() else self._training_split(data):
            yield np.ascontiguousarray(resize_bilinear(image_HW3, width, height))[None]

    def _training_split(self, data: str) -> Iterator[Array]:
        dataset = open_dataset(data, "train")
        for index in _spread(len(dataset), self.count):
            yield dataset[index].image_HW3

    def _folder(self, folder: Path) -> Iterator[Array]:
        files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise DataError(
                f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}) to calibrate on"
            )
        for index in _spread(len(files), self.count):
            data = np.fromfile(files[index], np.uint8)
            image_HW3 = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
            if image_HW3 is None:
                raise DataError(f"{files[index]} is not an image that can be read; remove it")
            yield image_HW3[..., ::-1]


def _spread(available: int, wanted: int) -> list[int]:
    """Return indices spread evenly over what there is."""
    count = min(available, wanted)
    return [index * available // count for index in range(count)]
