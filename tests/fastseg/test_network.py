from pathlib import Path

import pytest
import torch
from torch import nn

from fastseg import CheckpointError, CheckpointInfo, FastSegNet, open_network, save_checkpoint
from fastseg.checkpoint import numbered_classes
from fastseg.network import check_logits

FACTORY = """
import torch

def small_net(num_classes):
    return torch.nn.Conv2d(3, num_classes, 3, padding=1)

def no_net():
    return 7

class Odd(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)

def three_classes():
    return torch.nn.Conv2d(3, 3, 3)

def other_names():
    return Odd(lambda x: {"seg": x, "aux": x})

def flat():
    return Odd(lambda x: x[0])

def text():
    return Odd(lambda x: ["logits"])

def of_one_size():
    return Odd(lambda x: x[:, :2] + torch.zeros(1, 2, 32, 32))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "their_nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_factory_of_the_current_folder_gives_a_network_with_its_weights(project: Path) -> None:
    weights = nn.Conv2d(3, 4, 3).state_dict()
    torch.save(weights, project / "w.pth")
    network = open_network(
        "their_nets:small_net", numbered_classes(4), project / "w.pth", size=(64, 48)
    )
    torch.testing.assert_close(network.model.state_dict()["weight"], weights["weight"])
    assert (network.info.width, network.info.height) == (64, 48)
    assert network.name == "small_net"


def test_a_factory_without_classes_asks_for_them(project: Path) -> None:
    with pytest.raises(CheckpointError, match="--classes FILE"):
        open_network("their_nets:small_net")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("their_nets:absent", "cannot import their_nets:absent"),
        ("absent.module:f", "cannot import absent.module:f"),
        ("their_nets:no_net", "returned int, expected a torch.nn.Module"),
    ],
)
def test_a_factory_that_cannot_serve_is_refused(project: Path, spec: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_network(spec, numbered_classes(2))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three_classes", "three_classes tells 3 classes apart, expected 2; .* num_classes"),
        ("other_names", r"gives seg: .1, 3, 48, 64., aux: .*none can be the logits"),
        ("flat", r"gives \(3, 48, 64\); expected logits \(N, classes, height, width\)"),
        ("text", "gives str; expected logits"),
        ("of_one_size", "of_one_size, tried at 64x48: .* must match the size"),
    ],
)
def test_a_network_without_logits_for_each_class_is_refused(
    project: Path, name: str, message: str
) -> None:
    spec = f"their_nets:{name}"
    model = open_network(spec, numbered_classes(2)).model
    with pytest.raises(CheckpointError, match=message):
        check_logits(spec, model, 2, (64, 48))


def test_weights_that_do_not_fit_are_refused(project: Path) -> None:
    torch.save(nn.Conv2d(3, 5, 3).state_dict(), project / "w.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        open_network("their_nets:small_net", numbered_classes(4), project / "w.pth")


def test_a_run_is_named_after_its_folder_and_hashed_by_its_weights(tmp_path: Path) -> None:
    model = FastSegNet(2, "nano")
    info = CheckpointInfo("nano", numbered_classes(2))
    for run in ("street", "copy"):
        (tmp_path / run).mkdir()
        save_checkpoint(tmp_path / run / "model.safetensors", model, info)
    street, copy = (
        open_network(tmp_path / run / "model.safetensors") for run in ("street", "copy")
    )
    assert street.name == "street"
    assert street.sha256 == copy.sha256
    with torch.no_grad():
        model.head[1].bias.add_(1)
    save_checkpoint(tmp_path / "copy/model.safetensors", model, info)
    assert open_network(tmp_path / "copy/model.safetensors").sha256 != street.sha256
