"""Tiny data sets in every layout, written by the tests themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

Writer = Callable[..., Path]
WIDTH, HEIGHT = 24, 16


@pytest.fixture
def write_picture() -> Writer:
    """Return a function that writes RGB or index pixels; the suffix says the format."""

    def write(path: Path, pixels: np.ndarray) -> Path:
        stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(stored))[1].tobytes())
        return path

    return write


@pytest.fixture
def picture() -> np.ndarray:
    """Return a small RGB picture that JPEG keeps nearly as it is."""
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return np.stack((columns * 8, rows * 12, np.full_like(rows, 90)), axis=-1).astype(np.uint8)


@pytest.fixture
def write_folder(write_picture: Writer, picture: np.ndarray) -> Writer:
    """Return a function that writes a `folder:` set of three classes with split folders."""

    def write(root: Path, splits: dict[str, int] | None = None) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        (root / "classes.txt").write_text("0 sky 0 0 255\n1 road 90 90 90\n2 tree 0 200 0\n")
        rng = np.random.default_rng(5)
        for split, count in (splits or {"train": 3, "val": 1}).items():
            for number in range(count):
                label = rng.integers(0, 3, (HEIGHT, WIDTH), dtype=np.uint8)
                noisy = picture + rng.integers(0, 60, picture.shape, dtype=np.uint8)
                write_picture(root / split / "images" / f"{split}{number}.png", noisy)
                write_picture(root / split / "labels" / f"{split}{number}.png", label)
        return root

    return write


@pytest.fixture
def camvid_path() -> Path:
    """Return the real CamVid, or skip."""
    path = os.environ.get("FASTSEG_CAMVID")
    if not path:
        pytest.skip("FASTSEG_CAMVID is not set: no real CamVid here")
    return Path(path)
