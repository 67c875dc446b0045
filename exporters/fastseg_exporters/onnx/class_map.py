"""Upsampling and argmax for ONNX Runtime on a CPU: the same ids for a fraction of the work.

Four neighbouring logits are the corners of a cell. Bilinear upsampling by a whole factor f fills
each cell with f*f pixels, whose scores are weighted means of the corners' scores. So where one
class wins at all four corners, it wins in the whole cell, and nothing is to be computed. That
leaves the cells on borders between classes, a tenth to a fifth of a street scene. Most of these
(four of five on CamVid) are borders of two classes: each other class is beaten by one and the same
of the two at all four corners, so inside too, and the sign of the interpolated difference of the
two decides. In what remains all classes are interpolated: the weights are the same in every cell,
which makes it a product with one small matrix, and the scores of a pixel's classes lie a few
hundred bytes apart when ArgMax compares them, not megabytes.

So the time depends on the picture: at 1024x512 and 19 classes, one thread of an EPYC 9004 takes 0.5
to 1 ms for street scenes and 15 ms for noise, all of whose cells hold many classes; Resize and
ArgMax take 40 ms for any. The last kind of cells is taken in parts, so that their scores stay in
the CPU's cache. Each part, and the list of cells on borders, begins with a cell that is computed
whatever it holds: in a picture of one class there would be sizes of zero otherwise, and ONNX
Runtime before 1.32 fuses Transpose and MatMul into an operator that refuses an empty batch.

Shape letters: N batch, K classes, h and w the logits' size, f the factor, P = f * f pixels of a
cell, L = h * w logits, C = (h + 1) * (w + 1) cells, M cells on borders, U cells of one part.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg import DeployGraph

PART_BYTES = 8 << 20  # of float scores if all cells hold many classes


class CellClassMap(nn.Module):
    """Class ids of bilinearly upsampled logits, equal to those of DeployGraph.class_map.

    All sizes but the numbers of cells are constants: the graph is exported for one size.

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
        ids_K1 = torch.arange(classes, dtype=torch.uint8)[:, None]
        self.register_buffer("uniform_KP", ids_K1.repeat(1, factor * factor))
        scores_bytes = 4 * classes * factor**2 * (h + 1) * (w + 1)
        self.parts = -(-scores_bytes // PART_BYTES)
        self.register_buffer("zeros_4", torch.zeros(4, dtype=torch.int64))
        self.register_buffer("first_C", torch.arange((h + 1) * (w + 1)) == 0)
        self.register_buffer("always", torch.ones(self.parts, dtype=torch.bool))

    def forward(self, logits_1Khw: Tensor) -> Tensor:
        """Return uint8 (1, height, width)."""
        f, (classes, h, w) = self.factor, self.shape_Khw
        logits_LK = logits_1Khw.permute(0, 2, 3, 1).reshape(-1, classes)
        winner_11hw = logits_LK.argmax(dim=1).float().reshape(1, 1, h, w)
        high_C = F.max_pool2d(winner_11hw, 2, stride=1, padding=1).reshape(-1)
        low_C = -F.max_pool2d(-winner_11hw, 2, stride=1, padding=1).reshape(-1)
        border_M = torch.nonzero((high_C > low_C) | self.get_buffer("first_C"))[:, 0]
        corners_4M = self.get_buffer("corners_C4")[border_M].T
        ids_MP = self._borders(logits_LK[corners_4M], low_C[border_M], high_C[border_M])
        ids_CP = self.get_buffer("uniform_KP")[low_C.long()].index_put((border_M,), ids_MP)
        ids_hwff = ids_CP.reshape(1, h + 1, w + 1, f, f)
        ids_1HW = ids_hwff.permute(0, 1, 3, 2, 4).reshape(1, (h + 1) * f, (w + 1) * f)
        margin = f - f // 2  # of the cells at the border, which lie half outside
        return ids_1HW[:, margin : margin + self.height, margin : margin + self.width]

    def _borders(self, logits_4MK: Tensor, low_M: Tensor, high_M: Tensor) -> Tensor:
        """Return ids of cells from their corners' lowest and highest winner, uint8 (M, P)."""
        weight_4P, zeros_4 = self.get_buffer("weight_4P"), self.get_buffer("zeros_4")
        logits_K4M = logits_4MK.permute(2, 0, 1)  # so are all steps on long contiguous rows
        low_14M = logits_K4M.gather(0, (low_M.long() + zeros_4[:, None])[None])
        high_14M = logits_K4M.gather(0, (high_M.long() + zeros_4[:, None])[None])
        above_low_KM = (logits_K4M - low_14M).amax(dim=1)
        above_high_KM = (logits_K4M - high_14M).amax(dim=1)
        is_many_M = torch.minimum(above_low_KM, above_high_KM).amax(dim=0) > 0
        lead_MP = (high_14M - low_14M)[0].T @ weight_4P  # among equals the lowest id wins
        low_M1, high_M1 = (ids_M.to(torch.uint8)[:, None] for ids_M in (low_M, high_M))
        ids_MP = torch.where(lead_MP > 0, high_M1, low_M1)
        many = torch.nonzero(torch.cat([self.get_buffer("always"), is_many_M]))[:, 0]
        many = (many - self.parts).clamp(min=0)  # the first cell for each part, then those of many
        for part in range(self.parts):
            cells_U = many[part :: self.parts]
            scores_UKP = _product(logits_4MK[:, cells_U], weight_4P, self.shape_Khw[0])
            ids_MP = ids_MP.index_put((cells_U,), scores_UKP.argmax(dim=1).to(torch.uint8))
        return ids_MP


def _product(logits_4UK: Tensor, weight_4P: Tensor, classes: int) -> Tensor:
    """Return the scores of all classes, (U, K, P), as one product and not one for each cell.

    K is told: a size of what the picture selects is not to be asked for.
    """
    return (logits_4UK.reshape(4, -1).T @ weight_4P).reshape(-1, classes, weight_4P.shape[1])


def _corners(h: int, w: int) -> Tensor:
    """Return where the four corners of every cell lie among the L logits, int64 (C, 4).

    Beyond the border the logits at it repeat.
    """
    row_R, column_S = (torch.arange(-1, side + 1).clamp(0, side - 1) for side in (h, w))
    position_RS = row_R[:, None] * w + column_S
    corners = [
        position_RS[row : row + h + 1, column : column + w + 1]
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
