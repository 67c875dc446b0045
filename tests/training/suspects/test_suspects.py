"""Which labels a network doubts, which pictures to label next, and the sheet that shows them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_training.cli import main
from fastseg_training.config import ConfigError
from fastseg_training.lessons import Frame
from fastseg_training.suspects.page import suspects_page
from fastseg_training.suspects.ranking import (
    choose_next,
    disagreement,
    doubt,
    draw_suspect,
    find_suspects,
)
from fastseg_training.suspects.report import report_suspects
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from fastseg import CheckpointInfo, Network, open_network
from fastseg.data import Sample, open_dataset

CLASSES = (ClassInfo("dark", (0, 0, 0)), ClassInfo("bright <b>", (255, 255, 255)))
SIDE = 64


class Brightness(nn.Module):
    """Sure of bright where red is 255, of dark where it is 0, of neither at 128."""

    def forward(self, image_N3HW: Tensor) -> Tensor:
        red_N1HW = image_N3HW[:, :1] * 4
        return torch.cat((-red_N1HW, red_N1HW), 1)


@pytest.fixture
def network() -> Network:
    info = CheckpointInfo("own", CLASSES, SIDE, SIDE)
    return Network(Brightness().eval(), info, "own", "")


def picture(left: int, right: int) -> np.ndarray:
    image_HW3 = np.full((SIDE, SIDE, 3), left, np.uint8)
    image_HW3[:, SIDE // 2 :] = right
    return image_HW3


def sample(name: str, left: int, right: int, label_left: int, label_right: int) -> Sample:
    label_HW = np.full((SIDE, SIDE), label_left, np.uint8)
    label_HW[:, SIDE // 2 :] = label_right
    return Sample(picture(left, right), label_HW, name, (f"{name}.jpg", f"{name}.png"))


SAMPLES = [
    sample("right", 0, 255, 0, 1),
    sample("swapped", 0, 255, 1, 0),
    sample("hard to see", 120, 120, 1, 1),
    sample("half void", 0, 255, 0, 255),
    sample("void", 0, 255, 255, 255),
]


def test_a_swapped_label_is_doubted_most_and_what_is_hard_to_see_less(network: Network) -> None:
    found = {one.name: one for one in find_suspects(network, SAMPLES)}
    doubts = {name: one.disagreement for name, one in found.items()}
    assert max(doubts, key=lambda name: doubts[name]) == "swapped"
    assert doubts["swapped"] > 0.95 > 0.8 > doubts["hard to see"] > doubts["right"]
    assert doubts["void"] == 0
    assert found["swapped"].pairs[0][:2] in {("dark", "bright <b>"), ("bright <b>", "dark")}
    assert found["half void"].unlabelled_share == 0.5 and found["void"].unlabelled_share == 1


@given(
    hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(0.125, 1, width=32)),
    hnp.arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 255])),
)
def test_doubt_is_a_share_and_none_where_they_agree_or_nobody_judged(
    weight_Khw: np.ndarray, label_hw: np.ndarray
) -> None:
    doubt_hw, network_hw = doubt(weight_Khw / weight_Khw.sum(0), label_hw)
    assert ((doubt_hw >= 0) & (doubt_hw <= 1)).all()
    assert (doubt_hw[(label_hw == network_hw) | (label_hw == 255)] == 0).all()


@given(hnp.arrays(np.float32, st.integers(0, 50), elements=st.floats(0, 1, width=32)))
def test_disagreement_lies_between_the_mean_and_the_worst_label(of_label_N: np.ndarray) -> None:
    score = disagreement(of_label_N)
    if not of_label_N.size:
        assert score == 0
    else:
        assert 1 - of_label_N.mean() - 1e-6 <= score <= 1 - of_label_N.min() + 1e-6


def test_what_is_unsure_is_labelled_first_and_then_what_is_unlike_it(network: Network) -> None:
    known = list(find_suspects(network, SAMPLES[:1]))
    pictures = {"sure": (0, 255), "unsure": (125, 125), "twin": (125, 125), "other": (125, 255)}
    frames = [Frame(picture(*sides), name) for name, sides in pictures.items()]
    chosen = choose_next(network, frames, known, 4)
    assert [one.name for one in chosen] == ["unsure", "other", "sure", "twin"]
    assert chosen[3].novelty == 0
    assert [one.name for one in choose_next(network, frames, known, 1)] == ["unsure"]
    assert choose_next(network, [], known, 4) == []


def test_the_sheet_needs_no_other_file_and_escapes_what_data_are_called(network: Network) -> None:
    suspect = next(find_suspects(network, [sample("<script>x", 0, 255, 1, 0)]))
    entry = (suspect, draw_suspect(network, SAMPLES[1]))
    page = suspects_page("a <title>", ["a & b"], CLASSES, [("Doubted", [entry]), ("Next", [])])
    assert "<script" not in page and "&lt;script&gt;x" in page and "bright &lt;b&gt;" in page
    assert "a &amp; b" in page and "&lt;script&gt;x.png" in page
    assert page.count("data:image/jpeg;base64,") == 4
    assert not re.search(r"(?:src|href)=\"(?!data:)|https?://", page)


DRAWN = "synthetic:size=64x64,train=1,val=1,test=1"


@pytest.mark.parametrize(
    ("trained_on", "split", "said"),
    [
        ("synthetic trainval", "test", False),
        ("synthetic trainval", "val", True),
        ("synthetic train", "val", False),
        ("synthetic train", "train", True),
        ("synthetic train without drive 1", "train", True),
        ("", "test", False),
    ],
)
def test_a_network_that_learnt_from_these_labels_is_said_to_doubt_less(
    trained_on: str, split: str, said: bool, tmp_path: Path
) -> None:
    network = open_network("nano-synthetic")
    info = dataclasses.replace(network.info, trained_on=trained_on)
    network = dataclasses.replace(network, info=info)
    found = report_suspects(network, DRAWN, split, "", tmp_path / "sheet.html")
    assert ["if that is this split" in note for note in found.notes] == [True] * said


def test_labels_of_the_same_classes_in_another_order_are_not_doubted(tmp_path: Path) -> None:
    network = open_network("nano-synthetic")
    turned = dataclasses.replace(network.info, classes=network.info.classes[::-1])
    with pytest.raises(ConfigError, match="in another order"):
        report_suspects(
            dataclasses.replace(network, info=turned), DRAWN, "test", "", tmp_path / "sheet.html"
        )


@pytest.mark.slow
def test_the_command_ranks_a_split_and_pictures_without_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    dataset = open_dataset("synthetic:size=160x120,test=3", "test")
    for index in range(3):
        cv2.imwrite(str(frames / f"{index}.png"), dataset[index].image_HW3[..., ::-1])
    sheet = tmp_path / "made" / "sheet.html"
    words = ["--suspects", "nano-synthetic", "--data", "synthetic:size=160x120,test=3", "--json"]
    words += ["--unlabelled", str(frames), "--sheet", str(sheet)]
    monkeypatch.setattr(sys, "argv", ["fastseg-train", *words])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["rank"] for one in found["disagreement"]] == [1, 2, 3]
    scores = [one["disagreement"] for one in found["disagreement"]]
    assert scores == sorted(scores, reverse=True)
    assert len(found["label_next"]) == 3
    assert sheet.read_text("utf-8").count("<section>") == 9


@pytest.mark.slow
def test_camvid_s_known_bad_labels_are_in_the_first_5_percent() -> None:
    path = os.environ.get("FASTSEG_CAMVID")
    if not path:
        pytest.skip("FASTSEG_CAMVID is not set: no real CamVid here")
    dataset = open_dataset(f"camvid:{path}", "test")
    found = list(find_suspects(open_network("nano-camvid"), dataset))
    first = len(found) // 20
    for name, score in (("Seq05VD_f02610", "disagreement"), ("Seq05VD_f00000", "unlabelled_share")):
        ranked = sorted(found, key=lambda one: -getattr(one, score))
        assert name in [one.name for one in ranked[:first]]
