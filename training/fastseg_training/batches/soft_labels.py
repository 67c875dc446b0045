"""Soft labels: what a teacher thinks of each picture, computed once and kept on disk.

A soft label is a map of class probabilities, (h, w, K), at 1/2 of the training picture: with a
teacher of 0.6705 on 30 pictures of CamVid that keeps 0.668, 1/4 keeps 0.659 and 1/8 0.632 (Pole
0.42, 0.40, 0.33, 0.17). It is stored as bytes, 63 sqrt(p), deflated: half the disk of 255 steps
for a divergence of 0.004 at temperature 3, where the labels' entropy is 1.8. A position may add up
to less than 1: what the teacher gave to classes that the data does not have, and what lies outside
of the picture, teaches nothing.

    $FASTSEG_CACHE/soft-labels/TEACHER/teacher.json     who taught
    $FASTSEG_CACHE/soft-labels/TEACHER/PICTURE.npz      of one picture

TEACHER and PICTURE are hashes of all that the label depends on, so nothing in it is ever stale.
"""

import hashlib
import io
import json
import shutil
import sys
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile

import cv2
import numpy as np
from fastseg_runtime.arrays.shared_files import cache_folder, write_file
from fastseg_runtime.arrays.terminal import printable

from fastseg.data import Array, DataError
from fastseg.progress import show_progress
from fastseg_training.batches.augment import Variation
from fastseg_training.batches.resident import memory_budget_bytes

LABEL_STRIDE = 2  # pixels of a training picture per position of a soft label
CROP_STRIDE = 4  # likewise of a crop: where the student is compared
LEVELS = 63  # of sqrt(p)
FORMAT = "1"  # raised when what is stored changes
RECORD = "teacher.json"
SAY_EVERY_S = 30.0  # a log file has no bar: it is told this often how long it will take
P_OF_CODE_256 = np.minimum(np.arange(256, dtype=np.float32) / LEVELS, 1) ** 2


class Labeller(Protocol):
    """Who makes soft labels."""

    @property
    def identity(self) -> dict[str, str]:
        """All that its labels depend on but the picture."""

    def probabilities(self, image_HW3: Array, grid: tuple[int, int]) -> Array:
        """Return the probabilities of a picture, (h, w, K) float32, on a grid (w, h)."""


class Labels(Protocol):
    """Soft labels by index, as stored: from files, or a list that holds them in memory."""

    def __len__(self) -> int:
        """Return the number of pictures."""

    def __getitem__(self, index: int, /) -> Array:
        """Return the soft label of a picture, (h, w, K) uint8."""


@dataclass(frozen=True)
class Picture:
    """A picture to be labelled.

    Attributes:
        image_HW3: uint8, RGB, as large as its source has it.
        size: (width, height) at which it is trained on, pixels.
    """

    image_HW3: Array
    size: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """(width, height) of its soft label; an enlarged picture has no finer one."""
        height, width = self.image_HW3.shape[:2]
        columns, rows = min(width, self.size[0]), min(height, self.size[1])
        return -(-columns // LABEL_STRIDE), -(-rows // LABEL_STRIDE)

    @property
    def key(self) -> str:
        """The name of its soft label's file."""
        digest = hashlib.sha256(f"{self.image_HW3.shape} {self.grid}".encode())
        digest.update(np.ascontiguousarray(self.image_HW3).data)
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class SoftLabels:
    """The soft labels of a list of pictures, read from their files when asked for.

    Attributes:
        files: one a picture.
    """

    files: tuple[Path, ...]

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> Array:
        """Return a soft label as stored, (h, w, K) uint8."""
        code_hwK = read_label(self.files[index])
        if code_hwK is None:
            raise DataError(
                f"{self.files[index]}: this soft label is gone or damaged; start the command again "
                "(--resume) and it is made anew"
            )
        return code_hwK

    def resident(self) -> Labels:
        """Return them read into memory if they fit there, else themselves."""
        fits = len(self) * self[0].nbytes <= memory_budget_bytes()
        return [self[index] for index in range(len(self))] if fits else self


def encode(p_hwK: Array) -> Array:
    """Return probabilities as bytes."""
    code_hwK: Array = np.rint(LEVELS * np.sqrt(p_hwK)).astype(np.uint8)
    return code_hwK


def vary_label(
    variation: Variation, code_hwK: Array, size: tuple[int, int], crop: tuple[int, int]
) -> Array:
    """Return the soft label of a crop: the geometry that the picture gets, not its colours.

    Args:
        variation: as drawn for the picture.
        code_hwK: uint8.
        size: (width, height) of the picture, pixels.
        crop: (width, height) of the crop, pixels, multiples of CROP_STRIDE.

    Returns:
        Probabilities, float32 (K, h', w') at 1/CROP_STRIDE of the crop, 0 outside of the picture.
    """
    varied_hwK = cv2.warpAffine(
        P_OF_CODE_256[code_hwK],
        label_from_crop(variation, code_hwK.shape[:2], size),
        (crop[0] // CROP_STRIDE, crop[1] // CROP_STRIDE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return varied_hwK.reshape(*varied_hwK.shape[:2], -1).transpose(2, 0, 1)


def label_from_crop(
    variation: Variation, label_hw: tuple[int, ...], size: tuple[int, int]
) -> Array:
    """Return the (2, 3) map from positions of a crop's soft label to those of the picture's.

    The centre of cell i lies at (i + 1/2) CROP_STRIDE - 1/2 pixels.
    """
    step, start = CROP_STRIDE, (CROP_STRIDE - 1) / 2
    crop_from_cell_33 = np.array([[step, 0, start], [0, step, start], [0, 0, 1.0]])
    x, y = label_hw[1] / size[0], label_hw[0] / size[1]
    label_from_image_33 = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1.0]])
    image_from_crop_33 = np.vstack([variation.image_from_crop_23, [0, 0, 1.0]])
    matrix_33: Array = label_from_image_33 @ image_from_crop_33 @ crop_from_cell_33
    return matrix_33[:2]


