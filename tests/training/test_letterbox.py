"""Training with --fit letterbox: bars teach nothing, scores are of the picture alone."""

import dataclasses
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fastseg_runtime.bundle.manifest import IGNORE_INDEX, InputSpec
from fastseg_training.batches.resident import ResizedDataset
from fastseg_training.build_trainer import build_trainer
from fastseg_training.config import ConfigError, TrainConfig, dump_config, load_config
from fastseg_training.evaluate import EvaluationBatches, evaluate, score_network
from fastseg_training.pictures import draw_predictions
from fastseg_training.run_folder import RunError, TrainingStoppedError
from fastseg_training.suspects.ranking import find_suspects
from fastseg_training.which_run import saved_config
from torch import Tensor, nn

from fastseg import CheckpointInfo, Network, open_network
from fastseg.data import Sample
from fastseg.data.camvid import CLASSES

WIDE = "synthetic:size=96x40,train=6,val=2,test=2"
BOXED = InputSpec(96, 64, resize="letterbox")
TINY = TrainConfig(
    WIDE, model="nano", size="96x64", fit="letterbox", crop="64x64", batch=2, epochs=1, threads=1
)


class Bright(nn.Module):
    """Class 1 where a picture is bright; bars, which are grey, are of class 2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image_N3HW: Tensor) -> Tensor:
        level_NHW = image_N3HW.mean(1)
        return torch.stack([-level_NHW, level_NHW, 0.5 - level_NHW.abs()], 1)


def half_bright(width: int, height: int) -> Sample:
    label_HW = np.zeros((height, width), np.uint8)
    label_HW[:, width // 2 :] = 1
    return Sample(np.repeat(label_HW[..., None] * 255, 3, axis=2), label_HW, "a", ("a.png",))


@pytest.mark.parametrize("size", [(192, 80), (96, 40), (40, 80), (30, 64), (96, 64), (300, 10)])
def test_scores_are_of_the_picture_at_its_own_size_without_the_bars(size: tuple[int, int]) -> None:
    batches = EvaluationBatches([half_bright(*size)], (96, 64), spec=BOXED)
    ((image_13HW, label_1HW),) = batches
    assert image_13HW.shape == (1, 3, 64, 96) and label_1HW.shape == (1, *size[::-1])
    seen: list[Any] = []
    found = evaluate(Bright(), batches, 3, observe=lambda *args: seen.append(args), spec=BOXED)
    assert found.confusion_KK.sum() == size[0] * size[1]
    assert found.confusion_KK[:, 2].sum() == 0  # no bar is in it
    assert found.miou > 0.9
    _, image_3HW, label_HW, classes_HW = seen[0]
    assert image_3HW.shape[1:] != (64, 96) or size == (96, 64)
    assert label_HW.shape == classes_HW.shape == size[::-1]


def test_nobody_judged_what_lies_outside_of_a_training_picture() -> None:
    sample = ResizedDataset([half_bright(192, 80)], (96, 64), "letterbox")[0]
    assert sample.image_HW3.shape == (64, 96, 3)
    assert (sample.label_HW[:12] == IGNORE_INDEX).all()
    assert (sample.label_HW[52:] == IGNORE_INDEX).all()
    assert (sample.image_HW3[:12] == 128).all()
    assert (sample.label_HW[12:52] == half_bright(96, 40).label_HW).all()


def test_a_stretched_training_is_as_before() -> None:
    sample = half_bright(192, 80)
    image_HW3 = ResizedDataset([sample], (96, 64))[0].image_HW3
    assert np.array_equal(image_HW3, cv2.resize(sample.image_HW3, (96, 64)))
    assert TrainConfig(WIDE).fit == "stretch" and "--fit" not in TrainConfig(WIDE).command()
    ((image_13HW, _),) = EvaluationBatches([sample], (96, 64))
    expected_HW3 = (torch.from_numpy(image_HW3).float() - 128) / 64
    assert torch.equal(image_13HW[0].permute(1, 2, 0), expected_HW3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fit": "crop", "size": "96x64"}, "fit is 'crop'; expected stretch or letterbox"),
        ({"fit": "letterbox"}, "letterbox needs the size to bring pictures to: --size WxH"),
        ({"fit": "letterbox", "size": "96x64", "teacher": "x"}, "leave letterbox out"),
    ],
)
def test_a_fit_that_cannot_be_is_a_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, {"data": WIDE, **options})


def test_the_header_says_the_fit_and_the_pictures_of_a_run_have_no_bars(tmp_path: Path) -> None:
    trainer = build_trainer(TINY, tmp_path)
    assert trainer.run is not None and trainer.run.info.fit == "letterbox"
    assert "--fit letterbox" in trainer.run.info.training["command"]
    ((image_N3HW, label_NHW), *_) = trainer.val_loader
    assert image_N3HW.shape[2:] == (64, 96) and label_NHW.shape[1:] == (40, 96)
    info = CheckpointInfo("x", CLASSES[:3], 96, 64, fit="letterbox")
    batches = EvaluationBatches([half_bright(192, 80)], (96, 64), spec=BOXED)
    draw_predictions(Bright(), batches, info, tmp_path / "p.png")
    assert cv2.imread(str(tmp_path / "p.png")).shape[0] == 40


def test_a_label_right_in_a_letterbox_is_not_suspect(tmp_path: Path) -> None:
    info = CheckpointInfo("own", CLASSES[:3], 96, 64, fit="letterbox")
    network = Network(Bright().eval(), info, "bright", "")
    (found,) = find_suspects(network, [half_bright(192, 80)])
    assert found.unlabelled_share == 0 and not any("2" in pair[1] for pair in found.pairs)
    assert found.disagreement < 0.9


def test_a_run_goes_on_with_the_fit_it_was_started_with(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(dump_config(TINY))
    assert saved_config(tmp_path, {}).fit == "letterbox"
    with pytest.raises(RunError, match="was started with fit = 'letterbox', not 'stretch'"):
        saved_config(tmp_path, {"fit": "stretch"})


@pytest.mark.slow
def test_a_letterboxed_training_is_resumed_bit_for_bit_and_scored_without_bars(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(TINY, epochs=2)
    whole, stopped, resumed = (
        build_trainer(config, tmp_path / name) for name in ("whole", "cut", "cut")
    )
    assert "stretched" not in capsys.readouterr().err
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole.train()
    update = stopped.learner.ema.update

    def update_and_interrupt(count: int) -> None:
        update(count)
        if count == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(stopped.learner.ema, "update", update_and_interrupt)
    with pytest.raises(TrainingStoppedError):
        stopped.train()
    resumed.resume()
    resumed.train()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    path = tmp_path / "cut" / "model.safetensors"
    network = open_network(path)
    assert network.info.fit == "letterbox"
    assert score_network(network, WIDE, "test").confusion_KK.sum() == 2 * 96 * 40
