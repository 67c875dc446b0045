import dataclasses
import inspect
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from fastseg_runtime.arrays.metrics import mean_iou
from fastseg_training import Callback, SegmentationTrainer
from fastseg_training.batches.loader import Batch
from fastseg_training.batches.user_loader import LoaderError
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.evaluate import Evaluation
from fastseg_training.learner import NonFiniteLossError
from fastseg_training.losses import CrossEntropyLoss
from fastseg_training.optimisation import Recipe
from fastseg_training.run_folder import RunError, RunFolder, TrainingStoppedError
from fastseg_training.selection import Best, Selection
from fastseg_training.supervision import AllHeads
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastseg import FastSegNet, load_checkpoint
from fastseg.checkpoint import read_info

MakeTrainer = Callable[..., SegmentationTrainer]


def colour_pairs(count: int = 8) -> list[tuple[Tensor, Tensor]]:
    """Images whose class is the sign of the first channel."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    images = nn.functional.interpolate(coarse, scale_factor=16)
    return list(zip(images, (images[:, 0] > 0).long(), strict=True))


def test_the_old_way_of_calling_it_works_on_any_loader() -> None:
    model = FastSegNet(num_classes=2, variant="nano")
    train_loader = DataLoader(colour_pairs(), batch_size=4)  # type: ignore[arg-type]
    val_loader = DataLoader(colour_pairs(), batch_size=3)  # type: ignore[arg-type]
    trainer = SegmentationTrainer(
        model=model,
        train_loader=train_loader,
        val_loader=val_loader,
        num_classes=2,
        learning_rate=1e-3,
        num_epochs=2,
    )
    evaluation = trainer.train()
    assert trainer.step == 4
    assert evaluation is not None and evaluation.images == 8


@pytest.mark.slow
def test_training_learns_what_colours_tell(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(steps=80)
    evaluation = trainer.train()
    assert evaluation is not None
    assert mean_iou(evaluation.confusion_KK) > 0.6


def test_the_model_ends_with_the_averaged_weights(make_trainer: MakeTrainer) -> None:
    model = FastSegNet(3, "nano")
    trainer = make_trainer(model=model)
    trainer.train()
    averaged = trainer.learner.ema.model.state_dict()
    assert all(torch.equal(value, averaged[name]) for name, value in model.state_dict().items())


class RecordingLoss(CrossEntropyLoss):
    """Keeps every value it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        loss = super().forward(logits_NKHW, label_NHW)
        self.values.append(loss.item())
        return loss


PINNED = [1.2542, 1.17, 1.2249, 1.2614, 1.2697, 1.2516]


def test_the_losses_of_a_tiny_run_are_pinned(make_trainer: MakeTrainer) -> None:
    """Any change to the network, the augmentation, the order or the optimizer shows here."""
    criterion = RecordingLoss()
    make_trainer(criterion=criterion, val_loader=None, learning_rate=2e-4).train()
    of_main_head = criterion.values[::3]
    assert of_main_head == pytest.approx(PINNED, rel=0.01)


class TinyNet(nn.Module):
    """A network of somebody else: logits at 1/2, and one more head."""

    def __init__(self, num_classes: int = 2, heads: int = 1) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.heads = nn.ModuleList(nn.Conv2d(8, num_classes, 1) for _ in range(heads))

    def forward(self, image: Tensor) -> Any:
        features = torch.relu(self.encoder(image))
        logits = [head(features) for head in self.heads]
        return logits[0] if len(logits) == 1 else {"aux": logits[1], "out": logits[0]}


@pytest.mark.parametrize("heads", [1, 2])
def test_networks_of_ones_own_train_too(heads: int) -> None:
    model = TinyNet(heads=heads)
    loader = DataLoader(colour_pairs(), batch_size=4)  # type: ignore[arg-type]
    trainer = SegmentationTrainer(model, loader, loader, 2, learning_rate=0.02, num_epochs=30)
    evaluation = trainer.train()
    assert evaluation is not None and mean_iou(evaluation.confusion_KK) > 0.9


