"""A letterboxed network: the gate's reference and the artifact see the same picture."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastseg_exporters.cli import main
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.gate.reference import pytorch_runner
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import InputSpec
from fastseg_runtime.bundle.reader import open_bundle
from torch import nn

from fastseg import (
    CheckpointError,
    CheckpointInfo,
    load_checkpoint,
    open_network,
    save_checkpoint,
)
from fastseg.data.camvid import CLASSES

WIDTH, HEIGHT = 96, 64
WIDE = "synthetic:size=96x40,train=4,val=2,test=2"
FRAME = cv2.resize(  # 80x30: blobs, not noise, so that it says something at any size
    np.random.default_rng(3).integers(0, 256, (6, 16, 3), np.uint8), (80, 30)
)


def letterboxed_by_hand(model: nn.Module, frame_HW3: Array) -> Array:
    """PyTorch's class map of a frame wider than 3:2, without any code of the runtime."""
    height, width = frame_HW3.shape[:2]
    inner = round(height * WIDTH / width)
    top = (HEIGHT - inner) // 2
    image_HW3 = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image_HW3[top : top + inner] = cv2.resize(frame_HW3, (WIDTH, inner))
    x_13HW = ((torch.from_numpy(image_HW3)[None].float() - 128) / 64).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits_1KHW = F.interpolate(model(x_13HW), size=(HEIGHT, WIDTH), mode="bilinear")
    ids_hw = logits_1KHW.argmax(1)[0, top : top + inner].numpy().astype(np.uint8)
    rows = ((np.arange(height) + 0.5) * inner / height).astype(int)
    columns = ((np.arange(width) + 0.5) * WIDTH / width).astype(int)
    return ids_hw[rows][:, columns]


@pytest.fixture
def letterboxed(checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny network with a header that says how pictures came into it."""
    model, _ = load_checkpoint(checkpoint)
    x_13HW = torch.from_numpy(cv2.resize(FRAME, (WIDTH, HEIGHT))).permute(2, 0, 1)[None]
    with torch.inference_mode():  # all classes are as likely, so that its maps say something
        model.head[1].weight *= 50
        model.head[1].bias -= model((x_13HW.float() - 128) / 64).mean((0, 2, 3))
    path = tmp_path / "boxed.safetensors"
    save_checkpoint(path, model, CheckpointInfo("nano", CLASSES, WIDTH, HEIGHT, fit="letterbox"))
    return path


def export(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: Any
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["fastseg-export", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0), *capsys.readouterr()


def test_the_reference_of_the_gate_is_the_module_on_a_letterboxed_frame(letterboxed: Path) -> None:
    network = open_network(letterboxed)
    by_hand = letterboxed_by_hand(network.model, FRAME)
    assert len(np.unique(by_hand)) > 1
    assert (pytorch_runner(network).infer_new(FRAME) == by_hand).mean() > 0.999
    stretched = pytorch_runner(open_network(letterboxed, fit="stretch")).infer_new(FRAME)
    assert (stretched == by_hand).mean() < 0.99


def test_the_header_says_the_fit_and_an_option_goes_first(
    checkpoint: Path, letterboxed: Path
) -> None:
    assert open_network(checkpoint).info.input_spec() == InputSpec(WIDTH, HEIGHT)
    boxed = open_network(letterboxed)
    assert boxed.info.input_spec() == InputSpec(WIDTH, HEIGHT, resize="letterbox")
    again = open_network(checkpoint, fit="letterbox")
    assert again.info.fit == "letterbox"
    assert again.sha256 != open_network(checkpoint).sha256


def test_a_word_that_is_no_fit_is_a_sentence(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fit is 'crop'; expected stretch or letterbox"):
        open_network(checkpoint, fit="crop")
    model, info = load_checkpoint(checkpoint)
    object.__setattr__(info, "fit", "crop")  # as a damaged header has it
    save_checkpoint(tmp_path / "crop.safetensors", model, info)
    with pytest.raises(CheckpointError, match=r"header cannot be read: fit is 'crop'; expected"):
        load_checkpoint(tmp_path / "crop.safetensors")


def test_int8_is_calibrated_on_letterboxed_pictures() -> None:
    spec = InputSpec(WIDTH, HEIGHT, resize="letterbox")
    for image_1HW3 in Calibration(WIDE, 2).images(spec):
        assert (image_1HW3[0, [0, 11, 52, 63]] == 128).all()
        assert image_1HW3[0, 12:52].std() > 1


@pytest.mark.slow
def test_an_exported_letterboxed_network_gives_pytorchs_own_letterboxed_answer(
    letterboxed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = tmp_path / "boxed.fastseg"
    code, out, err = export(
        capsys, monkeypatch, letterboxed, "-o", bundle, "--verify", WIDE, "--verify-images", 2,
        "--confidence", "--json",
    )  # fmt: skip
    assert code == 0, err
    (artifact,) = json.loads(out)["artifacts"]
    assert artifact["agreement"] >= 0.999
    by_hand = letterboxed_by_hand(load_checkpoint(letterboxed)[0], FRAME)
    with RealtimeSegmentation(bundle) as session:
        assert session.input.resize == "letterbox"
        assert (session.infer(FRAME) == by_hand).mean() > 0.999
    with open_bundle(bundle) as opened:
        (entry,) = [a.entry for a in opened.manifest.artifacts]
        (tmp_path / "bare.onnx").write_bytes(opened.read(entry))
    with RealtimeSegmentation(tmp_path / "bare.onnx") as session:  # its metadata say it
        assert (session.infer(FRAME) == by_hand).mean() > 0.999
    with RealtimeSegmentation(letterboxed, backend="pytorch") as session:
        assert (session.infer(FRAME) == by_hand).mean() > 0.999
    code, _, err = export(
        capsys, monkeypatch, letterboxed, "-o", bundle, "--fit", "stretch", "--target", "pytorch"
    )
    assert code == 1 and "another network, size or output" in err


def test_a_wrong_fit_ends_the_export_in_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "x.fastseg"
    code, _, err = export(capsys, monkeypatch, checkpoint, "--fit", "crop", "-o", out)
    assert code == 1 and not out.exists()
    assert err.splitlines()[-1].endswith("fit is 'crop'; expected stretch or letterbox")


def test_a_job_names_the_fit_of_its_network(checkpoint: Path) -> None:
    assert NetworkSource(str(checkpoint), fit="letterbox").open().info.fit == "letterbox"


def test_a_network_of_ones_own_is_letterboxed_if_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    (tmp_path / "boxed_own.py").write_text(
        "from torch import nn\ndef net(num_classes):\n    return nn.Conv2d(3, num_classes, 9, 8, 4)"
    )
    network = open_network("boxed_own:net", CLASSES, size=(WIDTH, HEIGHT), fit="letterbox")
    by_hand = letterboxed_by_hand(network.model, FRAME)
    assert (pytorch_runner(network).infer_new(FRAME) == by_hand).mean() > 0.999
