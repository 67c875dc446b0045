import pytest
import torch
from torch import nn

from fastseg import VARIANTS, FastSegNet
from fastseg.blocks import DepthwiseSeparableConv


@pytest.fixture(scope="module")
def nano() -> FastSegNet:
    torch.manual_seed(0)
    return FastSegNet(11, "nano").eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_gives_logits_of_the_images_size(variant: str) -> None:
    model = FastSegNet(5, variant).eval()
    assert model(torch.zeros(2, 3, 64, 96)).shape == (2, 5, 64, 96)


@pytest.mark.parametrize(
    ("variant", "millions"), [("nano", 0.5), ("small", 1.2), ("base", 2.3), ("large", 4.6)]
)
def test_each_variant_has_about_the_parameters_it_is_named_for(
    variant: str, millions: float
) -> None:
    model = FastSegNet(19, variant, auxiliary=False)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.1)


@pytest.mark.parametrize("size", [(1, 1), (37, 53), (360, 480), (64, 64)])
def test_any_size_works(nano: FastSegNet, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert nano(torch.zeros(1, 3, *size)).shape == (1, 11, *size)


def test_an_image_of_a_batch_is_segmented_as_it_is_alone(nano: FastSegNet) -> None:
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(nano(images)[1:2], nano(images[1:2]), atol=1e-4, rtol=1e-4)


def test_training_gets_one_logits_map_per_head_all_of_the_images_size(nano: FastSegNet) -> None:
    maps = nano(torch.zeros(1, 3, 50, 70), auxiliary=True)
    assert [tuple(m.shape) for m in maps] == [(1, 11, 50, 70)] * 3


def test_a_network_without_auxiliary_heads_trains_on_its_main_logits() -> None:
    model = FastSegNet(2, "nano", auxiliary=False)
    assert len(model(torch.zeros(2, 3, 64, 64), auxiliary=True)) == 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 64, 64), r"\(N, 3, H, W\).*image\[None\]"),
        (torch.zeros(1, 64, 64, 3), r"expected a batch of RGB images"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), r"uint8 frames use .*DeployGraph"),
    ],
)
def test_a_wrong_input_is_refused_with_what_to_do(
    nano: FastSegNet, image: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        nano(image)


@pytest.mark.parametrize("count", [0, -1, 256])
def test_class_counts_outside_1_to_255_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 255"):
        FastSegNet(count)


def test_an_unknown_variant_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"choose one of .*nano"):
        FastSegNet(19, "tiny")


def test_only_relu_and_sigmoid_gates_and_no_dilation_or_transposed_convolution() -> None:
    """What int8 engines and NPUs run well, see docs/network.md."""
    for layer in FastSegNet(19, "base").modules():
        assert not isinstance(layer, nn.ConvTranspose2d | nn.Hardswish | nn.SiLU)
        if isinstance(layer, nn.Conv2d):
            assert layer.dilation == (1, 1)


def test_depthwise_separation_saves_eight_to_nine_times_the_multiply_adds() -> None:
    channels, pixels = 96, 32 * 32

    def macs(block: nn.Module) -> int:
        convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
        return sum(m.weight.numel() * pixels for m in convs)

    dense = macs(nn.Conv2d(channels, channels, 3, padding=1))
    separable = macs(DepthwiseSeparableConv(channels, channels, 3))
    assert 8 < dense / separable < 9
