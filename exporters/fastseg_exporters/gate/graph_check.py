"""Is the graph that exporters convert still the network that its author wrote?

Both run in PyTorch on the same pictures before anything is converted, and only the graph with
our folding, choice of output, normalisation and upsampling. What differs by more than rounding
is not exported.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from itertools import compress
from types import FrameType
from typing import Any

import torch
from fastseg_runtime.arrays.metrics import Array
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fastseg import DeployGraph, Network
from fastseg_exporters.gate.reference import reference_logits

# Of the largest of the best logits. What folding and another order of sums change is 8e-7 at most
# in the networks that ship and in those of tests/doubles/folding_networks.py; a deep network may
# have some times that, a norm folded wrongly changes 1e-2 or more.
ROUNDING = 1e-4
# Times what the network's own logits move by when each value of its picture is rounded otherwise:
# a norm over one picture divides by nearly nothing where that is plain. InstanceNorm on black moved
# by 2.8e-4 so, and its graph by 1.9e-4. At most what a norm folded wrongly changes at the least.
OWN_ROUNDINGS, MOST_ROUNDING = 4.0, 5e-3
# Graphs to look for harmful norms with: one takes two at each halving, 14 among a hundred. Where
# rounding decides which value is taken (top-k), all may do harm, and a graph for each took minutes.
MOST_TRIES = 24
_INFINITE = "infinite, of which upsampling makes NaN"


def refuse_unpooling(network: Network) -> None:
    """Refuse max-unpooling, which no exporter takes, before anything else is done.

    Raises:
        ValueError: it unpools; the module that does is named.
    """
    info, seen = network.info, _Unpooling()
    with seen:
        network.logits(torch.zeros(1, info.height, info.width, 3, dtype=torch.uint8))
    if seen.module is None:
        return
    names = {layer: name for name, layer in network.model.named_modules()}
    where = f"{names.get(seen.module) or 'the network'} ({type(seen.module).__name__})"
    raise ValueError(
        f"{network.name} cannot be exported: {seen.function} in {where} is taken in no format; "
        "upsample there instead (F.interpolate, a transposed convolution) and train it again"
    )


class _Unpooling(TorchFunctionMode):
    """Notes who unpools first."""

    def __init__(self) -> None:
        super().__init__()
        self.function = ""
        self.module: nn.Module | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name.startswith("max_unpool") and not self.function:
            self.function, self.module = name, _calling_module()
        return func(*args, **(kwargs or {}))


def _calling_module() -> nn.Module | None:
    """Return the innermost module whose code is being run."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if isinstance(module := frame.f_locals.get("self"), nn.Module):
            return module
        frame = frame.f_back
    return None


def check_graph(
    network: Network, images_1HW3: Sequence[Array], tell: Callable[[str], None]
) -> tuple[str, ...]:
    """Return the batch norms that must not be folded, by name; none but in odd networks.

    Args:
        network: what the user gave.
        images_1HW3: uint8 RGB of the network's input size.
        tell: told which folds are left out.

    Raises:
        ValueError: the graph is another network whatever is folded.
    """

    def differences(keep_norms: Collection[str], pictures: Sequence[Array]) -> list[str]:
        graph = network.graph(keep_norms=keep_norms)
        return [_difference(network, graph, image_1HW3) for image_1HW3 in pictures]

    folded = differences((), images_1HW3)
    if not any(folded):
        return ()
    layers = network.model.named_modules()
    norms = tuple(f"network.{name}" for name, layer in layers if isinstance(layer, nn.BatchNorm2d))
    if found := next(filter(None, differences(norms, images_1HW3)), ""):
        raise ValueError(
            f"{network.name} cannot be exported: {_cause(network, images_1HW3, found)}"
        )
    telling = next(compress(images_1HW3, folded))  # what a harmful fold changes is seen in it
    harmful = _find_harmful(
        norms, lambda few: any(differences(set(norms).difference(few), [telling]))
    )
    kept = norms if any(differences(harmful, images_1HW3)) else harmful
    tell(f"not folded, which would change the network's answer: {', '.join(kept)}")
    return kept


