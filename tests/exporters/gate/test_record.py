"""The roofline bounds of an artifact: what is moved is counted whole, and each thing once."""

import dataclasses

import pytest
from fastseg_exporters.gate.record import bounds_ms
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec, Manifest, ModelInfo, OutputSpec
from fastseg_targets.target import load_target

WIDTH, HEIGHT, PARAMETERS = 8192, 4096, 20_000_000
BYTES_PER_MS = 102.4e6  # of an Orin Nano's memory, by NVIDIA's data sheet
IDLE = Manifest(  # computes nothing: what it moves alone decides
    name="large",
    created="",
    tool="test",
    model=ModelInfo("base", PARAMETERS, macs=0, checkpoint_sha256="0" * 64),
    classes=(ClassInfo("road", (1, 2, 3)),),
    input=InputSpec(WIDTH, HEIGHT),
    output=OutputSpec(),
)


@pytest.mark.parametrize(
    ("precision", "weight_bytes"), [("fp32", 4), ("fp16", 2), ("int8", 1), ("palettized", 1 / 8)]
)
@pytest.mark.parametrize("mask_stride", [1, 2, 4])
def test_weights_the_images_three_bytes_and_the_mask_are_moved_once(
    precision: str, weight_bytes: float, mask_stride: int
) -> None:
    manifest = dataclasses.replace(IDLE, output=OutputSpec(mask_stride=mask_stride))
    image, ids = 3 * WIDTH * HEIGHT, WIDTH * HEIGHT // mask_stride**2
    moved = PARAMETERS * weight_bytes + image + ids
    bounds = bounds_ms(manifest, load_target("jetson-int8"), precision)
    assert bounds["orin-nano"] == pytest.approx(moved / BYTES_PER_MS, abs=6e-4)
