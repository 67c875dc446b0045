"""SegmentationTrainer: the training loop.

train() is the loop; the methods below it are its steps, in the order in which it takes them.

Shape letters: N batch, H and W pixels, K classes.
"""

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from fastseg_runtime.arrays.command import Heard, NotedSignals, noting_signals
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, numbered_classes
from torch import Tensor, nn

from fastseg import FastSegNet
from fastseg.outputs import Reading
from fastseg_training import distributed
from fastseg_training.batches.loader import Batch, StepLoader, check_pictures, source
from fastseg_training.batches.user_loader import (
    BatchCheck,
    LoaderError,
    batches_from,
    check_loader,
    count_batches,
)
from fastseg_training.callbacks import Callback, own_callbacks
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.distill import DistillationLoss
from fastseg_training.evaluate import (
    Evaluation,
    EvaluationBatches,
    Observer,
    evaluate,
    measure_latency_ms,
    spec_of,
)
from fastseg_training.learner import Learner
from fastseg_training.optimisation import Budget, Recipe
from fastseg_training.pictures import draw_curves, draw_predictions
from fastseg_training.progress import TrainingProgress
from fastseg_training.run_folder import RunError, RunFolder, TrainingStoppedError, held
from fastseg_training.run_page import WorstPictures, write_page
from fastseg_training.selection import Best, Selection
from fastseg_training.supervision import pad_batch

LOG_EVERY_STEPS = 50  # as many as SMOOTHING averages over
SAVE_EVERY_S = 60.0  # what a crash may cost
# Of the time in a training by the clock: a validation split may take longer than the minutes given.
EVALUATION_SHARE = 0.1
AFTER_THIS_STEP = "stopping after this step; Ctrl-C again ends at once"
SMOOTHING = 0.02  # of the loss that is shown: about 50 batches, each of which is noise
COUNTERS = (
    "step", "position", "epoch_steps", "elapsed_s", "evaluation_s", "evaluations", "loss"
)  # fmt: skip


