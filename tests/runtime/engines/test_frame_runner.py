from typing import Any

import numpy as np
import pytest
import torch
from fastseg_runtime.arrays import image
from fastseg_runtime.bundle.manifest import InputSpec
from fastseg_runtime.engines import frame_runner
from fastseg_runtime.engines.frame_runner import (
    FrameFit,
    LogitsToClasses,
    Placement,
    PlaneToFrame,
    place,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastseg import DeployGraph, FastSegNet
from tests.doubles.tiny_bundle import noise, strongest_channel

Array = np.ndarray[Any, Any]


class Pooled(nn.Module):
    """Logits at a fraction of the image's size, as networks give them."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(size)

    def forward(self, image_N3HW: torch.Tensor) -> torch.Tensor:
        return self.pool(image_N3HW)


@pytest.mark.parametrize(
    ("image", "logits", "stride"),
    [
        ((32, 64), (4, 8), 1),
        ((32, 64), (4, 8), 2),
        ((36, 60), (5, 8), 1),  # no whole factor
        ((36, 60), (5, 8), 2),
        ((32, 64), (32, 64), 1),
    ],
)
def test_ids_are_those_of_the_deploy_graph(
    image: tuple[int, int], logits: tuple[int, int], stride: int
) -> None:
    check(Pooled(logits), image, stride, padded=False)


def test_logits_of_our_own_networks_cover_their_padding() -> None:
    torch.manual_seed(0)
    check(FastSegNet(4, "nano"), (36, 60), 1, padded=True)


def check(network: nn.Module, image: tuple[int, int], stride: int, padded: bool) -> None:
    height, width = image
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    whole = DeployGraph(network, width, height, mask_stride=stride)
    scores = DeployGraph(network, width, height, output="logits")
    with torch.inference_mode():
        expected = whole(torch.from_numpy(frame))[0].numpy()
        logits_Khw = scores(torch.from_numpy(frame))[0].numpy()
    decode = LogitsToClasses(logits_Khw.shape[1:], (height // stride, width // stride), padded)
    assert (decode(logits_Khw) == expected).mean() > 0.999


def test_the_lowest_id_wins_a_tie() -> None:
    assert not LogitsToClasses((2, 2), (4, 4))(np.ones((3, 2, 2), np.float32)).any()


STRETCH, LETTERBOX = InputSpec(64, 32), InputSpec(64, 32, resize="letterbox")


def fit(size: tuple[int, int], spec: InputSpec, stride: int = 1, swap: bool = False) -> FrameFit:
    return FrameFit(size, spec, (spec.height // stride, spec.width // stride), swap)


def there_and_back(frame: Array, fitted: FrameFit) -> Array:
    """Classes of the frame through the network's input and back, by the strongest channel."""
    out = np.empty(frame.shape[:2], np.uint8)
    fitted.to_frame(strongest_channel(fitted.to_input(frame)[0]), out)
    return out


def test_stretch_fills_the_input() -> None:
    assert place((100, 50), STRETCH) == Placement(0, 0, 32, 64)


def test_letterbox_keeps_the_proportions_and_centres() -> None:
    assert place((100, 100), LETTERBOX) == Placement(0, 16, 32, 32)
    assert place((10, 40), LETTERBOX) == Placement(8, 0, 16, 64)


def test_a_frame_as_thin_as_a_line_still_covers_a_pixel() -> None:
    assert place((1, 1000), LETTERBOX).height == 1


def test_an_unknown_way_of_resizing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'stretch' or 'letterbox'"):
        place((10, 10), InputSpec(8, 8, resize="crop"))


@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize("spec", [STRETCH, LETTERBOX])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_classes_come_back_exactly_where_they_were(
    spec: InputSpec, factor: int, opencv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not opencv:
        monkeypatch.setattr(frame_runner, "opencv", lambda: None)
    # Blocks that are whole pixels of the input survive the way there and back.
    block = noise(32, 64) if spec is STRETCH else noise(32, 32)
    frame = block.repeat(factor, axis=0).repeat(factor, axis=1)
    found = there_and_back(frame, fit(frame.shape[:2], spec))
    assert np.array_equal(found, strongest_channel(frame))


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([1, 2, 4]))
@settings(max_examples=80, deadline=None)
def test_letterbox_maps_back_from_covered_pixels_alone(
    height: int, width: int, stride: int
) -> None:
    fitted = fit((height, width), LETTERBOX, stride)
    at = fitted.placement
    mask = np.full((32 // stride, 64 // stride), 9, np.uint8)
    rows = slice(at.top // stride, -(-(at.top + at.height) // stride))
    columns = slice(at.left // stride, -(-(at.left + at.width) // stride))
    mask[rows, columns] = 1
    out = np.empty((height, width), np.uint8)
    fitted.to_frame(mask, out)
    assert set(np.unique(out)) == {1}


def test_the_padding_of_a_letterbox_is_the_mean_colour() -> None:
    image = fit((10, 10), LETTERBOX).to_input(np.full((10, 10, 3), 200, np.uint8))[0]
    assert np.all(image[:, :16] == 128)
    assert np.all(image[:, 48:] == 128)
    assert np.all(image[:, 16:48] == 200)


@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize("size", [(32, 64), (50, 90)])
@pytest.mark.parametrize("spec", [STRETCH, LETTERBOX])
def test_bgr_frames_arrive_as_rgb(
    spec: InputSpec, size: tuple[int, int], opencv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not opencv:
        monkeypatch.setattr(frame_runner, "opencv", lambda: None)
    frame = noise(*size)
    rgb = fit(size, spec).to_input(frame).copy()
    bgr = fit(size, spec, swap=True).to_input(np.ascontiguousarray(frame[..., ::-1]))
    assert np.array_equal(rgb, bgr)


def test_a_frame_of_the_inputs_size_goes_in_without_a_copy() -> None:
    frame = noise(32, 64)
    assert np.shares_memory(fit((32, 64), STRETCH).to_input(frame), frame)


def test_a_strided_frame_of_the_inputs_size_is_copied_whole() -> None:
    frame = noise(64, 128)[::2, ::2]
    image = fit((32, 64), STRETCH).to_input(frame)
    assert image.flags.c_contiguous
    assert np.array_equal(image[0], frame)


def test_smaller_masks_are_spread_over_the_frame() -> None:
    out = np.empty((32, 64), np.uint8)
    mask = np.arange(16 * 32, dtype=np.uint16).reshape(16, 32).astype(np.uint8)
    fit((32, 64), STRETCH, stride=2).to_frame(mask, out)
    assert np.array_equal(out, mask.repeat(2, axis=0).repeat(2, axis=1))


def sampled(plane: Array, y: float, x: float) -> float:
    """The definition of bilinear: what lies at a place, in pixels of the plane."""
    y, x = (
        float(np.clip(at - 0.5, 0, side - 1)) for at, side in zip((y, x), plane.shape, strict=True)
    )
    rows, columns = (sorted({int(at), min(int(at) + 1, side - 1)}) for at, side in
                     zip((y, x), plane.shape, strict=True))  # fmt: skip
    return float(
        sum(
            (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row, column]
            for row in rows
            for column in columns
        )
    )


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize(
    ("plane_size", "padded"), [((4, 8), True), ((5, 8), True), ((5, 8), False), ((1, 1), False)]
)
@pytest.mark.parametrize("frame", [(36, 60), (72, 120), (17, 90), (90, 17)])
def test_a_plane_comes_into_the_frame_where_the_frame_lay_in_the_input(
    resize: str, plane_size: tuple[int, int], padded: bool, frame: tuple[int, int]
) -> None:
    spec = InputSpec(60, 36, resize=resize)
    plane = np.random.default_rng(0).integers(0, 256, plane_size).astype(np.uint8)
    out, exact = np.empty(frame, np.uint8), np.empty(frame, np.float32)
    to_frame = PlaneToFrame(plane_size, frame, spec, padded)
    to_frame(plane, out)
    to_frame(plane.astype(np.float32), exact)
    at = place(frame, spec)
    factors = [-(-big // small) for small, big in zip(plane_size, (36, 60), strict=True)]
    whole = padded and factors[0] == factors[1]
    down, across = ((1 / factors[0], 1 / factors[1]) if whole else
                    (plane_size[0] / 36, plane_size[1] / 60))  # fmt: skip
    for y in (0, 1, frame[0] // 2, frame[0] - 1):
        for x in (0, 1, frame[1] // 2, frame[1] - 1):
            expected = sampled(
                plane,
                (at.top + (y + 0.5) * at.height / frame[0]) * down,
                (at.left + (x + 0.5) * at.width / frame[1]) * across,
            )
            assert exact[y, x] == pytest.approx(expected, abs=0.02)
            assert abs(float(out[y, x]) - expected) <= 0.52


@pytest.mark.parametrize(
    ("frame", "averaged"),
    [((64, 96), False), ((65, 96), True), ((64, 97), True), ((16, 200), False)],
)
def test_a_frame_of_more_than_twice_the_input_is_averaged(
    frame: tuple[int, int], averaged: bool
) -> None:
    stripes = np.zeros((*frame, 3), np.uint8)
    stripes[::2, ::2] = 255
    fit = FrameFit(frame, InputSpec(48, 32), (32, 48), swap=False)
    expected = np.empty((32, 48, 3), np.uint8)
    if averaged:
        image.shrink(stripes, expected)
    else:
        expected = image.resize_bilinear(stripes, 48, 32)
    np.testing.assert_array_equal(fit.to_input(stripes)[0], expected)


def test_pixels_of_a_large_frame_are_found_where_numpy_counts_in_32_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As numpy 1 does on Windows."""
    expected = frame_runner._mask_index(0, 1024, 3840, 1024, 1024)
    real = np.arange
    monkeypatch.setattr(np, "arange", lambda *a, dtype=np.int32: real(*a, dtype=dtype))
    np.testing.assert_array_equal(frame_runner._mask_index(0, 1024, 3840, 1024, 1024), expected)
    assert expected[0] == 0 and expected[-1] == 1023 and (np.diff(expected) >= 0).all()
