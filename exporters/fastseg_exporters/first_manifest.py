"""The manifest of a bundle before its first artifact, and the scenes of its self-test."""

from datetime import UTC, datetime

from fastseg_runtime.frame_runner import FrameRunner
from fastseg_runtime.manifest import InputSpec, Manifest, ModelInfo, OutputSpec
from fastseg_runtime.metrics import Array

import fastseg
from fastseg import Network, profile
from fastseg.data import open_dataset

SELFTEST_SCENES = 2


def describe_network(network: Network, name: str, output: OutputSpec, created: str) -> Manifest:
    """Return a manifest without artifacts.

    Args:
        network: gives classes, size, normalisation and provenance.
        name: of the bundle.
        output: what its artifacts give.
        created: UTC time, ISO 8601; "" where the same network must give the same bytes.
    """
    info = network.info
    cost = profile(network.model, (info.width, info.height))
    return Manifest(
        name=name,
        created=created,
        tool=f"fastseg-edge {fastseg.__version__}",
        model=ModelInfo(
            variant=info.variant,
            parameters=cost.parameters,
            macs=cost.macs,
            checkpoint_sha256=network.sha256,
            trained_on=info.trained_on,
            data_licence=info.data_licence,
            usage=info.usage,
            normalization=info.normalization_table(),
            logits=network.reading_table(),
        ),
        classes=info.classes,
        input=InputSpec(info.width, info.height, mean=info.mean, std=info.std),
        output=output,
    )


def now() -> str:
    """Return the time for Manifest.created."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def selftest_scenes(network: Network, runner: FrameRunner) -> list[tuple[Array, Array]]:
    """Return generated scenes of the network's size with PyTorch's class maps."""
    info = network.info
    dataset = open_dataset(f"synthetic:{info.width}x{info.height}", "test")
    images = [dataset[index].image_HW3 for index in range(SELFTEST_SCENES)]
    return [(image_HW3, runner.infer_new(image_HW3)) for image_HW3 in images]
