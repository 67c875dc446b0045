"""Losses for segmentation: alone, or added up by a formula such as "ce+0.5*dice".

All take logits (N, K, H, W) and labels (N, H, W), leave out ignored pixels, and give 0 (not NaN)
for a batch in which every pixel is ignored.

Weights w of classes help rare ones to be learnt, but the network says them too often then:
softmax(z) tends to w * p instead of p. z - log w tends to p (Menon et al. 2021, "post-hoc logit
adjustment", arXiv:2007.07314): logit_shift.py takes them out again.
"""

import inspect
import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from fastseg_runtime.bundle.manifest import IGNORE_INDEX
from torch import Tensor, nn

UNDONE = "enet-undone"
CLASS_WEIGHTS = ("enet", UNDONE, "none")
BORDER_PIXELS = 3  # near a border, of the labels as the loss is given them
TINY = 1e-6  # below any sum of weights of a single labelled pixel


@dataclass(frozen=True)
class LossOptions:
    """What to minimise.

    Attributes:
        formula: a sum of LOSSES, e.g. "ce" or "ohem+0.5*dice".
        class_weights: "enet" or "none", for losses that take them: ce, focal and border;
            "enet-undone" takes them out of the averaged network again: better after long trainings,
            worse after short ones. It is for "ce" alone: beside a term that takes none, as in
            "ce+lovasz", it takes out more than was put in; choose "none" there. Or
            a table of names and weights, such as {Pole = 5.0}; classes that it leaves out have 1.
            Or a list of weights, one for each class.
        enet_constant: see enet_weights.
        ohem_thresh: see OHEMLoss.
        ohem_share: share of the batch's pixels that OHEM keeps at the least.
    """

    formula: str = "ce"
    class_weights: str | dict[str, float] | list[float] = "enet"
    enet_constant: float = 1.10
    ohem_thresh: float = 0.7
    ohem_share: float = 1 / 16

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        losses = [LOSSES[name] for _, name in parse_formula(self.formula)]
        if not self.enet_constant > 1:  # a weight is 1 / log(constant + share)
            raise ValueError(f"enet_constant is {self.enet_constant}; expected more than 1")
        if isinstance(self.class_weights, str):
            if self.class_weights not in CLASS_WEIGHTS:
                raise ValueError(
                    f"class_weights is {self.class_weights!r}; choose one of "
                    f"{', '.join(CLASS_WEIGHTS)}, or give a table of names and weights or a list"
                )
        else:
            known = self.class_weights
            for weight in known.values() if isinstance(known, dict) else known:
                if weight < 0:
                    raise ValueError(f"a class weight is {weight:g}; expected 0 or more")
        is_default = self.class_weights in ("enet", "none")
        if not is_default and not any("weight_K" in _arguments(loss) for loss in losses):
            raise ValueError(
                f"class_weights are given, and no term of the loss {self.formula!r} takes any; "
                "leave them out, or add ce, focal or border to formula"
            )


class CrossEntropyLoss(nn.Module):
    """Mean cross entropy, each pixel weighted by its class."""

    weight_K: Tensor | None

    def __init__(self, weight_K: Tensor | None = None, ignore_index: int = IGNORE_INDEX) -> None:
        super().__init__()
        self.register_buffer("weight_K", weight_K, persistent=False)
        self.ignore_index = ignore_index

    def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        """Return the scalar that F.cross_entropy gives, but 0 where nothing is labelled."""
        total = F.cross_entropy(
            logits_NKHW, label_NHW, self.weight_K, ignore_index=self.ignore_index, reduction="sum"
        )
        judged_NHW = label_NHW != self.ignore_index
        if self.weight_K is None:
            return total / judged_NHW.sum().clamp(min=1)
        weight_NHW = self.weight_K[label_NHW * judged_NHW] * judged_NHW
        return total / weight_NHW.sum().clamp(min=TINY)


class FocalLoss(nn.Module):
    """Cross entropy times (1 - p)^gamma, mean over pixels (Lin et al. 2017, arXiv:1708.02002)."""

    weight_K: Tensor | None

    def __init__(
        self, gamma: float = 2.0, weight_K: Tensor | None = None, ignore_index: int = IGNORE_INDEX
    ) -> None:
        super().__init__()
        self.register_buffer("weight_K", weight_K, persistent=False)
        self.gamma, self.ignore_index = gamma, ignore_index

    def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        """Return a scalar."""
        entropy_NHW = pixel_cross_entropy(logits_NKHW, label_NHW, self.ignore_index)
        loss_NHW = (1 - torch.exp(-entropy_NHW)) ** self.gamma * entropy_NHW
        judged_NHW = label_NHW != self.ignore_index
        if self.weight_K is not None:
            loss_NHW = loss_NHW * self.weight_K[label_NHW * judged_NHW]
        return loss_NHW.sum() / judged_NHW.sum().clamp(min=1)