class Unusual(TinyNet):
    """Holds weights of five dimensions and a mode that it keeps by itself, as frozen norms do."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = nn.Conv3d(1, 1, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Any:
        return super().forward(self.depth(x[:, None])[:, 0])

    def train(self, mode: bool = True) -> None:  # type: ignore[override]  # as people write it
        super().train(mode)


def test_weights_of_any_dimensions_train_and_train_may_return_nothing() -> None:
    model, loader = Unusual(), [tuple(torch.stack(x) for x in zip(*colour_pairs(), strict=True))]
    before = model.depth.weight.clone()
    SegmentationTrainer(model, loader, loader, 2, num_epochs=1, device="cpu").train()
    assert not torch.equal(model.depth.weight, before)


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ({"minutes": 0}, "minutes is 0; expected more than 0"),
        ({"num_epochs": -2}, "num_epochs is -2; expected more than 0"),
        ({"num_epochs": math.inf}, "num_epochs is inf; expected more than 0 and less than inf"),
        ({"minutes": math.nan}, "minutes is nan"),
    ],
)
def test_a_training_that_would_have_no_length_or_no_end_is_refused(
    length: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        SegmentationTrainer(TinyNet(), colour_pairs(), None, 2, **length)  # type: ignore[arg-type]


def test_class_weights_are_taken_out_of_the_averaged_network_alone(
    make_trainer: MakeTrainer,
) -> None:
    weight_K = torch.tensor([1.0, 2.0, 4.0])
    plain, undone = make_trainer(), make_trainer(class_weights=weight_K)
    for trainer in (plain, undone):
        trainer.train()
    less_K = plain.model.head[1].bias - undone.model.head[1].bias
    torch.testing.assert_close(less_K, torch.tensor([-1.0, 0.0, 1.0]) * math.log(2))
    assert torch.equal(plain.learner.ema.model.head[1].bias, undone.learner.ema.model.head[1].bias)


def test_the_main_head_is_the_one_that_is_called_out() -> None:
    model, image = TinyNet(heads=2), torch.randn(1, 3, 32, 32)
    assert torch.equal(AllHeads(model)(image)[0], model(image)["out"])


def test_images_of_any_size_train(make_trainer: MakeTrainer) -> None:
    sizes = [(2, 45, 71), (1, 64, 33)]
    pairs = [(torch.randn(n, 3, h, w), torch.randint(0, 3, (n, h, w))) for n, h, w in sizes]
    trainer = make_trainer(train_loader=pairs, val_loader=None, steps=2)
    trainer.train()
    assert math.isfinite(trainer.loss)


def test_a_generator_function_without_a_length_is_counted() -> None:
    class Batches:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return (
                (image[None].repeat(2, 1, 1, 1), label[None].repeat(2, 1, 1))
                for image, label in colour_pairs(3)
            )

    trainer = SegmentationTrainer(TinyNet(), Batches(), None, 2, num_epochs=2)
    trainer.train()
    assert trainer.step == 6


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_files(
    make_trainer: MakeTrainer, run: RunFolder
) -> None:
    good = Batch(torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64).long(), ("good.png",))
    bad = Batch(torch.full((2, 3, 64, 64), math.nan), good.label_NHW, ("a.png", "b.png"))
    trainer = make_trainer(run, train_loader=[good, good, bad], steps=3)
    with pytest.raises(NonFiniteLossError, match=r"(?s)step 2.*a\.png.*b\.png"):
        trainer.train()
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_an_infinite_gradient_stops_before_it_reaches_the_weights(
    make_trainer: MakeTrainer,
) -> None:
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:  # type: ignore[override]
            return x.clone()

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * math.inf

    class SteepLoss(CrossEntropyLoss):
        def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
            return super().forward(Steep.apply(logits_NKHW), label_NHW)  # type: ignore[no-untyped-call]

    trainer = make_trainer(criterion=SteepLoss())
    with pytest.raises(NonFiniteLossError, match="at step 0"):
        trainer.train()
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


class OfAnotherNumber(nn.Module):
    """Its attribute is its own matter: it leaves 255 out."""

    def __init__(self, ignore_index: int | None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        label_NHW = label_NHW.masked_fill(label_NHW == 255, -100)
        return nn.functional.cross_entropy(logits_NKHW, label_NHW)


def masked_mean(logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
    """Return a mean whose gradients are no numbers either where nothing is judged."""
    judged_NHW = label_NHW != 255
    loss_NHW = nn.functional.cross_entropy(logits_NKHW, label_NHW * judged_NHW, reduction="none")
    return (loss_NHW * judged_NHW).sum() / judged_NHW.sum()


OWN_LOSSES: dict[str, Any] = {
    "module": nn.CrossEntropyLoss(ignore_index=255),
    "function": lambda x, y: nn.functional.cross_entropy(x, y, ignore_index=255),
    "mean of the judged": masked_mean,
    "attribute of its own": OfAnotherNumber(-100),
    "attribute None": OfAnotherNumber(None),
}


@pytest.mark.parametrize("loss", OWN_LOSSES)
@pytest.mark.parametrize("judged", [True, False])
def test_a_loss_of_ones_own_may_be_a_function_and_see_no_judged_pixel(
    loss: str, judged: bool
) -> None:
    pairs = [(image, label if judged else label * 0 + 255) for image, label in colour_pairs()]
    loader = DataLoader(pairs, batch_size=4)  # type: ignore[arg-type]
    trainer = SegmentationTrainer(
        TinyNet(), loader, None, 2, num_epochs=1, criterion=OWN_LOSSES[loss]
    )
    trainer.train()
    assert (trainer.loss > 0) == judged and math.isfinite(trainer.loss)


def test_a_loss_that_ignores_another_number_serves_labels_without_255() -> None:
    loader = DataLoader(colour_pairs(), batch_size=4)  # type: ignore[arg-type]
    criterion = nn.CrossEntropyLoss()
    trainer = SegmentationTrainer(TinyNet(), loader, None, 2, num_epochs=1, criterion=criterion)
    trainer.train()
    assert trainer.loss > 0


def test_an_error_of_a_loss_that_has_nothing_to_do_with_255_is_left_as_it_is(
    make_trainer: MakeTrainer,
) -> None:
    with pytest.raises(RuntimeError, match="must match the size") as caught:
        make_trainer(criterion=lambda x, y: (x - y).mean()).train()
    assert not isinstance(caught.value, ConfigError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": nn.CrossEntropyLoss()}, "make it with ignore_index=255"),
        ({"criterion": nn.functional.cross_entropy}, "ignore_index=255; .*255 is out of bounds"),
        (
            {"criterion": partial(nn.functional.cross_entropy, ignore_index=-100)},
            "takes 255 for a class",
        ),
        (
            {"criterion": nn.CrossEntropyLoss(ignore_index=255, reduction="none")},
            r"gives shape \(4, \d+, \d+\); expected one number",
        ),
        ({"criterion": lambda x, y: {"loss": x.mean()}}, "gives dict; expected one number"),
    ],
)
def test_a_loss_that_does_not_fit_is_told_at_the_first_step(
    options: dict[str, Any], message: str, make_trainer: MakeTrainer
) -> None:
    trainer = make_trainer(**options)
    with pytest.raises(ConfigError, match=message):
        trainer.train()
    assert trainer.step == 0


def test_class_weights_that_cannot_be_undone_are_told_before_training(
    make_trainer: MakeTrainer,
) -> None:
    with pytest.raises(
        ConfigError, match=r"shape \(5,\); expected \(3,\), a weight for each class"
    ):
        make_trainer(class_weights=torch.ones(5))
    with pytest.raises(ConfigError, match="out of a FastSegNet, not of TinyNet"):
        make_trainer(model=TinyNet(3), class_weights=torch.ones(3))


def test_a_run_folder_holds_everything(make_trainer: MakeTrainer, run: RunFolder) -> None:
    make_trainer(run).train()
    assert {path.name for path in run.path.iterdir() if "tfevents" not in path.name} == {
        ".lock",
        "curves.png",
        "metrics.jsonl",
        "model.safetensors",
        "predictions.png",
        "report.html",
        "resume.pt",
    }
    entries = run.metrics()
    assert entries[-1]["step"] == 6
    assert {"loss", "miou", "latency_ms", "epoch"} <= entries[-1].keys()
    assert entries[-1]["latency_ms"] > 0
    assert entries[-1]["iou"].keys() == {"ground", "disc", "bar"}
    assert entries[-1]["val_loss"] > 0 and entries[-1]["learning_rate"] >= 0
    _, info = load_checkpoint(run.model_path)
    assert info.trained_on == "tiny train"
    assert info.training["finished"] and info.training["step"] == 6


@pytest.mark.slow
def test_the_saved_model_is_the_trained_one(make_trainer: MakeTrainer, run: RunFolder) -> None:
    model = FastSegNet(3, "nano")
    make_trainer(run, model=model).train()
    loaded, _ = load_checkpoint(run.model_path)
    image = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(loaded(image), model.eval()(image))


@pytest.mark.slow
def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    make_trainer: MakeTrainer, run: RunFolder
) -> None:
    options = {
        "steps": 9,
        "recipe": Recipe(precision="fp32", evaluations=4, warmup_steps=2),
        "selection": Selection(keep_best=True, patience=9),
        "checkpoint_every": 1,
    }
    other = RunFolder(run.path.with_name("other"), run.info)
    other.path.mkdir()
    whole = make_trainer(other, **options)
    whole.train()
    stopped = make_trainer(run, **options)
    stop_at(stopped, step=4)
    with pytest.raises(TrainingStoppedError):
        stopped.train()
    resumed = make_trainer(run, **options)
    resumed.resume()
    assert resumed.step == 4
    resumed.train()
    assert (resumed.loss, resumed.best) == (whole.loss, whole.best)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    for path in ("best.safetensors", "checkpoints/epoch-1.safetensors"):
        first, second = (load_checkpoint(each.path / path)[0] for each in (other, run))
        for name, value in first.state_dict().items():
            assert torch.equal(second.state_dict()[name], value), name
    kept = ("step", "epoch", "loss", "learning_rate", "miou", "iou", "val_loss")
    lines = [[{k: e.get(k) for k in kept} for e in each.metrics()] for each in (other, run)]
    assert lines[0] == lines[1]


def test_ctrl_c_in_the_end_leaves_the_trained_weights_to_go_on_from(
    make_trainer: MakeTrainer, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(run, steps=4)

    def draw(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("fastseg_training.trainer.draw_predictions", draw)
    with pytest.raises(TrainingStoppedError):
        trainer.train()
    state = run.load_state()
    assert state is not None
    assert not torch.equal(state["model"]["head.1.bias"], state["ema"]["head.1.bias"])


def stop_at(trainer: SegmentationTrainer, step: int) -> None:
    """Press Ctrl-C in the middle of a step."""
    update = trainer.learner.ema.update

    def update_and_interrupt(count: int) -> None:
        update(count)
        if count == step - 1:
            signal.raise_signal(signal.SIGINT)

    trainer.learner.ema.update = update_and_interrupt  # type: ignore[method-assign]


def test_resuming_a_run_that_saved_nothing_yet_starts_it_anew(
    make_trainer: MakeTrainer, run: RunFolder
) -> None:
    run.log({"step": 50, "loss": 1.0})
    trainer = make_trainer(run)
    trainer.resume()
    assert trainer.step == 0 and run.metrics() == []


@pytest.mark.slow
def test_resuming_with_another_network_is_refused(
    make_trainer: MakeTrainer, run: RunFolder
) -> None:
    make_trainer(run).train()
    with pytest.raises(RunError, match="of another network"):
        make_trainer(run, model=FastSegNet(3, "small")).resume()


def test_ctrl_c_is_given_back_after_training(make_trainer: MakeTrainer) -> None:
    make_trainer(steps=1, val_loader=None).train()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_training_by_the_clock_ends_with_the_learning_rate_at_zero(
    make_trainer: MakeTrainer,
) -> None:
    trainer = make_trainer(minutes=1.5 / 60, val_loader=None)
    trainer.train()
    assert trainer.step >= 1
    assert trainer.elapsed_s >= 1.5
    assert trainer.budget.progress(trainer.step, trainer.elapsed_s) == 1


@pytest.mark.slow
def test_bf16_training_is_close_to_float32(make_trainer: MakeTrainer) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        recipe = Recipe(precision=precision, warmup_steps=2)
        trainer = make_trainer(steps=20, recipe=recipe, val_loader=None)
        trainer.train()
        losses.append(trainer.loss)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_trainer_starts_with_the_defaults_of_the_command_and_without_an_evaluation(
    make_trainer: MakeTrainer,
) -> None:
    parameters = inspect.signature(SegmentationTrainer).parameters
    defaults = (parameters["learning_rate"].default, parameters["num_epochs"].default)
    assert defaults == (TrainConfig().lr, TrainConfig().epochs)
    assert make_trainer(model=TinyNet(3)).evaluation is None


def test_the_loss_that_is_shown_follows_that_of_each_batch_by_a_fiftieth() -> None:
    criterion = RecordingLoss()
    loader = DataLoader(colour_pairs(), batch_size=4)  # type: ignore[arg-type]
    trainer = SegmentationTrainer(TinyNet(), loader, None, 2, 1e-3, 10, criterion=criterion)
    trainer.train()
    expected = criterion.values[0]  # of one head
    for value in criterion.values[1:]:
        expected += (value - expected) / 50
    assert trainer.loss == pytest.approx(expected, rel=1e-5)


def test_the_backbones_factor_reaches_the_learning_rate() -> None:
    recipe = Recipe(decay="constant", warmup_steps=0, backbone_factor=0.1, precision="fp32")
    loader = DataLoader(colour_pairs(), batch_size=4)  # type: ignore[arg-type]
    trainer = SegmentationTrainer(TinyNet(), loader, None, 2, 1e-3, 1, recipe=recipe)
    trainer.train()
    assert {group["lr"] for group in trainer.learner.optimizer.param_groups} == {1e-3, 1e-3 * 0.1}


def small_pairs() -> list[tuple[Tensor, Tensor]]:
    return [(image[None, :, :32, :32], label[None, :32, :32]) for image, label in colour_pairs(2)]


class Clock:
    """A clock that a step moves on, and an evaluation by its cost."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, step_s: float, evaluation_s: float = 0.0
    ) -> None:
        self.step_s, self.evaluation_s = step_s, evaluation_s
        self.now_s, self.evaluations = 0.0, 0
        monkeypatch.setattr("fastseg_training.trainer.time", self)

    def monotonic(self) -> float:
        return self.now_s

    def loss(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        self.now_s += self.step_s * torch.is_grad_enabled()  # an evaluation has its own cost
        return nn.functional.cross_entropy(logits_NKHW, label_NHW, ignore_index=255)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.now_s += self.evaluation_s
        self.evaluations += 1
        yield from small_pairs()


class ClockLoss(nn.Module):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def forward(self, logits_NKHW: Tensor, label_NHW: Tensor) -> Tensor:
        return self.clock.loss(logits_NKHW, label_NHW)


@pytest.mark.parametrize(
    ("evaluation_s", "minutes", "evaluations"),
    [
        (2.2, 200 / 60, 10),  # nine and the last: eight took 17.6 s when the ninth was due at 180
        (2.5, 200 / 60, 9),  # five took 12.5 s when the sixth was due at 120: it is left out
        (2.5, None, 10),  # by the steps, evaluation may take what it takes
    ],
)
def test_by_the_clock_evaluation_takes_a_tenth_of_the_time_and_no_more(
    evaluation_s: float,
    minutes: float | None,
    evaluations: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch, 4.0, evaluation_s)
    recipe = Recipe(precision="fp32")
    criterion = ClockLoss(clock)
    trainer = SegmentationTrainer(
        TinyNet(),
        small_pairs(),
        clock,
        2,
        1e-3,
        25,
        minutes=minutes,
        recipe=recipe,
        criterion=criterion,
    )
    trainer.train()
    assert clock.evaluations == evaluations


@dataclass(frozen=True)
class CountingRun(RunFolder):
    """Notes when it is written to."""

    logged: list[int] = field(default_factory=list)
    saved: list[bool] = field(default_factory=list)

    def log(self, entry: Mapping[str, Any]) -> None:
        super().log(entry)
        self.logged.append(entry["step"])

    def save_state(self, state: Mapping[str, Any]) -> None:
        super().save_state(state)
        self.saved.append(True)


@pytest.mark.parametrize(("steps", "logged", "saved"), [(49, [49], 1), (61, [50, 61], 2)])
def test_a_run_is_logged_every_50_steps_and_saved_once_a_minute(
    steps: int,
    logged: list[int],
    saved: int,
    make_trainer: MakeTrainer,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counting = CountingRun(run.path, run.info)
    trainer = make_trainer(
        counting,
        steps,
        model=TinyNet(3),
        val_loader=None,
        recipe=Recipe(precision="fp32", evaluations=1),
        criterion=ClockLoss(Clock(monkeypatch, 1.0)),
    )
    trainer.train()
    assert (counting.logged, len(counting.saved)) == (logged, saved)


def test_patience_ends_a_training_that_gets_no_better_and_the_best_weights_are_kept(
    make_trainer: MakeTrainer, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    mious = iter([0.3, 0.5, 0.4])
    monkeypatch.setattr(Evaluation, "miou", property(lambda self: next(mious, 0.5)))
    monkeypatch.setattr(Evaluation, "metrics", lambda self, classes: {})
    recipe = Recipe(precision="fp32", evaluations=9)
    selection = Selection(keep_best=True, patience=2)
    trainer = make_trainer(run, 9, model=TinyNet(3), recipe=recipe, selection=selection)
    trainer.train()
    assert trainer.step == 4  # no better at 3 and 4, where 0.5 is not more than 0.5
    header = read_info(run.best_path).training
    assert header["chosen_by"] == "highest validation mIoU" and header["finished"] is False
    assert (header["validation_miou"], header["step"], header["chosen_of_evaluations"]) == (
        0.5,
        2,
        2,
    )
    assert read_info(run.model_path).training["step"] == 4
    with pytest.raises(LoaderError, match="on the validation split, and there is none"):
        make_trainer(run, val_loader=None, selection=selection)
    with pytest.raises(RunError, match="need a run folder"):
        make_trainer(selection=selection)
    two = dataclasses.replace(run.info, classes=run.info.classes[:2])
    with pytest.raises(RunError, match="names 2 classes, the network tells 3 apart"):
        make_trainer(RunFolder(run.path, two), model=TinyNet(3))


def test_an_evaluation_that_tells_nothing_apart_is_neither_better_nor_worse() -> None:
    best = Best()
    assert not best.note(math.nan, 1)
    assert best.note(0.2, 2)
    assert not best.note(math.nan, 3)
    assert (best.miou, best.step, best.since, best.evaluations) == (0.2, 2, 0, 3)


def test_weights_are_kept_each_time_so_many_epochs_are_over(
    make_trainer: MakeTrainer, run: RunFolder
) -> None:
    options = {"model": TinyNet(3), "val_loader": None, "checkpoint_every": 2}
    make_trainer(run, 13, **options).train()  # of three steps each
    kept = {path.name for path in (run.path / "checkpoints").iterdir()}
    assert kept == {"epoch-2.safetensors", "epoch-4.safetensors"}
    assert read_info(run.checkpoint_path(2)).training["step"] == 6


@pytest.mark.parametrize("batches", [1, 2, 6])
def test_a_run_goes_on_with_more_epochs_of_other_batches_where_it_was(
    batches: int, make_trainer: MakeTrainer, run: RunFolder
) -> None:
    recipe = Recipe(precision="fp32", evaluations=3)
    label_NHW = torch.zeros(2, 32, 32).long()
    label_NHW[0] = 1  # of one class alone there is no mIoU
    pair = (torch.zeros(2, 3, 32, 32), label_NHW)

    def make(count: int, epochs: int) -> SegmentationTrainer:
        steps = epochs * 3  # of the loader that make_trainer would take
        loader = [pair] * count
        return make_trainer(run, steps, model=TinyNet(3), train_loader=loader, val_loader=loader,
                            recipe=recipe)  # fmt: skip

    make(2, epochs=3).train()
    longer = make(batches, epochs=9)
    longer.resume()
    assert (longer.step, longer.position) == (6, 3 * batches)
    longer.train()
    assert (longer.step, longer.position) == (6 + 6 * batches, 9 * batches)
    scored = [entry["epoch"] for entry in run.metrics() if "miou" in entry]
    assert scored == [1, 2, 3, 6, 9]


def test_what_is_frozen_stays_as_it_was_with_its_batch_norm_statistics(
    make_trainer: MakeTrainer,
) -> None:
    model = FastSegNet(3, "nano")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_trainer(steps=2, model=model, val_loader=None, freeze=["stem", "stage_8.0"]).train()
    for name, value in model.state_dict().items():
        held = name.startswith(("stem.", "stage_8.0."))
        assert torch.equal(value, before[name]) == held, name


class Hears(Callback):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_start(self, run: RunFolder | None) -> None:
        self.heard.append("start")

    def on_log(self, entry: Mapping[str, Any]) -> None:
        self.heard.append(entry["step"])

    def on_end(self, run: RunFolder | None) -> None:
        self.heard.append("end")


def test_callbacks_hear_of_a_training_with_and_without_a_folder_and_of_its_end(
    make_trainer: MakeTrainer, run: RunFolder
) -> None:
    for folder in (None, run):
        hears = Hears()
        trainer = make_trainer(folder, model=TinyNet(3), callbacks=[hears, Deaf()])
        trainer.train()
        assert hears.heard == ["start", 3, 6, "end"]
    hears = Hears()
    trainer = make_trainer(model=TinyNet(3), callbacks=[hears])
    stop_at(trainer, step=1)
    with pytest.raises(TrainingStoppedError):
        trainer.train()
    assert hears.heard == ["start", "end"]


class Deaf(Callback):
    """Overrides nothing."""
