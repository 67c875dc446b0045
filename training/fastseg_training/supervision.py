"""From a network and a batch to the loss: every head against labels at the head's own scale.

Full-size logits would cost as much time as the network itself, so heads are compared at a coarser
stride, on label pixels of another phase every step: over s*s steps each label pixel has its say.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from torch import Tensor, nn

from fastseg.fastsegnet import STRIDE, FastSegNet
from fastseg.outputs import Reading, ReadingError
from fastseg.own_code import own_code
from fastseg_training.config import ConfigError
from fastseg_training.distill import resized

AUXILIARY_STRIDE = 8  # auxiliary heads are to say roughly what is where; finer costs time

_TAKES_255 = (
    f"the criterion takes {IGNORE_INDEX} for a class, and labels hold it for what nobody judged; "
    f"make it with ignore_index={IGNORE_INDEX}"
)


class AllHeads(nn.Module):
    """A network as training sees it: one call gives the logits of all heads.

    Args:
        model: FastSegNet, or a network whose output is a tensor, a sequence of tensors or a
            dictionary of them as in torchvision, {"aux": ..., "out": ...}.
        reading: which of them are the main logits; the others with as many classes are auxiliary.
    """

    def __init__(self, model: nn.Module, reading: Reading | None = None) -> None:
        super().__init__()
        self.model, self.reading = model, reading or Reading()

    def forward(self, image_N3HW: Tensor) -> list[Tensor]:
        """Return logits, those of the main head first, each as small as the network has them."""
        if isinstance(self.model, FastSegNet):
            heads = [self.model.head, *self.model.auxiliary_heads]
            maps = self.model.features(image_N3HW)
            return [head(x) for head, x in zip(heads, maps, strict=False)]
        with own_code("the network"):
            output = self.model(image_N3HW)
        try:
            return self.reading.heads(output, image_N3HW)
        except ReadingError as error:
            raise ReadingError(f"the network {error}") from error


class OwnLoss(nn.Module):
    """A criterion of the user's, held to what a training needs of it.

    Args:
        criterion: a module or a function of logits (N, K, H, W) and labels (N, H, W).
    """

    def __init__(self, criterion: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.criterion = criterion
        of_torch = type(criterion) in (nn.CrossEntropyLoss, nn.NLLLoss)
        self.takes_255 = of_torch and getattr(criterion, "ignore_index", None) != IGNORE_INDEX

    def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        """Return its scalar, but 0 where nothing is labelled and it gives none, as a mean of 0/0.

        Raises:
            ConfigError: it gives no scalar, or takes 255 for a class.
        """
        seen_NKHW = logits_NKHW.view_as(logits_NKHW)  # whose hook concerns this loss alone
        loss = self._call(seen_NKHW, label_NHW)
        if not isinstance(loss, Tensor) or loss.ndim:
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(
                f"the criterion gives {got}; expected one number, a Tensor of shape (), such as "
                "the mean over all pixels (reduction='mean')"
            )
        # Asking here whether it counts would have the CPU wait for a GPU at every head.
        counts = loss.isfinite() | (label_NHW != IGNORE_INDEX).any()
        if seen_NKHW.requires_grad:
            seen_NKHW.register_hook(lambda gradient: torch.where(counts, gradient, 0))  # type: ignore[no-untyped-call]  # torch's
        return torch.where(counts, loss, 0)

    def _call(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Any:
        # On a GPU a class that is not there would end the process.
        if self.takes_255 and (label_NHW == IGNORE_INDEX).any():
            raise ConfigError(_TAKES_255)
        try:
            return self.criterion(logits_NKHW, label_NHW)
        except (IndexError, RuntimeError) as error:
            if label_NHW.device.type == "cpu" and self._fails_at_255(logits_NKHW, label_NHW):
                raise ConfigError(f"{_TAKES_255}; torch says: {error}") from error
            raise

    def _fails_at_255(self, logits_NKHW: Tensor, label_NHW: Tensor) -> bool:
        """Return whether what failed serves the same labels without 255."""
        is_255 = label_NHW == IGNORE_INDEX
        try:
            self.criterion(logits_NKHW, label_NHW.masked_fill(is_255, 0))
        except (IndexError, RuntimeError):
            return False
        return bool(is_255.any())


def pad_batch(image_N3HW: Tensor, label_NHW: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Pad right and bottom to multiples of the deepest stride; the padding is ignored.

    A lone image, as the last batch of a pass may be, is shown twice: the batch norm of a global
    average has no variance to compute from one value.
    """
    if len(image_N3HW) == 1:
        image_N3HW, label_NHW = (torch.cat([x, x]) for x in (image_N3HW, label_NHW))
    height, width = image_N3HW.shape[-2:]
    padding = (0, -width % STRIDE, 0, -height % STRIDE)
    if not any(padding):
        return image_N3HW, label_NHW
    return F.pad(image_N3HW, padding), F.pad(label_NHW, padding, value=ignore_index)


def supervise(
    logits: list[Tensor],
    label_NHW: Tensor,
    criterion: nn.Module,
    step: int,
    stride: int,
    auxiliary_weight: float,
) -> Tensor:
    """Return the weighted sum of the losses of all heads.

    Args:
        logits: of each head, (N, K, h, w) at any stride; the main one first.
        label_NHW: class ids.
        criterion: takes logits and labels of equal size.
        step: sets the phase at which labels are sampled.
        stride: at which the main head is compared.
        auxiliary_weight: factor of the other heads.
    """
    strides = [stride] + [max(stride, AUXILIARY_STRIDE)] * (len(logits) - 1)
    pairs = zip(logits, strides, strict=True)
    losses = [compare(x_NKhw, label_NHW, criterion, step, each) for x_NKhw, each in pairs]
    return (
        losses[0] + auxiliary_weight * torch.stack([torch.zeros_like(losses[0]), *losses[1:]]).sum()
    )


def compare(
    logits_NKhw: Tensor, label_NHW: Tensor, criterion: nn.Module, step: int, stride: int
) -> Tensor:
    """Return the loss of one head against labels at a stride, of the phase of a step."""
    row, column = divmod(step % stride**2, stride)
    label_Nhw = label_NHW[:, row::stride, column::stride]
    loss: Tensor = criterion(resized(logits_NKhw.float(), label_Nhw.shape[-2:]), label_Nhw)
    return loss
