import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

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


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]
