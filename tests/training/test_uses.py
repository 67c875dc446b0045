"""Whole trainings, small ones, on data of several kinds: does a user get a network that works?"""

import os
from pathlib import Path

import pytest
from fastseg_training.build_trainer import build_trainer
from fastseg_training.config import TrainConfig
from fastseg_training.optimisation import Recipe

CAMVID = os.environ.get("FASTSEG_CAMVID")


def train(folder: Path, **options: object) -> dict[str, float | None]:
    """Train nano and return the IoU of each class on the validation split."""
    recipe = Recipe(evaluations=1, ema_decay=0.97)
    config = TrainConfig(model="nano", batch=8, recipe=recipe, **options)  # type: ignore[arg-type]
    folder.mkdir()
    trainer = build_trainer(config, folder)
    evaluation = trainer.train()
    assert evaluation is not None and trainer.run is not None
    iou: dict[str, float | None] = evaluation.scores(trainer.run.info.classes)["iou"]
    return iou


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "epochs", "at_least"),
    [("lanes", 10.0, 0.25), ("organ", 20.0, 0.35), ("crops", 10.0, 0.3)],
)
def test_generated_data_of_other_trades_is_learnt_in_a_minute(
    tmp_path: Path, kind: str, epochs: float, at_least: float
) -> None:
    data = f"synthetic-{kind}:size=192x128,train=192,val=16"
    iou = train(tmp_path / "run", data=data, crop="128x128", epochs=epochs)
    assert all(value is not None and value > at_least for value in iou.values()), iou


@pytest.mark.slow
@pytest.mark.skipif(CAMVID is None, reason="set FASTSEG_CAMVID to the folder of CamVid")
def test_a_few_steps_on_real_streets_find_sky_and_road(tmp_path: Path) -> None:
    iou = train(tmp_path / "run", data=f"camvid:{CAMVID}", crop="160x160", epochs=2.0)
    assert (iou["Sky"] or 0) > 0.5 and (iou["Road"] or 0) > 0.5, iou
