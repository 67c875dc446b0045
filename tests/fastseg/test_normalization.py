import textwrap
from pathlib import Path

import pytest
import torch
from fastseg_runtime.arrays.strict_tables import from_table
from hypothesis import given
from hypothesis import strategies as st

from fastseg.normalization import NAMED, Normalization, parse_normalization

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NUMBERS = st.floats(0, 1, allow_subnormal=False)
DEVIATIONS = st.floats(1e-3, 1e3)
NORMALIZATIONS = st.builds(
    Normalization,
    st.tuples(NUMBERS, NUMBERS, NUMBERS),
    st.tuples(DEVIATIONS, DEVIATIONS, DEVIATIONS),
    st.sampled_from([1, 255]),
    st.sampled_from(["rgb", "bgr"]),
)


def test_imagenet_is_what_torchvision_normalises_with() -> None:
    image_1HW3 = torch.randint(0, 256, (1, 5, 7, 3), dtype=torch.uint8)
    mean_311, std_311 = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    expected = (image_1HW3.permute(0, 3, 1, 2) / 255 - mean_311) / std_311
    torch.testing.assert_close(NAMED["imagenet"].normalise(image_1HW3), expected)


def test_centred_is_exactly_the_bytes_minus_128_over_64() -> None:
    image_1HW3 = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    expected = ((image_1HW3.float() - 128) / 64).permute(0, 3, 1, 2)
    assert torch.equal(NAMED["centred"].normalise(image_1HW3), expected)


def test_the_numbers_of_a_name_stay_with_their_colours_in_bgr() -> None:
    image_1HW3 = torch.randint(0, 256, (1, 5, 7, 3), dtype=torch.uint8)
    turned = parse_normalization("imagenet", "bgr")
    assert turned is not None
    rgb_13HW = NAMED["imagenet"].normalise(image_1HW3)
    assert torch.equal(turned.normalise(image_1HW3), rgb_13HW.flip(1))
    assert str(turned).startswith("B (x / 255 - 0.406) / 0.225, G")


def test_the_numbers_of_a_file_stand_in_the_order_of_the_networks_channels(tmp_path: Path) -> None:
    file = tmp_path / "caffe.toml"
    file.write_text("mean = [103.939, 116.779, 123.68]\nstd = [1, 1, 1]\nscale = 255\n")
    caffe = parse_normalization(str(file), "bgr")
    assert caffe is not None
    red_111_3 = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 1, 1, 3)
    expected = torch.tensor([-103.939, -116.779, 255 - 123.68])
    torch.testing.assert_close(caffe.normalise(red_111_3).flatten(), expected)


@given(NORMALIZATIONS)
def test_pictures_and_tables_come_back(normalization: Normalization) -> None:
    assert from_table(Normalization, normalization.to_table(), "") == normalization
    image_1HW3 = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    assert torch.equal(normalization.restore(normalization.normalise(image_1HW3)), image_1HW3)


@given(NORMALIZATIONS)
def test_no_byte_leaves_the_limits(normalization: Normalization) -> None:
    low_3, high_3 = (torch.tensor(values) for values in normalization.limits())
    ends_1HW3 = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 1, 2, 3)
    values_3 = normalization.normalise(ends_1HW3)[0, :, 0]
    # Where mean and byte nearly cancel, what is left carries the rounding of both.
    terms = max(abs(m) / s for m, s in zip(normalization.mean, normalization.std, strict=True))
    limits_32 = torch.stack([low_3, high_3], dim=1)
    torch.testing.assert_close(values_3, limits_32, rtol=1e-5, atol=1e-5 + 1e-6 * terms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mean = [0, 0, 0]\nstd = [1, 1, 1]", r"missing keys \['scale'\]"),
        ("mean = [0, 0]\nstd = [1, 1, 1]\nscale = 1", r"mean: expected 3 values, got \[0, 0\]"),
        ("mean = 0\nstd = [1, 1, 1]\nscale = 1", "mean: expected list, got 0"),
        ("mean = [0, nan, 0]\nstd = [1, 1, 1]\nscale = 1", r"mean\[1\]: expected a finite number"),
        ("mean = [0, 0, 0]\nstd = [1, 0, 1]\nscale = 1", "std is .* above 0"),
        ("mean = [123.7, 116.3, 103.5]\nstd = [1, 1, 1]\nscale = 1", "is the other scale meant"),
        ("mean = [0, 0, 0]\nstd = [1, 1, 1]\nscale = 2", "scale is 2; expected 255"),
        (
            "mean = [0, 0, 0]\nstd = [1, 1, 1]\nscale = 1\ncolor = 'yuv'",
            "color: expected one of 'rgb'",
        ),
        ("mean = [0, 0, 0]\nstd = [1, 1, 1]\nscale = 1\nsize = 3", r"unknown keys \['size'\]"),
        ("mean = [0, 0", "cannot read the normalisation"),
    ],
)
def test_a_file_that_does_not_say_it_is_refused_in_one_line(
    text: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "n.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        parse_normalization(str(file))
    assert "n.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mean_at_the_end_of_what_a_byte_can_be_is_taken_and_one_above_it_is_not() -> None:
    assert Normalization((1.0, 0.0, 1.0), (1.0, 1.0, 1.0), 1)
    with pytest.raises(ValueError, match="outside of 0 to 1"):
        Normalization((1.001, 0.0, 1.0), (1.0, 1.0, 1.0), 1)


def test_a_name_that_nobody_knows_and_two_orders_of_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose imagenet"):
        parse_normalization("imagnet")
    file = tmp_path / "n.toml"
    file.write_text("mean = [0, 0, 0]\nstd = [1, 1, 1]\nscale = 1\ncolor = 'rgb'")
    with pytest.raises(ValueError, match="--color bgr; choose one"):
        parse_normalization(str(file), "bgr")


def test_nothing_named_is_nothing_and_bgr_alone_is_ours_in_bgr() -> None:
    assert parse_normalization(None) is None
    assert parse_normalization(None, "bgr") == Normalization((128,) * 3, (64,) * 3, 255, "bgr")


def test_the_example_of_the_documentation_is_taken(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/exporting.md").read_text("utf-8")
    block = page[page.index("    mean = [") :].partition("\n\n")[0]
    (tmp_path / "caffe.toml").write_text(textwrap.dedent(block))
    caffe = parse_normalization(str(tmp_path / "caffe.toml"))
    assert caffe is not None and caffe.color == "bgr" and caffe.scale == 255
