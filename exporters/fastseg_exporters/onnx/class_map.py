"""Upsampling and argmax for ONNX Runtime on a CPU: the same ids for a fraction of the work.

Four neighbouring logits are the corners of a cell. Bilinear upsampling by a whole factor f fills
each cell with f*f pixels, whose scores are weighted means of the corners' scores. So where one
class wins at all four corners, it wins in the whole cell, and nothing is to be computed. Only the
cells on borders between classes (a tenth to a fifth of a street scene) are interpolated: the
weights are the same in every cell, which makes it a product with one small matrix, and the scores
of a pixel's classes lie a few hundred bytes apart when ArgMax compares them, not megabytes.

So the time depends on the picture: at 1024x512 and 19 classes, one thread of an EPYC 9004 takes 1
to 3 ms for street scenes and 12 ms for noise, all of whose cells are mixed; Resize and ArgMax take
40 ms for any. Cells are taken in chunks, so that their scores stay in the CPU's cache. The first
cell of each chunk is interpolated whatever it holds: in a picture of one class there would be sizes
of zero otherwise, and ONNX Runtime before 1.32 fuses Transpose and MatMul into an operator that
refuses an empty batch.

Shape letters: N batch, K classes, h and w the logits' size, f the factor, P = f * f pixels of a
cell, C cells, M mixed or first ones, L = (h + 2) * (w + 2) logits with a margin of one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg import DeployGraph

CHUNK_BYTES = 4 << 20  # of float scores if all cells are mixed


class CellClassMap(nn.Module):
    """Class ids of bilinearly upsampled logits, equal to those of DeployGraph.class_map.

    All sizes but the number of mixed cells are constants: the graph is exported for one size.

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
        classes, h, w = shape_Khw
        taps_f2 = torch.tensor([_taps(pixel, factor) for pixel in range(factor)])
        weight_22ff = torch.einsum("ya,xb->abyx", taps_f2, taps_f2)
        self.register_buffer("weight_4P", weight_22ff.reshape(4, factor * factor))
        self.register_buffer("corners_C4", _corners(h, w))
        self.register_buffer("first_C", torch.arange(self._cells_per_chunk()[0]) == 0)
        ids_K1 = torch.arange(classes, dtype=torch.uint8)[:, None]
        self.register_buffer("uniform_KP", ids_K1.repeat(1, factor * factor))

    def forward(self, logits_1Khw: Tensor) -> Tensor:
        """Return uint8 (1, height, width)."""
        f, (classes, h, w) = self.factor, self.shape_Khw
        padded_1Khw = F.pad(logits_1Khw, (1, 1, 1, 1), mode="replicate")
        logits_LK = padded_1Khw.permute(0, 2, 3, 1).reshape(-1, classes)
        winner_L = padded_1Khw.argmax(dim=1).reshape(-1)
        chunks = torch.split(self.get_buffer("corners_C4"), self._cells_per_chunk())
        ids_CP = torch.cat([self._fill(corners, winner_L, logits_LK) for corners in chunks])
        ids_hwff = ids_CP.reshape(1, h + 1, w + 1, f, f)
        ids_1HW = ids_hwff.permute(0, 1, 3, 2, 4).reshape(1, (h + 1) * f, (w + 1) * f)
        margin = f - f // 2  # of the cells at the border, which lie half outside
        return ids_1HW[:, margin : margin + self.height, margin : margin + self.width]

    def _fill(self, corners_C4: Tensor, winner_L: Tensor, logits_LK: Tensor) -> Tensor:
        """Return the ids of some cells, uint8 (C, P)."""
        winner_C4 = winner_L[corners_C4]
        is_mixed_C = winner_C4.amax(dim=1) != winner_C4.amin(dim=1)
        first_C = self.get_buffer("first_C")[: len(corners_C4)]
        mixed_M = torch.nonzero(is_mixed_C | first_C)[:, 0]  # M > 0
        corners_MK4 = logits_LK[corners_C4[mixed_M]].transpose(1, 2)
        scores_MKP = corners_MK4 @ self.get_buffer("weight_4P")
        ids_MP = scores_MKP.argmax(dim=1).to(torch.uint8)
        ids_CP = self.get_buffer("uniform_KP")[winner_C4[:, 0]]
        return ids_CP.index_put((mixed_M,), ids_MP)

    def _cells_per_chunk(self) -> list[int]:
        classes, h, w = self.shape_Khw
        cells = (h + 1) * (w + 1)
        most = max(1, CHUNK_BYTES // (4 * classes * self.factor**2))
        # All sizes, the last too: torch's exporter gets the last one wrong by itself.
        return [min(most, cells - start) for start in range(0, cells, most)]


def _corners(h: int, w: int) -> Tensor:
    """Return where the four corners of every cell lie among the L logits, int64 (C, 4)."""
    position_hw = torch.arange((h + 2) * (w + 2)).reshape(h + 2, w + 2)
    corners = [
        position_hw[row : row + h + 1, column : column + w + 1]
        for row in (0, 1)
        for column in (0, 1)
    ]
    return torch.stack(corners, dim=-1).reshape(-1, 4)


def class_map_for(graph: DeployGraph) -> nn.Module:
    """Return a module that gives the ids of graph.class_map, as fast as its sizes allow."""
    with torch.inference_mode():
        logits_1Khw = graph.core(torch.zeros(1, 3, graph.height, graph.width))
    classes, rows, columns = logits_1Khw.shape[1:]
    factor = graph.factor(rows, columns)
    if factor <= 1:
        return _PlainClassMap(graph)
    return CellClassMap(factor, (classes, rows, columns), *graph.mask_size)


class _PlainClassMap(nn.Module):
    """DeployGraph.class_map as a module."""

    def __init__(self, graph: DeployGraph) -> None:
        super().__init__()
        self.class_map = graph.class_map

    def forward(self, logits_NKhw: Tensor) -> Tensor:
        """Return uint8 (N, height, width)."""
        return self.class_map(logits_NKhw)


def _taps(pixel: int, factor: int) -> tuple[float, float]:
    """Return the weights of a cell's left and right logit for one of its pixels.

    Pixel p of a logit lies (p + 0.5) / f - 0.5 logits right of it: half-pixel centres. The first
    at or right of the logit's own position is f // 2.
    """
    position = (factor // 2 + pixel + 0.5) / factor - 0.5
    return 1 - position, position