def _find_harmful(
    norms: tuple[str, ...], harm: Callable[[tuple[str, ...]], bool]
) -> tuple[str, ...]:
    """Return the norms whose folding does harm; more with them where too many do.

    Args:
        norms: that do harm together.
        harm: whether some do, if they alone are folded.
    """
    groups, tries = [norms], 0
    while tries < MOST_TRIES and len(largest := max(groups, key=len)) > 1:
        groups.remove(largest)
        first, second = largest[: len(largest) // 2], largest[len(largest) // 2 :]
        found = [half for half in (first, second) if harm(half)]
        groups += found or [first, second]  # which do it together
        tries += 2
    return tuple(norm for norm in norms if any(norm in group for group in groups))


def _difference(network: Network, graph: DeployGraph, image_1HW3: Array) -> str:
    """Return what differs in the logits or ids of a picture; "" if no more than rounding does."""
    expected_1KHW = reference_logits(network, image_1HW3)
    with torch.inference_mode():
        image = torch.from_numpy(image_1HW3)
        logits_1KHW = graph.upsample(graph.core(graph.normalise(image).permute(0, 3, 1, 2)))
    if not (found := differ(logits_1KHW, expected_1KHW)):
        return ""
    own = OWN_ROUNDINGS * _own_rounding(network, image_1HW3, expected_1KHW)
    if not ROUNDING < own < float("inf"):
        return found
    return differ(logits_1KHW, expected_1KHW, min(own, MOST_ROUNDING))


def _own_rounding(network: Network, image_1HW3: Array, expected_1KHW: Tensor) -> float:
    """Return by what share the logits move when the network's picture is rounded otherwise."""
    noise = torch.Generator().manual_seed(0)

    def rounded(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ulps = torch.rand(inputs[0].shape, generator=noise) * 2 - 1
        return inputs[0] * (1 + torch.finfo(torch.float32).eps * ulps), *inputs[1:]

    hook = network.model.register_forward_pre_hook(rounded)
    try:
        moved_1KHW = reference_logits(network, image_1HW3)
    finally:
        hook.remove()
    scale = float(expected_1KHW.amax(dim=1).abs().max()) or 1.0
    return float((moved_1KHW - expected_1KHW).abs().max()) / scale


def differ(logits_NKHW: Tensor, expected_NKHW: Tensor, rounding: float = ROUNDING) -> str:
    """Return by what logits differ from those expected; "" if by no more than rounding.

    The two best logits of each pixel are compared, relative to the largest of them: those far
    below decide nothing, and may be as low as -inf. That none of those rises is seen in the ids,
    wherever the two best lie further apart than rounding.
    """
    if logits_NKHW.shape != expected_NKHW.shape:
        return f"logits of {tuple(logits_NKHW.shape)} instead of {tuple(expected_NKHW.shape)}"
    best = expected_NKHW.topk(min(2, expected_NKHW.shape[1]), dim=1)
    scale = float(best.values.abs().max()) or 1.0
    limit = rounding * scale
    error = float((logits_NKHW.gather(1, best.indices) - best.values).abs().max())
    clear_NHW = best.values[:, 0] - best.values[:, -1] > 2 * limit
    other_NHW = logits_NKHW.argmax(dim=1) != best.indices[:, 0]
    pixels = float((other_NHW & clear_NHW).float().mean())
    if error <= limit and pixels == 0:
        return ""
    return f"logits differ by {error / scale:.2%}, ids in {pixels:.1%} of the pixels"


def _cause(network: Network, images_1HW3: Sequence[Array], found: str) -> str:
    for image_1HW3 in images_1HW3:
        first, second = (reference_logits(network, image_1HW3) for _ in range(2))
        if first.isnan().any():
            own = network.logits(torch.from_numpy(image_1HW3))
            what = "no numbers (NaN)" if own.isnan().any() else _INFINITE
            return f"it gives logits that are {what}; train it again, or mend its weights"
        if first.amax(dim=1).isinf().any():
            return (
                "it gives pixels whose largest logit is infinite; let its forward() mask with a "
                "finite value, such as -1e4"
            )
        if differ(second, first):
            return (
                "it gives another answer each time it is called on the same picture; take random "
                "numbers (F.dropout without training=self.training?) and memory out of forward()"
            )
        enlarged = OWN_ROUNDINGS * _own_rounding(network, image_1HW3, first)
        if network.onnx_file is not None or enlarged > MOST_ROUNDING:  # no copy of a file
            return (
                f"its answer changes with the rounding of its picture ({found}), as where a top-k, "
                "a threshold or int8 ranges found in the picture (DynamicQuantizeLinear) decide; "
                "leave that out of it, and name the float file of one in int8"
            )
    return (
        f"the graph made of it gives another answer than the module itself ({found}); does its "
        "forward() or a hook use anything that copy.deepcopy(module) does not copy?"
    )
