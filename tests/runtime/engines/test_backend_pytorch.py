import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.engines.backend_pytorch import describe

from fastseg import (
    CheckpointError,
    CheckpointInfo,
    DeployGraph,
    FastSegNet,
    load_checkpoint,
    save_checkpoint,
)
from tests.doubles.tiny_bundle import CLASSES, noise

INFO = CheckpointInfo("nano", CLASSES, width=64, height=32, trained_on="noise", data_licence="CC0")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    save_checkpoint(path, FastSegNet(len(CLASSES), "nano"), INFO)
    return path


def test_a_checkpoint_runs_as_it_is(checkpoint: Path) -> None:
    frame = noise(32, 64)
    graph = DeployGraph(load_checkpoint(checkpoint)[0], 64, 32).eval()
    with torch.inference_mode():
        expected = graph(torch.from_numpy(frame[None]))[0].numpy()
    with RealtimeSegmentation(checkpoint) as session:
        assert session.info.backend == "pytorch"
        assert session.classes == CLASSES
        assert np.array_equal(session.infer(frame), expected)
        assert session.manifest.model.data_licence == "CC0"


def test_a_network_that_began_with_imagenet_says_so_beside_the_licence_of_its_data(
    tmp_path: Path,
) -> None:
    info = dataclasses.replace(INFO, training={"init_licence": "weights of ImageNet"})
    save_checkpoint(tmp_path / "m.safetensors", FastSegNet(len(CLASSES), "nano"), info)
    assert describe(tmp_path / "m.safetensors").model.data_licence == "CC0; weights of ImageNet"


def test_a_plain_state_dict_runs_with_numbered_classes(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pth"
    torch.save(FastSegNet(5, "nano").state_dict(), path)
    with RealtimeSegmentation(model_path=path, backend="pytorch", device="cpu") as session:
        assert [entry.name for entry in session.classes][-1] == "class_4"
        classes = session.infer(noise(50, 60))
    assert classes.shape == (50, 60)
    assert classes.max() < 5


def test_a_file_with_code_in_it_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"weights": print}, path)
    with pytest.raises(CheckpointError, match="not a state dict that loads safely"):
        RealtimeSegmentation(path)


def test_a_device_that_is_not_there_is_named(checkpoint: Path) -> None:
    with pytest.raises(RuntimeError, match="(?i)device|mps"):
        RealtimeSegmentation(checkpoint, device="mps")
