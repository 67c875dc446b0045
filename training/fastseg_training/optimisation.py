"""How a training optimises: its recipe, how long it goes on, learning rate, optimizer and average.

The data and the loss are elsewhere.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from fastseg.checkpoint import tensors_of

WARMUP_SHARE = 0.1  # of a training: short ones would be over before warmup_steps are
POLY_POWER = 0.9  # DeepLab, Chen et al. 2017, arXiv:1606.00915

# Name -> factor of the learning rate at a progress between 0 and 1.
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "poly": lambda progress: (1 - progress) ** POLY_POWER,
    "constant": lambda progress: 1.0,
}
# Top-level parts whose weights may come pretrained: FastSegNet's encoder, and what others call it.
BACKBONE_PARTS = ("stem", "stage_8", "stage_16", "stage_32", "backbone", "encoder")


@dataclass(frozen=True)
class Recipe:
    """How to optimise. The defaults are those of the CamVid headline.

    Attributes:
        decay: of the learning rate: "cosine", "poly" or "constant".
        warmup_steps: steps until the learning rate is at its peak.
        weight_decay: AdamW's, on weights with two dimensions or more.
        backbone_factor: factor of the learning rate for the encoder; below 1 if it is pretrained.
        rates: factors of the learning rate for modules by name, such as {"stem": 0.1}; the longest
            name that fits goes first, and before backbone_factor.
        clip_norm: gradients longer than this are shortened to it.
        ema_decay: of the weights that are evaluated and saved.
        auxiliary_weight: factor of the losses of the auxiliary heads.
        loss_stride: 1, 2, 4 or 8: the main head is compared with labels at 1/loss_stride.
        precision: "auto", "fp32", "bf16" or "fp16".
        evaluations: how often the validation split is looked at, evenly spread.
        adjust_logits: in the end, shift each class's logits by what scores the highest mIoU on
            training pictures; see logit_shift.py.
        start_share: in the end, before that, mix so much of the weights that --init named into the
            averaged ones: 0.5 is half-way (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903).
        mean_with: checkpoints of finished trainings of the same recipe and start by other seeds: in
            the end, after that, take the mean of their weights and these (model soups, Wortsman et
            al. 2022, arXiv:2203.05482).
    """

    decay: str = "cosine"
    warmup_steps: int = 200
    weight_decay: float = 0.02
    backbone_factor: float = 1.0
    rates: dict[str, float] = field(default_factory=dict)
    clip_norm: float = 5.0
    ema_decay: float = 0.998
    auxiliary_weight: float = 0.4
    loss_stride: int = 2
    precision: str = "auto"
    evaluations: int = 10
    adjust_logits: bool = False
    start_share: float = 0.0
    mean_with: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.decay not in DECAYS:
            raise ValueError(f"decay is {self.decay!r}; choose one of {sorted(DECAYS)}")
        if self.loss_stride not in (1, 2, 4, 8):
            raise ValueError(f"loss_stride is {self.loss_stride}; choose 1, 2, 4 or 8")
        for name in ("start_share", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected 0 or more and less than 1"
                )
        for name in ("clip_norm", "backbone_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected more than 0")
        for name in ("warmup_steps", "weight_decay", "auxiliary_weight", "evaluations"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        for name, factor in self.rates.items():
            if factor <= 0:
                raise ValueError(
                    f"the rate of {name} is {factor}; expected more than 0 (freeze holds a part, "
                    "with its batch-norm statistics)"
                )


@dataclass(frozen=True)
class Budget:
    """When a training ends: after a number of steps or, if seconds are given, of seconds."""

    steps: int
    seconds: float | None = None

    def progress(self, step: int, elapsed_s: float) -> float:
        """Return how much of the budget is used, 0 to 1."""
        if self.seconds is None:
            return min(step / max(self.steps, 1), 1.0)
        return min(elapsed_s / self.seconds, 1.0)


def learning_rate_factor(decay: str, progress: float, step: int, warmup_steps: int) -> float:
    """Return the factor of the peak learning rate: a linear warm-up, times one of DECAYS.

    The warm-up lasts warmup_steps, but never beyond WARMUP_SHARE of a short training.
    """
    warmup = max((step + 1) / warmup_steps, progress / WARMUP_SHARE) if warmup_steps else 1.0
    return min(warmup, 1.0) * DECAYS[decay](progress)


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Take parts out of the training, and return them: they have to stay in eval mode.

    Args:
        model: whose parameters it marks.
        names: of modules, or "backbone" for those of BACKBONE_PARTS that there are.

    Raises:
        ValueError: there is no such part, or nothing else to train.
    """
    frozen = [part for name in names for part in _parts(model, name)]
    for part in frozen:
        part.requires_grad_(False)
    if frozen and not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freeze is {','.join(names)}: nothing is left to train")
    return frozen


def _parts(model: nn.Module, name: str) -> list[nn.Module]:
    parts = dict(model.named_children())
    if name == "backbone" and (found := [parts[n] for n in BACKBONE_PARTS if n in parts]):
        return found
    try:
        return [model.get_submodule(name or "?")]
    except AttributeError:
        raise ValueError(
            f"the network has no part {name!r}; there are {', '.join(parts)}, and modules in these"
        ) from None


def make_optimizer(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    backbone_factor: float,
    rates: Mapping[str, float] | None = None,
) -> AdamW:
    """Return AdamW with a group for each "factor" of the peak learning rate and each decay.

    Norms and biases do not decay: decay shrinks a direction, and these have none. The factor is
    that of `rates`, else that of the backbone for BACKBONE_PARTS, else 1.

    Raises:
        ValueError: rates name a module that is not there.
    """
    for name in rates or {}:
        _parts(model, name)
    own = {f"{name}.": factor for name, factor in (rates or {}).items()}
    backbone = {f"{part}.": backbone_factor for part in BACKBONE_PARTS}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factors = [
                known[max(fits, key=len)]
                for known in (own, backbone)
                if (fits := [prefix for prefix in known if name.startswith(prefix)])
            ]
            factor = factors[0] if factors else 1.0
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factor, decay), []).append(parameter)
    return AdamW(
        [
            {"params": parameters, "factor": factor, "weight_decay": decay, "lr": learning_rate}
            for (factor, decay), parameters in groups.items()
        ],
        fused=True,
    )


class ModelEMA:
    """Keeps a second network whose weights and running statistics follow the first ones slowly.

    The decay ramps up as (1 + step) / (10 + step), so the random start is soon forgotten
    (tf.train.ExponentialMovingAverage does the same).

    Args:
        model: the network in training; it is copied.
        decay: share of the old average that a step keeps, after the ramp.

    Raises:
        CheckpointError: not all that it holds are tensors, so that it could not be saved either.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.model.eval()  # one's own may return nothing
        self.decay = decay
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averages, self._sources = ([pair[side] for pair in floating] for side in (0, 1))
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after a step, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._sources, 1 - decay)
        for average, source in self._counters:
            average.copy_(source)


def mixed(model: nn.Module, other: Mapping[str, Tensor], share: float) -> nn.Module:
    """Return a copy of a network with so much of other weights in its own, statistics too."""
    copied = copy.deepcopy(model)
    for name, tensor in copied.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(other[name].to(tensor.device), share)
    return copied


def _tensors(model: nn.Module) -> list[Tensor]:
    return list(tensors_of(model).values())