class SegmentationTrainer:
    """Trains a network and leaves the averaged weights in it.

    `evaluation` is the last one, None before the first and without a val_loader. `step` counts
    steps, `position` batches of the loader: they part where a run goes on with other batches.

    Args:
        model: image in, logits out; FastSegNet or any other.
        train_loader: an iterable of batches (float image_N3HW, int label_NHW), gone through again
            and again. 255 in labels means "ignore".
        val_loader: likewise, for mIoU; None for none.
        num_classes: K.
        learning_rate: the peak.
        num_epochs: how often to go through train_loader.
        minutes: instead of num_epochs: stop by the clock, with the learning rate following it.
        recipe: everything else about optimisation.
        criterion: the loss, a module or a function of logits (N, K, h, w) and labels (N, h, w)
            that returns a scalar and leaves out 255; plain cross entropy by default.
        class_weights: (K,) of that loss, which FastSegNet is to be rid of in the end.
        distillation: how to imitate the soft labels that train_loader gives, if any.
        taught: indices of the classes that soft labels tell about; all by default.
        adjust: what makes of the averaged network, at the end, the one that is kept.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        run: where to log and save; nothing is written by default. Its `info` has to say what
            train_loader normalises with: pictures that it cannot have made are refused.
        output_name: of several outputs of a network of one's own, the path of its logits.
        threshold: of the probability above which one logit means the second class.
        selection: what to choose on val_loader, if anything.
        checkpoint_every: keep the averaged weights each time so many epochs are over; 0 for never.
        callbacks: who else hears of the training; TensorBoard does, where it is installed.
        freeze: names of modules that are not trained and whose batch-norm statistics stay, or
            "backbone".

    Raises:
        ReadingError: a threshold that is no probability.
        ConfigError: no such device or precision here, a length that no training has, or
            class_weights that are not one for each class; in train(), a criterion that gives no
            scalar.
        LoaderError: a loader has no batches, or can be gone through only once.
        ValueError: freeze or the recipe's rates name a module that is not there.
        RunError: weights are to be kept, and there is no run folder.
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Iterable[Any] | StepLoader,
        val_loader: Iterable[Any] | None,
        num_classes: int,
        learning_rate: float = TrainConfig.lr,
        num_epochs: float = TrainConfig.epochs,
        *,
        minutes: float | None = None,
        recipe: Recipe | None = None,
        criterion: Callable[[Tensor, Tensor], Any] | None = None,
        class_weights: Tensor | None = None,
        distillation: DistillationLoss | None = None,
        taught: Sequence[int] = (),
        adjust: Callable[[nn.Module], nn.Module] | None = None,
        device: str = "auto",
        run: RunFolder | None = None,
        output_name: str = "",
        threshold: float = Reading.threshold,
        selection: Selection | None = None,
        checkpoint_every: float = 0,
        callbacks: Sequence[Callback] = (),
        freeze: Sequence[str] = (),
    ) -> None:
        for name, value in (("num_epochs", num_epochs), ("minutes", minutes)):
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}; expected more than 0 and less than inf")
        self.reading = Reading(num_classes, output_name, threshold)
        self.recipe, self.run, self.num_classes = recipe or Recipe(), run, num_classes
        self.train_loader, self.val_loader = train_loader, val_loader
        self.epoch_steps = count_batches(train_loader, "train_loader")
        if val_loader is not None:
            check_loader(val_loader, "val_loader")
        steps = max(1, round(num_epochs * self.epoch_steps))
        self.budget = Budget(steps, None if minutes is None else minutes * 60)
        self.learner = Learner(
            model,
            learning_rate,
            self.recipe,
            self.reading,
            device=device,
            freeze=freeze,
            criterion=criterion,
            class_weights=class_weights,
            distillation=distillation,
            taught=taught,
        )
        self.model, self.device = self.learner.model, self.learner.device
        self.adjust = adjust
        self.adjusted: nn.Module | None = None
        channels = 3 if isinstance(model, FastSegNet) else None
        self._check_batch = BatchCheck("train_loader", num_classes, channels, same_size=True)
        self.selection, self.best = selection or Selection(), Best()
        self.checkpoint_every = checkpoint_every
        self.callbacks = [*own_callbacks(run), *callbacks]
        self._check_what_is_kept()
        self.step = self.position = self.evaluations = 0
        self.loss = math.nan
        self.elapsed_s = self.evaluation_s = 0.0
        self.evaluation: Evaluation | None = None
        self._looked_at_pictures = False
        self._noted = NotedSignals()

    def train(self) -> Evaluation | None:
        """Train to the end of the budget, evaluate, and load the averaged weights into the model.

        Returns:
            The last evaluation, None without a val_loader.

        Raises:
            NonFiniteLossError: nothing of that step was applied or saved.
            RunError: another training writes into the run folder.
            TrainingStoppedError: Ctrl-C.
        """
        self.adjusted = None
        try:
            with (
                self._held(),
                noting_signals(AFTER_THIS_STEP if self._leads else "") as noted,
                TrainingProgress(visible=self._leads) as bar,
                self.learner.start(),
                self._callbacks_told(),
            ):
                self._noted = noted
                self._take_steps(bar)
                return self._finish()
        except Heard as heard:  # between two steps: what was learnt is whole
            self._save_state()
            message = f"stopped at step {self.step}"
            raise TrainingStoppedError(message, heard.exit_code) from None

    def _take_steps(self, bar: TrainingProgress) -> None:
        saved = time.monotonic()
        started = saved - self.elapsed_s
        batches = self._batches()
        while True:
            with self._waiting():
                batch = next(batches)
            own = (time.monotonic() - started, self._noted[0] if self._noted else 0)
            self.elapsed_s, exit_code = distributed.largest(own, self.device)
            if exit_code:
                raise Heard(int(exit_code) - 128)
            progress = self.budget.progress(self.position, self.elapsed_s)
            if self._evaluation_is_due(progress):
                bar.report(self.step, self.loss, self._evaluate_and_save(progress))
            if progress >= 1 or self._is_out_of_patience:
                break
            self._note_loss(self.learner.learn(batch, self.step, progress))
            self.step, self.position = self.step + 1, self.position + 1
            bar.show(progress, self.loss, len(batch.image_N3HW) * distributed.world_size())
            if self.step % LOG_EVERY_STEPS == 0:
                self._log({"loss": self.loss, "learning_rate": self.learner.learning_rate})
            self._keep_checkpoint()
            if time.monotonic() - saved > SAVE_EVERY_S:
                saved = time.monotonic()
                self._save_state()

    @contextlib.contextmanager
    def _callbacks_told(self) -> Iterator[None]:
        told = self.callbacks if self._leads else []
        for callback in told:
            callback.on_start(self.run)
        try:
            yield
        finally:
            for callback in told:
                callback.on_end(self.run)

    def _waiting(self) -> contextlib.AbstractContextManager[None]:
        """A signal ends what is done here at once; several processes stop at the same step."""
        return self._noted.raised() if distributed.world_size() == 1 else contextlib.nullcontext()

    def resume(self) -> None:
        """Go on where the run folder's resume.pt was written; at the start if there is none yet.

        Raises:
            RunError: there is no run folder, or its resume.pt is damaged or of another network.
        """
        if self.run is None:
            raise RunError("resume() needs a trainer with a run folder")
        with self._held():
            state = self.run.load_state()
            if state is not None:
                self._restore(state, self.run)
            if self._leads:
                self.run.forget_after(self.step)

    def _held(self) -> contextlib.AbstractContextManager[None]:
        return held(self.run.path) if self.run and self._leads else contextlib.nullcontext()

    def _check_what_is_kept(self) -> None:
        if self.run is None and (self.selection.keep_best or self.checkpoint_every):
            raise RunError("keep_best and checkpoint_every need a run folder to keep weights in")
        if self.run is not None and len(self.run.info.classes) != self.num_classes:
            raise RunError(
                f"the run's info names {len(self.run.info.classes)} classes, the network tells "
                f"{self.num_classes} apart; give both the same"
            )
        if self.val_loader is None and self.selection.needs_validation:
            raise LoaderError(
                "keep_best and patience choose on the validation split, and there is none"
            )

    @property
    def _is_out_of_patience(self) -> bool:
        return 0 < self.selection.patience <= self.best.since

    @property
    def _leads(self) -> bool:
        return distributed.rank() == 0

    def _batches(self) -> Iterator[Batch]:
        for number, batch in enumerate(
            batches_from(self.train_loader, self.position), self.position
        ):
            if not isinstance(self.train_loader, StepLoader):
                batch = self._check_batch(batch, number)
            if self.run is not None and not self._looked_at_pictures:
                check_pictures(batch[0], self.run.info.input_normalization())
                self._looked_at_pictures = True
            files, soft_NKhw = batch[2:4] if isinstance(batch, Batch) else ((), None)
            image_N3HW, label_NHW = pad_batch(batch[0], batch[1], IGNORE_INDEX)
            if soft_NKhw is not None:
                soft_NKhw = soft_NKhw.expand(len(image_N3HW), -1, -1, -1)  # of a doubled image
            yield Batch(image_N3HW, label_NHW, files, soft_NKhw)

    def _note_loss(self, value: float) -> None:
        previous = value if math.isnan(self.loss) else self.loss
        self.loss = previous + SMOOTHING * (value - previous)

    def _evaluation_is_due(self, progress: float) -> bool:
        number = self._evaluations_until(progress)
        if progress >= 1 or not self.step or number <= self.evaluations:
            return False
        if self.budget.seconds is None or self.evaluation_s <= EVALUATION_SHARE * self.elapsed_s:
            return True
        self.evaluations = number
        return False

    def _evaluations_until(self, progress: float) -> int:
        return int(progress * self.recipe.evaluations)

    def _evaluate(self, observe: Observer | None) -> Evaluation | None:
        if self.val_loader is None:
            return None
        distributed.copy_from_first(self.learner.ema.model.state_dict().values())
        started = time.monotonic()
        mine: Iterator[Any] = iter(self.val_loader)
        mine = itertools.islice(mine, distributed.rank(), None, distributed.world_size())
        if not isinstance(self.val_loader, EvaluationBatches):
            check = dataclasses.replace(self._check_batch, name="val_loader", same_size=False)
            mine = (check(batch, number)[:2] for number, batch in enumerate(mine))
        evaluation = evaluate(
            self._result(),
            mine,
            self.num_classes,
            reading=self.reading,
            loss=self.learner.validation_loss,
            observe=observe,
            spec=spec_of(self.val_loader),
        )
        evaluation = evaluation.gathered(self.device)
        if not evaluation.images:
            raise LoaderError("val_loader gave no batch; its __iter__ has to start anew each time")
        (seconds,) = distributed.largest([time.monotonic() - started], self.device)
        self.evaluation_s += seconds
        return evaluation

    def _evaluate_and_save(
        self, progress: float, finished: bool = False, observe: Observer | None = None
    ) -> float:
        with self._waiting():
            self.evaluation = self._evaluate(observe)
            entry = {
                "loss": self.loss,
                "learning_rate": self.learner.learning_rate,
            } | self._latency()
        self.evaluations = self._evaluations_until(progress)
        miou = math.nan
        if self.evaluation is not None:
            miou = self.evaluation.miou
            classes = self.run.info.classes if self.run else numbered_classes(self.num_classes)
            entry |= self.evaluation.metrics(classes)
        is_best = self.best.note(miou, self.step)
        self._log(entry)
        if self.run is not None and self._leads:
            state = {"finished": finished}
            self._save_model(self.run.model_path, state)
            if is_best and self.selection.keep_best:
                self._save_model(self.run.best_path, state | self.best.described())
            self._save_state()
            draw_curves(self.run.metrics(), self.run.path / "curves.png")
        return miou

    def _keep_checkpoint(self) -> None:
        every = max(1, round(self.checkpoint_every * self.epoch_steps))
        if self.run is not None and self.checkpoint_every and self.position % every == 0:
            path = self.run.checkpoint_path(self.position / self.epoch_steps)
            self._save_model(path, {"finished": False})

    def _save_model(self, path: Path, training: dict[str, Any]) -> None:
        if self.run is not None and self._leads:
            progress = {"step": self.step, "elapsed_s": self.elapsed_s}
            self.run.save_model(self._result(), progress | training, path)

    def _latency(self) -> dict[str, float]:
        if self.run is None or not self._leads:
            return {}
        model = self.learner.ema.model
        return {"latency_ms": measure_latency_ms(model, self.run.info, self.reading)}

    def _finish(self) -> Evaluation | None:
        worst = WorstPictures(self.num_classes)
        if self.adjust is not None:
            # Else each process adjusts a network with batch-norm statistics of its own.
            distributed.copy_from_first(self.learner.ema.model.state_dict().values())
            with self._waiting():
                self.adjusted = self.adjust(self._result())
        self._evaluate_and_save(progress=1, finished=True, observe=worst)
        if self.run is not None and self._leads:
            with self._waiting():
                self._draw(self.run, worst)
        # Last: Ctrl-C before it saves the weights that are trained, and not these.
        self.model.load_state_dict(self._result().state_dict())
        return self.evaluation

    def _draw(self, run: RunFolder, worst: WorstPictures) -> None:
        note = "averaged, as they were at the end; nothing was chosen on validation pictures"
        if self._is_out_of_patience:
            note = "averaged, as they were when validation got no better: its scores flatter"
        write_page(run, self.evaluation, worst, self._name_of_picture, note)
        if self.val_loader is not None:
            path = run.path / "predictions.png"
            draw_predictions(self._result(), self.val_loader, run.info, path, self.reading)

    def _name_of_picture(self, number: int) -> str:
        number *= distributed.world_size()
        if isinstance(self.val_loader, EvaluationBatches):
            return source(self.val_loader.samples[number])
        return f"picture {number} of val_loader"

    def _result(self) -> nn.Module:
        if self.adjusted is not None:
            return self.adjusted
        return self.learner.result()

    def _log(self, entry: dict[str, Any]) -> None:
        epoch = self.position / self.epoch_steps
        line = {"step": self.step, "epoch": epoch, "elapsed_s": self.elapsed_s} | entry
        if self._leads:
            if self.run is not None:
                self.run.log(line)
            for callback in self.callbacks:
                callback.on_log(line)

    def _save_state(self) -> None:
        if self.run is not None and self._leads:
            parts = {name: part.state_dict() for name, part in self.learner.stateful().items()}
            counters = {name: getattr(self, name) for name in COUNTERS}
            counters["best"] = dataclasses.asdict(self.best)
            rng = {"rng": torch.get_rng_state()}
            if self.device.type == "cuda":  # dropout draws there
                rng["cuda_rng"] = torch.cuda.get_rng_state(self.device)
            self.run.save_state({**parts, **counters, **rng})

    def _restore(self, state: dict[str, Any], run: RunFolder) -> None:
        try:
            for name, part in self.learner.stateful().items():
                part.load_state_dict(state[name])
            epoch_steps = self.epoch_steps
            for name in COUNTERS:
                setattr(self, name, state[name])
            self.best = Best(**state["best"])
            if self.selection.keep_best and not run.best_path.exists():
                self.best = Best()  # of the evaluations whose weights are kept
            self._go_on_with(epoch_steps)
            torch.set_rng_state(state["rng"])
            if self.device.type == "cuda" and "cuda_rng" in state:
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise RunError(
                f"{run.resume_path} is of another network or program; start anew with --force"
            ) from error

    def _go_on_with(self, epoch_steps: int) -> None:
        """Stay where the run was, in batches of this trainer; evaluate as often as it asks for."""
        if epoch_steps != self.epoch_steps:
            self.position = round(self.position / self.epoch_steps * epoch_steps)
            self.epoch_steps = epoch_steps
        progress = self.budget.progress(self.position, self.elapsed_s)
        self.evaluations = min(self.evaluations, self._evaluations_until(progress))
