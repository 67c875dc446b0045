"""The deploy graph: camera bytes in, class ids out, as one module that every exporter uses.

Shape letters: N batch, K classes, H and W pixels; h and w are the size of the logits.
"""

import copy
from collections.abc import Collection
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.fastsegnet import LOGITS_STRIDE, STRIDE, FastSegNet, upsample
from fastseg.fold import bake_parametrizations, fold_batch_norms
from fastseg.normalization import Normalization
from fastseg.outputs import Reading, leaves
from fastseg.own_code import own_code
from fastseg.restate import FOR_ALL, Restated, spread_dilated_kernels

OutputKind = Literal["classes", "logits"]
CERTAIN = 255.0  # a confidence of 1 as a byte


class DeployGraph(nn.Module):
    """Normalise, segment, upsample and take the argmax, at one fixed size.

    Args:
        network: FastSegNet, or any module that gives logits (N, K, h, w) for normalised images
            (N, 3, H, W), alone or among other outputs. It is copied, set to eval mode, and its
            batch norms are folded (fastseg/fold.py).
        width: W, pixels.
        height: H, pixels.
        mean: subtracted from the bytes.
        std: then divided by.
        output: "classes" for ids, "logits" for the network's own logits map.
        mask_stride: 1, 2 or 4: ids at 1/mask_stride of the image.
        normalization: the network's own, if it is not (x - mean) / std: the core begins with the
            step from one to the other.
        reading: which of the network's outputs are its logits, and where one logit is the second
            class; None: the one that can be.
        keep_norms: batch norms, by their names in `core`, that are not to be folded.

    Raises:
        ValueError: unknown output or mask_stride, a size below the stride, or no logits.
        CheckpointError: the network cannot be copied.
    """

    def __init__(
        self,
        network: nn.Module,
        width: int,
        height: int,
        mean: float = 128.0,
        std: float = 64.0,
        output: OutputKind = "classes",
        mask_stride: int = 1,
        normalization: Normalization | None = None,
        reading: Reading | None = None,
        keep_norms: Collection[str] = (),
    ) -> None:
        super().__init__()
        if output not in ("classes", "logits"):
            raise ValueError(f"output is {output!r}; choose 'classes' or 'logits'")
        if mask_stride not in (1, 2, 4):
            raise ValueError(f"mask_stride is {mask_stride}; choose 1, 2 or 4")
        if width % mask_stride or height % mask_stride or min(width, height) < LOGITS_STRIDE:
            raise ValueError(
                f"cannot make masks of stride {mask_stride} for {width}x{height} images; "
                f"choose a size that it divides, {LOGITS_STRIDE} pixels or more"
            )
        self.width, self.height, self.mean, self.std = width, height, mean, std
        self.output, self.mask_stride = output, mask_stride
        self.normalization = normalization
        image_13HW = torch.zeros(1, 3, height, width)
        network = _copy(network, image_13HW)
        for prepare in (network.cpu, network.float, network.eval):
            prepare()  # whose author's own may return nothing
        bake_parametrizations(network)
        spread_dilated_kernels(network)
        own = normalization
        enter = nn.Identity() if own is None else renormalise(mean, std, own)
        core: nn.Module
        if isinstance(network, FastSegNet):
            network.auxiliary_heads = nn.ModuleList()
            core = PaddedLogits(network, width, height, enter)
        else:
            core = ChosenLogits(network, image_13HW, enter, reading or Reading()).eval()
        self.core = fold_batch_norms(core, image_13HW, keep_norms)
        self.confidence: Confidence | None = None  # set it, and it is given beside the ids

    def forward(self, image_NHW3: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Segment RGB bytes.

        Args:
            image_NHW3: uint8 (N, H, W, 3).

        Returns:
            uint8 class ids (N, H / mask_stride, W / mask_stride), or float logits (N, K, h, w);
            with `confidence` the ids and that, uint8 (N, h, w).
        """
        image_N3HW = self.normalise(image_NHW3).permute(0, 3, 1, 2)
        logits_NKhw: Tensor = self.core(image_N3HW)
        if self.output == "logits":
            return logits_NKhw
        if self.confidence is None:
            return self.class_map(logits_NKhw)
        return self.class_map(logits_NKhw), self.confidence(logits_NKhw)

    def normalise(self, image_NHW3: Tensor) -> Tensor:
        """Return (x - mean) / std as float32, still (N, H, W, 3)."""
        return (image_NHW3.float() - self.mean) / self.std

    def class_map(self, logits_NKhw: Tensor) -> Tensor:
        """Return the ids of the largest upsampled logits, uint8 (N, H / stride, W / stride)."""
        return self.upsample(logits_NKhw).argmax(dim=1).to(torch.uint8)

    def upsample(self, logits_NKhw: Tensor) -> Tensor:
        """Return logits at the size of the mask; by a whole factor where that is the same."""
        size = self.mask_size
        rows, columns = logits_NKhw.shape[-2:]
        factor = self.factor(rows, columns)
        if factor > 1:
            return upsample(logits_NKhw, factor)[..., : size[0], : size[1]]
        if (rows, columns) == size:
            return logits_NKhw
        return F.interpolate(logits_NKhw, size=size, mode="bilinear", align_corners=False)

    @property
    def mask_size(self) -> tuple[int, int]:
        """Height and width of the class map."""
        return self.height // self.mask_stride, self.width // self.mask_stride

    def factor(self, rows: int, columns: int) -> int:
        """Return by which whole factor logits of a size grow to the mask; 0: by none.

        FastSegNet cuts off what covers its padding; logits of others cover the image exactly.
        """
        height, width = self.mask_size
        factor = -(-height // rows)
        exact = factor * rows == height and factor * columns == width
        padded = isinstance(self.core, PaddedLogits) and factor == -(-width // columns)
        return factor if exact or padded else 0


class Confidence(nn.Module):
    """How sure a network is: the softmax of its best class, at the size of the logits, in bytes.

    Args:
        temperature: that the logits are divided by first, so that of the pixels with a confidence
            of 0.8 eight in ten are right (Guo et al., "On Calibration of Modern Neural Networks",
            2017).
        classes_last: logits are (N, h, w, K).
        dtype: of the result.
    """

    def __init__(
        self, temperature: float, classes_last: bool = False, dtype: torch.dtype = torch.uint8
    ) -> None:
        super().__init__()
        self.temperature, self._dtype = temperature, dtype
        self._axis = -1 if classes_last else 1
        # A tensor: of a number, torch makes a reciprocal, which TensorRT's parser lacks.
        self.register_buffer("certain_111", torch.full((1, 1, 1), CERTAIN))

    def forward(self, logits: Tensor) -> Tensor:
        """Return 0 to 255 (N, h, w)."""
        best = logits.amax(dim=self._axis, keepdim=True)
        others = ((logits - best) * (1 / self.temperature)).exp().sum(dim=self._axis)
        return (self.get_buffer("certain_111") / others + 0.5).to(self._dtype)


class PaddedLogits(nn.Module):
    """FastSegNet up to its logits at 1/8: padded to the stride, what covers padding cut off.

    The size is fixed, so that the exported graph holds no arithmetic on shapes.
    """

    def __init__(self, network: FastSegNet, width: int, height: int, enter: nn.Module) -> None:
        super().__init__()
        self.enter, self.network = enter, network
        self.padding = (0, -width % STRIDE, 0, -height % STRIDE)
        self.columns, self.rows = -(-width // LOGITS_STRIDE), -(-height // LOGITS_STRIDE)

    def forward(self, image_N3HW: Tensor) -> Tensor:
        """Return logits (N, K, ceil(H / 8), ceil(W / 8))."""
        image_N3HW = self.enter(image_N3HW)
        if not any(self.padding):
            return self.network.logits(image_N3HW)
        logits_NKhw = self.network.logits(F.pad(image_N3HW, self.padding))
        return logits_NKhw[..., : self.rows, : self.columns]


class ChosenLogits(nn.Module):
    """A network of others, giving logits for each class alone.

    Which output they are is found once, on an image of the graph's size, image_13HW.
    """

    def __init__(
        self, network: nn.Module, image_13HW: Tensor, enter: nn.Module, reading: Reading
    ) -> None:
        super().__init__()
        self.enter, self.network = enter, network
        with torch.no_grad():  # what it keeps of that may be trained with later
            image_13HW = enter(image_13HW)
            result = network(image_13HW)
        self.path = reading.choose(result, image_13HW).path
        one_logit = leaves(result)[self.path].shape[1] == 1
        self.leave = two_logits(reading.logit_threshold) if one_logit else nn.Identity()

    def forward(self, image_N3HW: Tensor) -> Tensor:
        """Return logits (N, K, h, w), K at least 2."""
        image_N3HW = self.enter(image_N3HW)
        with Restated(FOR_ALL):
            logits_NKhw: Tensor = leaves(self.network(image_N3HW))[self.path]
        if logits_NKhw.dtype != torch.float32:  # of a tensor of doubles, an autocast
            logits_NKhw = logits_NKhw.float()
        two_or_more_NKhw: Tensor = self.leave(logits_NKhw)
        return two_or_more_NKhw


def renormalise(mean: float, std: float, own: Normalization) -> nn.Conv2d:
    """Return the step from (x - mean) / std to a network's own normalisation and channel order.

    It is not folded into the convolution after it: that one pads with zeros, which mean another
    colour before this step than behind it. A 1x1 convolution, because every format has one and
    int8 keeps it exactly: one weight for each channel is a scale of that channel.
    """
    step = nn.Conv2d(3, 3, 1)
    channels = (0, 1, 2) if own.color == "rgb" else (2, 1, 0)
    unit = own.scale / 255
    with torch.no_grad():
        step.weight.zero_()
        for to, channel in enumerate(channels):
            step.weight[to, channel] = std * unit / own.std[to]
        offsets = [(mean * unit - m) / s for m, s in zip(own.mean, own.std, strict=True)]
        step.bias = nn.Parameter(torch.tensor(offsets))
    return step


def two_logits(threshold: float) -> nn.Conv2d:
    """Return the step from one logit z to two whose largest is the second where z > threshold.

    Both depend on z, so that int8 gives both the same steps.
    """
    step = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        step.weight[:, 0, 0, 0] = torch.tensor([-0.5, 0.5])
        step.bias = nn.Parameter(torch.tensor([threshold / 2, -threshold / 2]))
    return step


def _copy(network: nn.Module, image_13HW: Tensor) -> nn.Module:
    """Return a deep copy, also of a network that holds tensors computed with gradients.

    Such are the weights of torch.nn.utils.weight_norm, and maps that a hook has kept.
    """
    with own_code(f"{type(network).__name__} cannot be copied"):  # it holds a lock, an open file
        try:
            return copy.deepcopy(network)
        except RuntimeError:
            network.eval()
            with torch.no_grad():
                network(image_13HW)
            return copy.deepcopy(network)
