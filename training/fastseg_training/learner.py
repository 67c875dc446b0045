"""Learner: a network, what it is held to, and the step that moves its weights.

Shape letters: N batch, H and W pixels, h and w of soft labels, K classes.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastseg import CheckpointError, FastSegNet
from fastseg.outputs import Reading
from fastseg_training import distributed, optimisation
from fastseg_training.batches.loader import Batch
from fastseg_training.config import ConfigError
from fastseg_training.distill import DistillationLoss, soft_label_loss
from fastseg_training.logit_shift import without_class_weights
from fastseg_training.losses import LOSSES, CrossEntropyLoss, WeightedSum
from fastseg_training.optimisation import ModelEMA, Recipe, learning_rate_factor, make_optimizer
from fastseg_training.precision import choose_device, choose_precision, fast_depthwise
from fastseg_training.supervision import AllHeads, OwnLoss, compare, supervise

OURS: tuple[type[nn.Module], ...] = (
    WeightedSum,
    *LOSSES.values(),
)  # losses that keep to what OwnLoss holds others to


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite; the message names the step and the batch's files."""


class Learner:
    """A network that learns, a batch at a time, and the average of its weights.

    Args:
        model: the network; it is moved to the device.
        learning_rate: the peak.
        recipe: everything else about optimisation.
        reading: which of the network's outputs is compared with labels.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        freeze: names of modules that are not trained, or "backbone".
        criterion, class_weights, distillation, taught: as SegmentationTrainer has them.

    Raises:
        ConfigError: no such device or precision here, or class_weights that cannot be undone.
        ValueError: freeze or the recipe's rates name a module that is not there.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        recipe: Recipe,
        reading: Reading,
        *,
        device: str,
        freeze: Sequence[str],
        criterion: Callable[[Tensor, Tensor], Any] | None,
        class_weights: Tensor | None,
        distillation: DistillationLoss | None,
        taught: Sequence[int],
    ) -> None:
        _check_undoable(class_weights, model, reading)
        self.peak, self.recipe = learning_rate, recipe
        self.device = choose_device(distributed.local_device(device))
        self.precision = choose_precision(recipe.precision, self.device)
        self.frozen = optimisation.freeze(model, freeze)
        self.model = self._to_device(model)
        self.network: nn.Module = AllHeads(self.model, reading)
        if distributed.world_size() > 1:
            # A network of one's own may have parts that its output does not use.
            unused = not isinstance(model, FastSegNet)
            self.network = DistributedDataParallel(self.network, find_unused_parameters=unused)
        self.distillation = distillation or DistillationLoss()
        self.taught = list(taught)
        self.criterion: nn.Module = CrossEntropyLoss()
        if criterion is not None:
            self.criterion = criterion if isinstance(criterion, OURS) else OwnLoss(criterion)
        self.criterion.to(self.device)
        self.class_weights = None if class_weights is None else class_weights.to(self.device)
        self.scaler = torch.amp.GradScaler(enabled=self.precision == torch.float16)
        self.optimizer = make_optimizer(
            model, learning_rate, recipe.weight_decay, recipe.backbone_factor, recipe.rates
        )
        self.ema = ModelEMA(self.model, recipe.ema_decay)

    def start(self) -> AbstractContextManager[None]:
        """Put the network into training mode; steps are fast within what is returned."""
        self.model.train()
        for part in self.frozen:
            part.eval()
        return fast_depthwise(self.model, self.precision, self.device)

    def learn(self, batch: Batch, step: int, progress: float) -> float:
        """Take a step at the learning rate of that progress, and return the loss before it.

        Raises:
            NonFiniteLossError: nothing of the step was applied.
            CheckpointError: the network cannot be trained as it is written.
        """
        factor = learning_rate_factor(self.recipe.decay, progress, step, self.recipe.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak * factor * group["factor"]
        batch = self._moved(batch)
        loss = self._loss(batch, step)
        value = self._checked(loss, self._backward(loss), batch, step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update(step)
        return value

    @property
    def learning_rate(self) -> float:
        """The largest of the last step."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def result(self) -> nn.Module:
        """Return the averaged network, rid of class weights that were to be undone."""
        if self.class_weights is None:
            return self.ema.model
        return without_class_weights(self.ema.model, self.class_weights)

    def validation_loss(self, logits_NKhw: Tensor, label_NHW: Tensor) -> Tensor:
        """Return the loss of the main head as training counts it, always at the same pixels."""
        return compare(logits_NKhw, label_NHW, self.criterion, 0, self.recipe.loss_stride)

    def stateful(self) -> dict[str, Any]:
        """Return what a training goes on from, each with state_dict and load_state_dict."""
        return {
            "model": self.model,
            "ema": self.ema.model,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
        }

    def _to_device(self, model: nn.Module) -> nn.Module:
        model.to(self.device)
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            if tensor.ndim == 4:  # torch's to() would try weights of 3-D convolutions too
                tensor.data = tensor.data.to(memory_format=torch.channels_last)
        return model

    def _moved(self, batch: Batch) -> Batch:
        soft_NKhw = batch.soft_NKhw
        return Batch(
            batch.image_N3HW.to(self.device, memory_format=torch.channels_last, non_blocking=True),
            batch.label_NHW.to(self.device, torch.long, non_blocking=True),
            batch.files,
            None if soft_NKhw is None else soft_NKhw.to(self.device, non_blocking=True),
        )

    def _loss(self, batch: Batch, step: int) -> Tensor:
        with torch.autocast(self.device.type, self.precision, self.precision is not None):
            logits = self.network(batch.image_N3HW)
        stride, weight = self.recipe.loss_stride, self.recipe.auxiliary_weight
        loss = supervise(logits, batch.label_NHW, self.criterion, step, stride, weight)
        if batch.soft_NKhw is not None:
            loss = loss + soft_label_loss(
                self.distillation, logits[0], batch.soft_NKhw, batch.label_NHW, self.taught
            )
        return loss

    def _backward(self, loss: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        try:
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's
        except RuntimeError as error:
            if "inplace" not in str(error):
                raise
            raise CheckpointError(
                "the network changes a map in place that its gradients need, such as by x += y or "
                f"an activation with inplace=True: write x = x + y; torch says: {error}"
            ) from error
        self.scaler.unscale_(self.optimizer)
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)

    def _checked(self, loss: Tensor, gradient_norm: Tensor, batch: Batch, step: int) -> float:
        value, norm = torch.stack([distributed.mean(loss), gradient_norm]).tolist()
        # Infinite gradients are how fp16's scaler finds its factor: it skips that step.
        if not math.isfinite(value) or not (math.isfinite(norm) or self.scaler.is_enabled()):
            files = "\n".join(f"  {file}" for file in batch.files) or "  (the loader names none)"
            raise NonFiniteLossError(
                f"the loss is {value}, its gradient's length {norm} at step {step}; the batch "
                f"was made of\n{files}\nLook at these, or lower the learning rate; the last "
                "checkpoint is good"
            )
        return float(value)


def _check_undoable(weight_K: Tensor | None, model: nn.Module, reading: Reading) -> None:
    """Raise ConfigError now where without_class_weights would fail after the training."""
    if weight_K is None:
        return
    if not isinstance(model, FastSegNet):
        raise ConfigError(
            f"class_weights are taken out of a FastSegNet, not of {type(model).__name__}, whose "
            "classifier is not known; leave them out"
        )
    if weight_K.shape != (reading.num_classes,):
        raise ConfigError(
            f"class_weights has shape {tuple(weight_K.shape)}; expected ({reading.num_classes},), "
            "a weight for each class"
        )
