import copy
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from fastseg_training.batches.resident import keep_freed_memory
from fastseg_training.precision import choose_precision, fast_depthwise
from torch import Tensor, nn

from fastseg import FastSegNet

CPU = torch.device("cpu")


def test_fast_depthwise_convolutions_change_the_arithmetic_and_nothing_else() -> None:
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


class Padding(nn.Conv2d):
    """A convolution as other projects have it, that pads by itself."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        padded = F.pad(x_NCHW, (1, 2, 1, 2))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


@pytest.mark.parametrize("kind", [nn.Conv2d, Padding])
@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(1, 2, 0), (3, 2, 1), (3, 2, 0), (5, 1, 2), (5, 2, 0), (5, 2, 2), (7, 2, 3)],
)
def test_fast_depthwise_convolutions_have_the_gradients_of_float32(
    kind: type[nn.Conv2d], size: int, stride: int, padding: int
) -> None:
    torch.manual_seed(0)
    layer = kind(8, 8, size, stride, padding, groups=8, bias=kind is Padding)
    fast, image = nn.Sequential(nn.Conv2d(3, 8, 1), layer), torch.randn(2, 3, 21, 22)
    exact = copy.deepcopy(fast)
    expected = exact(image)
    grad = torch.randn_like(expected)
    expected.backward(grad)
    with fast_depthwise(fast, torch.bfloat16, CPU), torch.autocast("cpu", torch.bfloat16):
        got = fast(image)
    assert got.dtype == torch.bfloat16 and type(fast[1]) is kind
    got.backward(grad.bfloat16())
    pairs = [(got, expected)]
    pairs += [(a.grad, b.grad) for a, b in zip(fast.parameters(), exact.parameters(), strict=True)]
    for ours, theirs in pairs:
        assert (ours - theirs).abs().max() < 0.02 * theirs.abs().max()


CALLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "by name": lambda x, w: F.conv2d(input=x, weight=w, stride=2, groups=8),
    "same": lambda x, w: F.conv2d(x, w, padding="same", groups=8),
    "lists": lambda x, w: F.conv2d(x, w, None, [2, 2], [2], groups=8),
    "dilated": lambda x, w: F.conv2d(x, w, None, 1, 4, 2, 8),
    "dense": lambda x, w: F.conv2d(x, w.expand(-1, 8, -1, -1)),
    "pairs": lambda x, w: F.conv2d(x, w.expand(-1, 2, -1, -1), None, 2, 2, 1, 4),
    "two maps of each": lambda x, w: F.conv2d(x, w.repeat(2, 1, 1, 1), groups=8),
    "even": lambda x, w: F.conv2d(x, w[..., :4, :4], groups=8),
    "oblong": lambda x, w: F.conv2d(x, w[..., :3], groups=8),
    "one picture": lambda x, w: F.conv2d(x[0], w, groups=8),
}


class Calling(nn.Conv2d):
    call: Callable[[Tensor, Tensor], Tensor]

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.call(x_NCHW, self.weight)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_layers_of_others_that_call_a_convolution_otherwise_compute_what_they_did(
    call: Callable[[Tensor, Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    layer, image = Calling(8, 8, 5, 2, groups=8), torch.randn(2, 8, 21, 22)
    layer.call = call
    pairs = []
    for precision in (None, torch.bfloat16):
        layer.zero_grad()
        with fast_depthwise(layer, precision, CPU), torch.autocast("cpu", torch.bfloat16):
            output = layer(image)
        output.float().square().sum().backward()
        pairs.append((output, layer.weight.grad))
    for plain, ours in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, plain)


def test_freed_memory_is_kept_where_the_c_library_can_and_nothing_else_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = """
import resource, torch
from fastseg_training.batches.resident import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.zeros(16_000_000).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
keep_freed_memory()
faults()
print(before, min(faults() for _ in range(5)))  # the kernel may take pages back meanwhile
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = map(int, run.stdout.split())
    assert after < before / 10
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    keep_freed_memory()


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