class DiceLoss(nn.Module):
    """1 - mean soft Dice coefficient of the classes that occur (Milletari 2016, 1606.04797)."""

    def __init__(self, smooth: float = 1.0, ignore_index: int = IGNORE_INDEX) -> None:
        super().__init__()
        self.smooth, self.ignore_index = smooth, ignore_index

    def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        """Return a scalar between 0 and 1."""
        classes = logits_NKHW.shape[1]
        judged_NHW = label_NHW != self.ignore_index
        truth_NHWK = F.one_hot(label_NHW * judged_NHW, classes) * judged_NHW[..., None]
        chance_NHWK = logits_NKHW.softmax(1).movedim(1, -1) * judged_NHW[..., None]
        pixels = (0, 1, 2)
        both_K = (chance_NHWK * truth_NHWK).sum(pixels)
        sizes_K = chance_NHWK.sum(pixels) + truth_NHWK.sum(pixels)
        dice_K = (2 * both_K + self.smooth) / (sizes_K + self.smooth)
        present_K = truth_NHWK.sum(pixels) > 0
        return ((1 - dice_K) * present_K).sum() / present_K.sum().clamp(min=1)


class OHEMLoss(nn.Module):
    """Cross entropy over the hard pixels alone (Shrivastava et al. 2016, arXiv:1604.03540).

    Args:
        thresh: pixels whose true class has a lower probability than this are hard.
        min_kept: if fewer are hard, the mean goes over this many hardest pixels of the batch.
        ignore_index: the label of pixels that do not count.
    """

    def __init__(
        self,
        thresh: float = LossOptions.ohem_thresh,
        min_kept: int = 100_000,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        if not 0 < thresh <= 1:
            raise ValueError(f"thresh is {thresh}; expected a probability above 0, up to 1")
        if min_kept < 1:
            raise ValueError(f"min_kept is {min_kept}; expected 1 pixel or more")
        self.hard_loss = -math.log(thresh)
        self.min_kept, self.ignore_index = min_kept, ignore_index

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the mean over hard pixels; logits (N, K, H, W) and labels (N, H, W)."""
        entropy_NHW = pixel_cross_entropy(pred, target, self.ignore_index)
        entropy = entropy_NHW[target != self.ignore_index]
        if not entropy.numel():
            return entropy_NHW.sum()
        kept = min(self.min_kept, entropy.numel())
        # The k-th hardest pixel sets the bar if it lies below that of `thresh`.
        bar = entropy.detach().kthvalue(entropy.numel() - kept + 1).values
        return entropy[entropy >= bar.clamp(max=self.hard_loss)].mean()


class BorderLoss(CrossEntropyLoss):
    """Cross entropy of the pixels within BORDER_PIXELS of a border between classes.

    The band of the trimap that boundary scores are taken in (Kohli et al. 2009); thin things lie
    in it whole.
    """

    def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        """Return a scalar."""
        side = 2 * BORDER_PIXELS + 1
        label_N1HW = label_NHW[:, None].float()
        high_N1HW = F.max_pool2d(label_N1HW, side, stride=1, padding=BORDER_PIXELS)
        low_N1HW = -F.max_pool2d(-label_N1HW, side, stride=1, padding=BORDER_PIXELS)
        near_NHW = (high_N1HW > low_N1HW)[:, 0]
        return super().forward(logits_NKHW, label_NHW.where(near_NHW, self.ignore_index))


class LovaszLoss(nn.Module):
    """The Lovász extension of 1 - IoU, mean over the classes that occur in the batch.

    What mIoU itself would lose, made continuous: a pixel counts for more, the fewer its class has
    (Lovász-softmax, Berman et al. 2018, arXiv:1705.08790, algorithm 1). Beside "ce", which learns
    faster at first.

    Args:
        ignore_index: the label of pixels that do not count.
        stride: of the rows and columns it looks at. All classes are sorted by their error, which
            with every pixel takes longer than a step of nano on a CPU; crops lie anywhere, so that
            every pixel is looked at in some epoch.
    """

    def __init__(self, ignore_index: int = IGNORE_INDEX, stride: int = 2) -> None:
        super().__init__()
        self.ignore_index, self.stride = ignore_index, stride

    def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        """Return a scalar between 0 and 1."""
        some = (..., slice(None, None, self.stride), slice(None, None, self.stride))
        logits_NKHW, label_NHW = logits_NKHW[some], label_NHW[some]
        judged_NHW = label_NHW != self.ignore_index
        chance_PK = logits_NKHW.movedim(1, -1)[judged_NHW].float().softmax(1)
        label_P = label_NHW[judged_NHW]
        if not label_P.numel():
            return logits_NKHW.sum() * 0
        present = label_P.bincount().nonzero()[:, 0].tolist()
        losses = [lovasz_extension(chance_PK[:, k], (label_P == k).float()) for k in present]
        return torch.stack(losses).mean()


def lovasz_extension(chance_P: Tensor, truth_P: Tensor) -> Tensor:
    """Return the Lovász extension of 1 - IoU of one class that occurs, a scalar."""
    error_P, order_P = (truth_P - chance_P).abs().sort(descending=True)
    truth_P = truth_P[order_P]
    left_P, other_P = truth_P.sum() - truth_P.cumsum(0), (1 - truth_P).cumsum(0)
    lost_P = 1 - left_P / (truth_P.sum() + other_P)  # 1 - IoU where the pixels up to here are wrong
    return error_P @ lost_P.diff(prepend=lost_P.new_zeros(1))


class WeightedSum(nn.Module):
    """Several losses, each times its factor."""

    def __init__(self, terms: list[tuple[float, nn.Module]]) -> None:
        super().__init__()
        self.factors = [factor for factor, _ in terms]
        self.losses = nn.ModuleList(loss for _, loss in terms)

    def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        """Return a scalar."""
        values = [loss(logits_NKHW, label_NHW) for loss in self.losses]
        return torch.stack([f * v for f, v in zip(self.factors, values, strict=True)]).sum()


def pixel_cross_entropy(logits_NKHW: Tensor, label_NHW: Tensor, ignore_index: int) -> Tensor:
    """Return the cross entropy of each pixel, (N, H, W); 0 where ignored."""
    return F.cross_entropy(logits_NKHW, label_NHW, ignore_index=ignore_index, reduction="none")


def enet_weights(pixels_K: Tensor, constant: float) -> Tensor:
    """Return class weights 1 / ln(c + p), (K,) float32 (ENet, Paszke et al. 2016, 1606.02147).

    Args:
        pixels_K: how many training pixels each class has.
        constant: c; the closer to 1, the more rare classes weigh: up to 50 at 1.02, 10 at 1.10.
    """
    return 1 / torch.log(constant + pixels_K / pixels_K.sum()).float()


def weights_of(options: LossOptions, pixels_K: Tensor, names: Sequence[str]) -> Tensor | None:
    """Return the weight of each class, (K,) float32, None for equal ones.

    Raises:
        ValueError: a weight is not that of one of the names, or all are 0.
    """
    if options.class_weights == "none":
        return None
    if isinstance(options.class_weights, str):
        return enet_weights(pixels_K, options.enet_constant)
    if isinstance(options.class_weights, list):
        if len(options.class_weights) != len(names):
            raise ValueError(
                f"class_weights has {len(options.class_weights)} weights; there are {len(names)} "
                f"classes: {', '.join(names)}"
            )
        weight_K = torch.tensor(options.class_weights, dtype=torch.float32)
    else:
        unknown = sorted(options.class_weights.keys() - set(names))
        if unknown:
            raise ValueError(
                f"class_weights has no class {unknown[0]!r}; there are {', '.join(names)}"
            )
        weight_K = torch.tensor([float(options.class_weights.get(name, 1)) for name in names])
    if not weight_K.any():
        raise ValueError("all class_weights are 0: nothing would be learnt")
    return weight_K


# A new loss is a class and a line here. Its arguments of these names it is given: weight_K, the
# class weights or None; thresh and min_kept, of ohem.
LOSSES: dict[str, type[nn.Module]] = {
    "ce": CrossEntropyLoss,
    "focal": FocalLoss,
    "dice": DiceLoss,
    "ohem": OHEMLoss,
    "border": BorderLoss,
    "lovasz": LovaszLoss,
}


def build_loss(
    options: LossOptions, pixels_K: Tensor, batch_pixels: int, names: Sequence[str] = ()
) -> nn.Module:
    """Build the loss of a formula for the training pixels of each class and of a batch.

    Raises:
        ValueError: a class weight is not that of one of the names.
    """
    given = {
        "weight_K": weights_of(options, pixels_K, names),
        "thresh": options.ohem_thresh,
        "min_kept": max(1, round(batch_pixels * options.ohem_share)),
    }
    terms: list[tuple[float, nn.Module]] = []
    for factor, name in parse_formula(options.formula):
        wanted = _arguments(LOSSES[name]) & given.keys()
        terms.append((factor, LOSSES[name](**{key: given[key] for key in wanted})))
    return WeightedSum(terms)


def _arguments(loss: type[nn.Module]) -> Set[str]:
    return inspect.signature(loss).parameters.keys()


def parse_formula(formula: str) -> list[tuple[float, str]]:
    """Return the factors and names of a sum of LOSSES.

    Raises:
        ValueError: a term is unknown or its factor is no number.
    """
    terms = []
    for term in formula.split("+"):
        factor, star, name = (part.strip() for part in term.rpartition("*"))
        try:
            value = float(factor) if star else 1.0
        except ValueError:
            value = math.nan
        if name not in LOSSES or not 0 < value < math.inf:
            raise ValueError(
                f"loss {formula!r}: cannot read {term!r}; write a sum of {sorted(LOSSES)} with "
                "factors above 0, e.g. ce+0.5*dice"
            )
        terms.append((value, name))
    return terms
