"""Upsampling and argmax for ONNX Runtime on a CPU, in half the time of Resize and ArgMax.

Bilinear upsampling by a whole factor f makes f*f pixels of each logit and its neighbours, with
weights that depend on the pixel's phase alone: a 3x3 convolution with f*f output channels, the
phases. ArgMax then runs over classes with the phases side by side, and only its uint8 ids are
put in order, a fortieth of the bytes of the upsampled logits.

Shape letters: N batch, K classes, h and w the logits' size, f the factor, P = f * f phases.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg import DeployGraph


class PhaseClassMap(nn.Module):
    """Class ids of bilinearly upsampled logits, equal to those of DeployGraph.class_map.

    All sizes are constants, since the graph is exported for one size.

    Args:
        factor: f.
        shape_Khw: of the logits.
        height: of the class map; less than f * h cuts rows off.
        width: likewise.
    """

    def __init__(
        self, factor: int, shape_Khw: tuple[int, int, int], height: int, width: int
    ) -> None:
        super().__init__()
        self.factor, self.shape_Khw, self.height, self.width = factor, shape_Khw, height, width
        taps_f3 = torch.tensor([_taps(phase, factor) for phase in range(factor)])
        weight_ff33 = torch.einsum("ya,xb->yxab", taps_f3, taps_f3)
        weight_P133 = weight_ff33.reshape(-1, 1, 3, 3)
        # One group per class: ONNX Runtime would bring an ungrouped convolution into a blocked
        # layout and pay for another pass over all scores to get out of it.
        self.register_buffer("weight", weight_P133.repeat(shape_Khw[0], 1, 1, 1))

    def forward(self, logits_1Khw: Tensor) -> Tensor:
        """Return uint8 (1, height, width)."""
        f, (classes, h, w) = self.factor, self.shape_Khw
        padded = F.pad(logits_1Khw, (1, 1, 1, 1), mode="replicate")
        padded = padded.reshape(1, classes, h + 2, w + 2)  # the tracer forgets it otherwise
        scores = F.conv2d(padded, self.get_buffer("weight"), groups=classes)
        ids_P = scores.reshape(classes, f * f * h * w).argmax(dim=0).to(torch.uint8)
        ids_hfwf = ids_P.reshape(f, f, h, w).permute(2, 0, 3, 1)
        ids_1HW = ids_hfwf.reshape(1, h * f, w * f)
        return ids_1HW[:, : self.height, : self.width]


def class_map_for(graph: DeployGraph) -> nn.Module:
    """Return a module that gives the ids of graph.class_map, as fast as its sizes allow."""
    height, width = graph.height // graph.mask_stride, graph.width // graph.mask_stride
    with torch.inference_mode():
        logits_1Khw = graph.core(torch.zeros(1, 3, graph.height, graph.width))
    classes, rows, columns = logits_1Khw.shape[1:]
    factor = -(-height // rows)
    if factor == 1 or factor != -(-width // columns):
        return _PlainClassMap(graph)
    return PhaseClassMap(factor, (classes, rows, columns), height, width)


class _PlainClassMap(nn.Module):
    """DeployGraph.class_map as a module."""

    def __init__(self, graph: DeployGraph) -> None:
        super().__init__()
        self.class_map = graph.class_map

    def forward(self, logits_NKhw: Tensor) -> Tensor:
        """Return uint8 (N, height, width)."""
        return self.class_map(logits_NKhw)


def _taps(phase: int, factor: int) -> list[float]:
    """Return the weights of the logits at -1, 0 and +1 for one phase, half-pixel centres."""
    position = (phase + 0.5) / factor - 0.5
    return [max(0.0, 1.0 - abs(position - tap)) for tap in (-1, 0, 1)]
