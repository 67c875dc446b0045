from pathlib import Path

import pytest
import torch
from fastseg_runtime.bundle.manifest import ClassInfo

from fastseg import (
    CheckpointError,
    CheckpointInfo,
    FastSegNet,
    load_checkpoint,
    open_network,
    pretrained,
    save_checkpoint,
)

CLASSES = (ClassInfo("road", (128, 64, 128)), ClassInfo("sky", (70, 130, 180)))
INFO = CheckpointInfo("nano", CLASSES, 96, 64, trained_on="camvid train", data_licence="cite them")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastSegNet:
    """Ships one network, nano-camvid, in half precision; returns it in full."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    pretrained._tell.cache_clear()
    torch.manual_seed(0)
    model = FastSegNet(2, "nano").eval()
    save_checkpoint(tmp_path / "nano-camvid.safetensors", model, INFO, dtype=torch.float16)
    return model


def test_a_shipped_network_comes_by_name_in_float32_and_tells_its_licence_once(
    shipped: FastSegNet, capsys: pytest.CaptureFixture[str]
) -> None:
    network = open_network("nano-camvid").model
    open_network("nano-camvid")
    assert capsys.readouterr().err == (
        "nano-camvid: trained on camvid train; licence of the data: cite them\n"
    )
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), shipped(image), atol=0.05, rtol=0)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert not network.training


def test_an_unknown_name_lists_those_that_ship(shipped: FastSegNet) -> None:
    with pytest.raises(CheckpointError, match="no shipped network 'base-camvid'.*nano-camvid"):
        open_network("base-camvid")


def test_a_name_works_wherever_a_checkpoint_does(shipped: FastSegNet) -> None:
    network = open_network("nano-camvid")
    assert (network.name, network.info) == ("nano-camvid", INFO)
    assert network.sha256 == open_network(pretrained.FOLDER / "nano-camvid.safetensors").sha256


def test_the_preferred_network_is_the_default(shipped: FastSegNet) -> None:
    save_checkpoint(pretrained.FOLDER / "base-camvid.safetensors", shipped, INFO)
    assert pretrained.default() == "base-camvid"
    (pretrained.FOLDER / "base-camvid.safetensors").unlink()
    assert pretrained.default() == "nano-camvid"


@pytest.mark.parametrize("name", pretrained.names())
def test_what_ships_states_its_origin_and_its_scores(name: str) -> None:
    path = pretrained.find(name)
    assert path is not None
    _, info = load_checkpoint(path)
    assert info.trained_on and info.data_licence
    assert info.training["command"].startswith("fastseg-train --config ")
    assert "seed" in info.training and "data" not in info.training
    assert len(info.evaluation["iou"]) == len(info.classes)
    assert 0 < info.evaluation["miou"] < 1