def label_softly(
    pictures: Iterable[Picture], total: int, labeller: Labeller, what: str
) -> SoftLabels:
    """Return the soft labels of pictures, gone through once, computing those not kept yet.

    An interruption loses the label that was being made and no other.

    Raises:
        OSError: the cache cannot be written; the message names the file.
    """
    folder = teacher_folder(labeller)
    files: list[Path] = []
    made, started = 0, time.monotonic()
    said = started
    for picture in show_progress(pictures, f"soft labels of {what}", total):
        files.append(folder / f"{picture.key}.npz")
        if read_label(files[-1]) is not None:
            continue
        code_hwK = encode(labeller.probabilities(picture.image_HW3, picture.grid))
        if not made:
            _check_room(folder, (total - len(files) + 1) * code_hwK.nbytes, what)
        write_label(files[-1], code_hwK)
        made += 1
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            left_s = (said - started) / made * (total - len(files))
            _say(f"{what}: {len(files)} of {total} soft labels, about {left_s / 60:.0f} min left")
    stored = sum(file.stat().st_size for file in set(files))
    _say(f"{what}: {len(files)} soft labels ({made} new), {stored / 1e6:.1f} MB in {folder}")
    return SoftLabels(tuple(files))


def teacher_folder(labeller: Labeller) -> Path:
    """Return the folder of a teacher's soft labels, with a file in it that says whose they are."""
    record = labeller.identity | {"stride": str(LABEL_STRIDE), "format": FORMAT}
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    folder = cache_folder() / "soft-labels" / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (folder / RECORD).is_file():
        write_file(folder / RECORD, text.encode())
    return folder


def write_label(path: Path, code_hwK: Array) -> None:
    """Write a soft label whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, code_hwK=code_hwK)
    write_file(path, content.getvalue())


def read_label(path: Path) -> Array | None:
    """Return a soft label, (h, w, K) uint8; None if it is not there or damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            code_hwK: Array = archive["code_hwK"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile, zlib.error):
        return None  # numpy has no error of its own for what is no archive
    return code_hwK


def _check_room(folder: Path, most_bytes: int, what: str) -> None:
    """Say how much may be written, and refuse to fill the disk."""
    free_bytes = shutil.disk_usage(folder).free
    if most_bytes > free_bytes:
        raise OSError(
            f"the soft labels of {what} may take {most_bytes / 1e6:.0f} MB, {folder} has room for "
            f"{free_bytes / 1e6:.0f}; free some, or set FASTSEG_CACHE to another folder"
        )
    _say(f"{what}: computing soft labels, at most {most_bytes / 1e6:.0f} MB, into {folder}")


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
