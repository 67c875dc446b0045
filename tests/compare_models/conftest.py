import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from fastseg_runtime.bundle.manifest import ClassInfo

from fastseg import CheckpointInfo, FastSegNet, save_checkpoint

DATA = "synthetic:size=96x64,train=4,val=2,test=4"
MAP = """
teacher = ["grass", "sky", "cloud", "tarmac"]
[classes]
Sky = ["sky", "cloud"]
Road = ["tarmac"]
"""
NETWORKS = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=4, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, num_classes, 1)
        self.auxiliary = nn.Conv2d(8, num_classes, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.down(x)))
        return [self.head(x), self.auxiliary(x)]

def tiny(num_classes=19):
    torch.manual_seed(1)
    return Tiny(num_classes)
"""


@pytest.fixture
def rival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The spec of somebody else's network, with an auxiliary head, in the current folder."""
    (tmp_path / "rival_nets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "rival_nets:tiny"
    sys.modules.pop("rival_nets", None)


@pytest.fixture
def rival_file(rival: str, tmp_path: Path) -> str:
    """A network of others with four classes of its own, two of which are no class of the data."""
    lines = [f'network = "{rival}"', 'size = "64x32"', 'class_map = "map.toml"']
    folder = tmp_path / "rivals"  # paths in the file are relative to it, not to where one stands
    folder.mkdir()
    (folder / "map.toml").write_text(MAP)
    (folder / "theirs.toml").write_text("\n".join([*lines, 'output_name = "0"']))
    return "rivals/theirs.toml"


def save_nano(path: Path, classes: tuple[ClassInfo, ...]) -> str:
    """Write an untrained network of some classes; return its path."""
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(path, FastSegNet(len(classes), "nano"), CheckpointInfo("nano", classes, 96, 64))
    return str(path)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]
