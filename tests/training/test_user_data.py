"""What `--check` calls ready trains, and what it refuses is refused, for the same reason."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from fastseg_training.cli import run_check
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.evaluate import score_network
from fastseg_training.suspects.report import report_suspects
from fastseg_training.training_data import open_data

from fastseg import CheckpointInfo, FastSegNet, Network
from fastseg.data import DataError, open_dataset
from tests.fastseg.data.user_data import CASES, TWO, Case, coco, folder, of_values

ANOTHER_REASON = {"no train": "no split 'train'"}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_training_starts_on_what_the_check_calls_ready_and_on_nothing_else(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case.write(tmp_path)
    config = TrainConfig(data=case.spec(tmp_path))
    if not case.wrong:
        data = open_data(config)
        assert len(data.train) and data.pixels_K.all()
        assert re.search(case.said, capsys.readouterr().err)
        return
    with pytest.raises(DataError) as refused:
        open_data(config)
    assert re.search(ANOTHER_REASON.get(case.name, case.wrong), str(refused.value))


def test_the_check_takes_the_options_of_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path, "background\nred\ngreen\nblue\n")
    (root / "train/labels/s01.png").unlink()
    spec = f"folder:{root}"
    assert run_check(spec, {}, False) == 1
    assert run_check(spec, {"skip_broken": True}, False) == 1
    assert run_check(spec, {"allow_missing_classes": True}, False) == 1
    capsys.readouterr()
    assert run_check(spec, {"allow_missing_classes": True, "skip_broken": True}, False) == 0
    out = capsys.readouterr().out
    assert "s01.png: image has no label s01" in out
    assert "train has no pixel of class blue" in out


def test_a_class_without_a_pixel_may_be_meant_so(tmp_path: Path) -> None:
    folder(tmp_path, "background\nred\ngreen\nblue\n")
    config = TrainConfig(data=f"folder:{tmp_path}")
    with pytest.raises(DataError, match="no pixel of class blue"):
        open_data(config)
    config = dataclasses.replace(config, allow_missing_classes=True)
    assert open_data(config).pixels_K.tolist()[3] == 0


def test_what_is_said_of_reading_goes_with_the_data(tmp_path: Path) -> None:
    config = TrainConfig(
        data=f"folder:{folder(tmp_path)}", image_range="0:127", skip_broken=True, most_broken=0.2
    )
    assert config.dataset() == f"{config.data}?image-range=0:127&skip-broken=0.2"
    plain, bright = (open_dataset(spec, "val")[0] for spec in (config.data, config.dataset()))
    assert bright.image_HW3.mean() > 1.5 * plain.image_HW3.mean()


def _network(spec: str) -> Network:
    classes = open_dataset(spec, "train").classes
    return Network(
        FastSegNet(len(classes), "nano").eval(), CheckpointInfo("nano", classes, 64, 64), "it", ""
    )


def test_a_score_is_of_classes_in_the_network_s_order(tmp_path: Path) -> None:
    spec = f"folder:{folder(tmp_path / 'a')}"
    network = _network(spec)
    assert score_network(network, spec, "test").images == 2
    other = folder(tmp_path / "b", "background\ngreen\nred\n", of_values(0, 2, 1))
    with pytest.raises(ConfigError, match="in another order, background, green, red"):
        score_network(network, f"folder:{other}", "test")


def test_classes_that_labels_call_otherwise_are_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = f"folder:{folder(tmp_path / 'a')}"
    network = _network(spec)
    score_network(network, spec, "test")
    assert "otherwise" not in capsys.readouterr().err
    other = folder(tmp_path / "b", "background\nred\nhay\n", of_values(0, 1, 2))
    score_network(network, f"folder:{other}", "test")
    said = capsys.readouterr().err
    assert "calls classes otherwise; taken as they stand: green is hay" in said


def test_a_score_and_a_list_of_doubts_say_what_they_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = f"folder:{folder(tmp_path)}"
    network = _network(spec)
    (tmp_path / "test/labels").joinpath("s06.png").unlink()
    assert score_network(network, f"{spec}?skip-broken=0.5", "test").images == 1
    assert "s06.png: image has no label s06" in capsys.readouterr().err
    found = report_suspects(network, f"{spec}?skip-broken=0.5", "test", "", tmp_path / "sheet.html")
    assert len(found.by_disagreement) == 1
    assert any("s06.png: image has no label s06" in note for note in found.notes)


def test_a_mask_of_0_and_255_is_asked_about_before_it_is_scored(tmp_path: Path) -> None:
    root = folder(tmp_path, "0 background\n255 polyp\n", of_values(0, 255), count=2)
    network = _network(f"folder:{root}")
    assert score_network(network, f"folder:{root}", "test").images == 2
    (root / "classes.txt").write_text(TWO)
    with pytest.raises(DataError, match="2 label files hold nothing but background and 255"):
        score_network(network, f"folder:{root}", "test")


def test_categories_of_val_are_scored_under_their_own_names(tmp_path: Path) -> None:
    train, val = (
        open_dataset(f"coco:{coco(tmp_path, other_ids=True)}", split) for split in ("train", "val")
    )
    assert train.classes == val.classes
