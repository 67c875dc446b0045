"""Files of other kinds where weights are expected: named by content, and never torch's advice."""

import re
from pathlib import Path

import pytest
import torch
from fastseg_runtime.bundle.manifest import numbered_classes
from torch import nn

from fastseg import CheckpointError, CheckpointInfo, FastSegNet, load_checkpoint, open_network
from fastseg.checkpoint import read_state_dict, save_checkpoint
from fastseg.data import DataError
from fastseg.data.class_list import read_classes
from fastseg.imagenet_weights import load_backbone
from tests.doubles.foreign_files import FOREIGN, UNSAFE, each

TORCHS_ADVICE = re.compile(
    r"weights_only|arbitrary code|will likely succeed|trusted source|pickle_load"
)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize(("kind", "content"), each(FOREIGN, UNSAFE))
def test_a_foreign_file_is_named_by_its_content_in_one_line(
    tmp_path: Path, kind: str, content: bytes, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for read in (load_checkpoint, read_state_dict, open_network):
        with pytest.raises(CheckpointError) as refused:
            read(path)
        message = str(refused.value)
        assert message.startswith(f"{path} is {kind}")
        assert "\n" not in message
        assert not TORCHS_ADVICE.search(message)


def test_a_foreign_file_is_named_where_a_backbone_or_a_factory_takes_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_net.py").write_text(
        "import torch\ndef net(): return torch.nn.Conv2d(3, 2, 1)"
    )
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    path.write_bytes(UNSAFE["a torch file"][1]())
    said = f"{re.escape(str(path))} is a torch file, .* it holds torch.nn.modules.linear.Linear"
    with pytest.raises(CheckpointError, match=said):
        load_backbone(FastSegNet(2, "mobilenetv2"), path)
    with pytest.raises(CheckpointError, match=said):
        open_network("their_net:net", numbered_classes(2), path)


@pytest.mark.parametrize(("name", "other"), [("a.pth", "a.safetensors"), ("a.onnx", "a.pt")])
def test_weights_are_read_whatever_the_file_is_called(
    tmp_path: Path, name: str, other: str
) -> None:
    model = FastSegNet(2, "nano").eval()
    save_checkpoint(tmp_path / name, model, CheckpointInfo("nano", numbered_classes(2)))
    torch.save(model.state_dict(), tmp_path / other)
    for path in (tmp_path / name, tmp_path / other):
        assert load_checkpoint(path)[1].variant == "nano"


def test_a_folder_for_a_checkpoint_asks_for_the_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder; .* such as model\.safetensors"):
        open_network(tmp_path)


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights .*w\.pth"):
        read_state_dict(tmp_path / "w.pth")


def test_weights_of_another_shape_are_told_in_one_line(tmp_path: Path) -> None:
    info = CheckpointInfo("nano", numbered_classes(3))
    save_checkpoint(tmp_path / "a.safetensors", nn.Conv2d(3, 2, 1), info)
    with pytest.raises(CheckpointError, match=r"of its \d+ tensors \d+ missing \(") as refused:
        load_checkpoint(tmp_path / "a.safetensors")
    assert "2 unknown to it (bias)" in str(refused.value) or "(weight)" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_picture_for_a_class_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xff\xd8\xff\xe0" + bytes(9))
    with pytest.raises(DataError, match=r"classes\.txt: is a JPEG picture; expected lines"):
        read_classes(tmp_path / "classes.txt")
