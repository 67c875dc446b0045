"""Upsampling and argmax for ONNX Runtime on a CPU, in a third of the time of Resize and ArgMax.

Four neighbouring logits are the corners of a cell. Bilinear upsampling by a whole factor f fills
each cell with f*f pixels, whose weights are the same in every cell: a product with one small
matrix. Doing this cell by cell keeps the scores of a pixel's classes a few hundred bytes apart
when ArgMax compares them, instead of megabytes; and doing it in chunks of cells keeps them in
the CPU's cache. Only uint8 ids are put in the order of the image.

Shape letters: N batch, K classes, h and w the logits' size, f the factor, P = f * f pixels of a
cell, C cells.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg import DeployGraph

CHUNK_BYTES = 2 << 20  # of float scores: half to all of a core's second-level cache


class CellClassMap(nn.Module):
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
        taps_f2 = torch.tensor([_taps(pixel, factor) for pixel in range(factor)])
        weight_22ff = torch.einsum("ya,xb->abyx", taps_f2, taps_f2)
        self.register_buffer("weight_4P", weight_22ff.reshape(4, factor * factor))

    def forward(self, logits_1Khw: Tensor) -> Tensor:
        """Return uint8 (1, height, width)."""
        f, (classes, h, w) = self.factor, self.shape_Khw
        chunks = torch.split(self._corners(logits_1Khw), self._rows_per_chunk())
        scores = [corners_4 @ self.get_buffer("weight_4P") for corners_4 in chunks]
        ids = [x.reshape(-1, classes, f * f).argmax(dim=1).to(torch.uint8) for x in scores]
        ids_hwff = torch.cat(ids).reshape(1, h + 1, w + 1, f, f)
        ids_1HW = ids_hwff.permute(0, 1, 3, 2, 4).reshape(1, (h + 1) * f, (w + 1) * f)
        margin = f - _first_pixel(f)  # of the cells at the border, which lie half outside
        return ids_1HW[:, margin : margin + self.height, margin : margin + self.width]

    def _rows_per_chunk(self) -> list[int]:
        """Return how many of the rows of _corners() each chunk takes."""
        classes, h, w = self.shape_Khw
        rows = (h + 1) * (w + 1) * classes
        most = max(1, CHUNK_BYTES // (4 * classes * self.factor**2)) * classes
        # All sizes, the last too: torch's exporter gets the last one wrong by itself.
        return [min(most, rows - start) for start in range(0, rows, most)]

    def _corners(self, logits_1Khw: Tensor) -> Tensor:
        """Return the four corners of every cell, (C * K, 4)."""
        _, h, w = self.shape_Khw
        padded = F.pad(logits_1Khw, (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1)
        corners = [
            padded[:, row : row + h + 1, column : column + w + 1]
            for row in (0, 1)
            for column in (0, 1)
        ]
        return torch.stack(corners, dim=-1).reshape(-1, 4)


def class_map_for(graph: DeployGraph) -> nn.Module:
    """Return a module that gives the ids of graph.class_map, as fast as its sizes allow."""
    height, width = graph.height // graph.mask_stride, graph.width // graph.mask_stride
    with torch.inference_mode():
        logits_1Khw = graph.core(torch.zeros(1, 3, graph.height, graph.width))
    classes, rows, columns = logits_1Khw.shape[1:]
    factor = -(-height // rows)
    if factor == 1 or factor != -(-width // columns):
        return _PlainClassMap(graph)
    return CellClassMap(factor, (classes, rows, columns), height, width)


class _PlainClassMap(nn.Module):
    """DeployGraph.class_map as a module."""

    def __init__(self, graph: DeployGraph) -> None:
        super().__init__()
        self.class_map = graph.class_map

    def forward(self, logits_NKhw: Tensor) -> Tensor:
        """Return uint8 (N, height, width)."""
        return self.class_map(logits_NKhw)


def _first_pixel(factor: int) -> int:
    """Return the first of a logit's pixels that lies at or right of the logit's own position."""
    return factor // 2


def _taps(pixel: int, factor: int) -> tuple[float, float]:
    """Return the weights of a cell's left and right logit for one of its pixels.

    Pixel p of a logit lies (p + 0.5) / f - 0.5 logits right of it: half-pixel centres.
    """
    position = (_first_pixel(factor) + pixel + 0.5) / factor - 0.5
    return 1 - position, position
