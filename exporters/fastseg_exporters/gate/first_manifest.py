"""The manifest of a bundle before its first artifact, and the scenes of its self-test."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
from fastseg_runtime.arrays.metrics import Array, agreement
from fastseg_runtime.bundle.manifest import Manifest, OutputSpec
from fastseg_runtime.bundle.reader import NATURAL_SCENES
from fastseg_runtime.engines.backend_pytorch import manifest_of
from fastseg_runtime.engines.frame_runner import FrameRunner

import fastseg
from fastseg import FastSegNet, Network, profile
from fastseg.data import open_dataset

# Levels to choose from. On a plain picture all pixels may change their class at once where two are
# nearly as likely, by rounding alone; so a level is taken whose neighbour has the same classes.
DARK, BRIGHT = (0, 6, 12, 18), (255, 249, 243, 237)
# Of the tile of noise: few rows, since deflate looks back 32 kB, and sides that no stride divides.
NOISE_PX = (7, 61)
MOSAIC_PX = 16  # side of a field: two cells of the network's 1/8, so that each has a border


def describe_network(network: Network, name: str, output: OutputSpec, created: str) -> Manifest:
    """Return a manifest without artifacts.

    Args:
        network: gives classes, size, normalisation and provenance.
        name: of the bundle.
        output: what its artifacts give.
        created: UTC time, ISO 8601; "" where the same network must give the same bytes.
    """
    info = network.info
    if output.kind == "logits" and not isinstance(network.model, FastSegNet):
        output = dataclasses.replace(output, cover="image")
    cost = profile(network.model, (info.width, info.height))
    bare = manifest_of(network)
    model = dataclasses.replace(
        bare.model, parameters=cost.parameters, macs=cost.macs, logits=network.reading_table()
    )
    tool = f"fastseg-edge {fastseg.__version__}"
    return dataclasses.replace(
        bare, name=name, created=created, tool=tool, model=model, output=output
    )


def now() -> str:
    """Return the time for Manifest.created."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def selftest_scenes(network: Network, runner: FrameRunner) -> list[tuple[Array, Array]]:
    """Return scenes of the network's size with PyTorch's class maps: generated ones, then hard."""
    info = network.info
    dataset = open_dataset(f"synthetic:{info.width}x{info.height}", "test")
    images = [dataset[index].image_HW3 for index in range(NATURAL_SCENES)]
    levels = [_steadiest(levels, info.width, info.height, runner) for levels in (DARK, BRIGHT)]
    images += hard_images(info.width, info.height, levels)
    return [(image_HW3, runner.infer_new(image_HW3)) for image_HW3 in images]


def hard_images(width: int, height: int, levels: Sequence[int]) -> list[Array]:
    """Return pictures that no camera gives on a good day, (H, W, 3) uint8: plain, noise, mosaic.

    Engines have failed on pictures without any border between classes and on bright ones, with
    nothing wrong on streets. Tiles keep them small: four add 20 to 45 kB to a bundle.

    Args:
        width: pixels.
        height: pixels.
        levels: of the plain ones, 0 to 255.
    """
    generator = np.random.default_rng(0)
    noise_hw3 = generator.integers(0, 256, (*NOISE_PX, 3), np.uint8)
    colors_hw3 = generator.integers(0, 256, (4, 4, 3), np.uint8)
    mosaic_hw3 = colors_hw3.repeat(MOSAIC_PX, axis=0).repeat(MOSAIC_PX, axis=1)
    tiles = [np.full((1, 1, 3), level, np.uint8) for level in levels]
    rows, columns = np.arange(height), np.arange(width)
    return [
        tile_hw3[rows[:, None] % tile_hw3.shape[0], columns % tile_hw3.shape[1]]
        for tile_hw3 in (*tiles, noise_hw3, mosaic_hw3)
    ]


def _steadiest(levels: Sequence[int], width: int, height: int, runner: FrameRunner) -> int:
    """Return the level of a plain picture whose class map changes least towards the next level."""
    maps = [runner.infer_new(np.full((height, width, 3), level, np.uint8)) for level in levels]
    return levels[int(np.argmax([agreement(one, other) for one, other in pairwise(maps)]))]
