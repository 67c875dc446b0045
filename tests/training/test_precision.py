import copy

import pytest
import torch
from fastseg_training.precision import choose_precision, fast_depthwise

from fastseg import FastSegNet

CPU = torch.device("cpu")


def test_depthwise_convolutions_in_float32_change_the_arithmetic_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = FastSegNet(3, "nano").eval()
    before, names = str(model), list(model.state_dict())
    image = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        plain = copy.deepcopy(model)(image)
    with fast_depthwise(model, torch.bfloat16, CPU), torch.autocast("cpu", torch.bfloat16):
        assert str(model) != before and list(model.state_dict()) == names
        mixed = model(image)
    assert str(model) == before
    assert (mixed - plain).abs().max() < 0.05 * plain.abs().max()


@pytest.mark.parametrize("precision", [None, torch.float16])
def test_other_precisions_are_left_alone(precision: torch.dtype | None) -> None:
    model = FastSegNet(3, "nano")
    before = str(model)
    with fast_depthwise(model, precision, CPU):
        assert str(model) == before


def test_precisions_that_a_cpu_does_not_have_are_refused() -> None:
    assert choose_precision("fp32", CPU) is None
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        choose_precision("fp16", CPU)
    with pytest.raises(ValueError, match="choose auto or one of"):
        choose_precision("int8", CPU)
