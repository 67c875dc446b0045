"""What a checkpoint says of its own use, old ones and shipped ones too."""

import dataclasses
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from fastseg_runtime.bundle.manifest import METADATA_KEY, ClassInfo, numbered_classes
from fastseg_runtime.engines.backend_pytorch import manifest_of
from safetensors import safe_open
from safetensors.torch import save_file

from fastseg import (
    CheckpointError,
    CheckpointInfo,
    FastSegNet,
    load_checkpoint,
    open_network,
    pretrained,
    save_checkpoint,
)
from fastseg.checkpoint import HEADER_KEY, usage_of_data, usage_of_weights
from tests.doubles.own_onnx import CLASSES, own_onnx

INFO = CheckpointInfo("nano", numbered_classes(2))


def saved(path: Path, table: dict[str, object]) -> Path:
    """Write a checkpoint whose header is a table."""
    weights = FastSegNet(2, "nano", auxiliary=False).state_dict()
    save_file(weights, path, {HEADER_KEY: json.dumps(table)})
    return path


@pytest.mark.parametrize("usage", ["commercial", "research", ""])
def test_a_checkpoint_carries_its_usage(tmp_path: Path, usage: str) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, FastSegNet(2, "nano"), dataclasses.replace(INFO, usage=usage))
    assert load_checkpoint(path)[1].usage == usage_of_weights(path) == usage


@pytest.mark.parametrize("usage", ["Commercial", "any", 1, None, ["commercial"], "research "])
def test_another_word_is_refused(tmp_path: Path, usage: object) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        dataclasses.replace(INFO, usage=usage)  # type: ignore[arg-type]
    path = saved(tmp_path / "a.safetensors", dataclasses.asdict(INFO) | {"usage": usage})
    with pytest.raises(CheckpointError, match="usage"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("trained_on", "training", "usage"),
    [
        ("camvid train", {}, "research"),
        ("cityscapes trainval", {"init": ""}, "research"),
        ("synthetic train", {"init": "", "teacher": ""}, "commercial"),
        ("synthetic-lanes train", {}, "commercial"),
        ("synthetic train", {"init": "nano-synthetic"}, ""),
        ("synthetic train", {"init": "small-camvid"}, "research"),
        ("folder train", {"teacher": "camvid-base"}, "research"),
        ("folder train", {}, ""),
        ("", {}, ""),
    ],
)
def test_an_old_checkpoint_is_judged_by_its_data_and_its_start(
    tmp_path: Path, trained_on: str, training: dict[str, str], usage: str
) -> None:
    table = dataclasses.asdict(INFO) | {"trained_on": trained_on, "training": training}
    del table["usage"]
    path = saved(tmp_path / "old.safetensors", table)
    assert load_checkpoint(path)[1].usage == usage


def test_a_state_dict_and_a_missing_file_state_nothing(tmp_path: Path) -> None:
    torch.save(FastSegNet(2, "nano").state_dict(), tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth")[1].usage == ""
    assert usage_of_weights(tmp_path / "a.pth") == usage_of_weights(tmp_path / "none") == ""


def test_a_network_of_ones_own_takes_it_from_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_net.py").write_text("import torch\ndef net(): return torch.nn.Conv2d(3, 2, 1)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    info = dataclasses.replace(INFO, variant="my_net:net", usage="research")
    save_checkpoint(tmp_path / "w.safetensors", torch.nn.Conv2d(3, 2, 1), info)
    torch.save(torch.nn.Conv2d(3, 2, 1).state_dict(), tmp_path / "w.pth")
    for weights, usage in ((tmp_path / "w.safetensors", "research"), (tmp_path / "w.pth", "")):
        assert open_network("my_net:net", info.classes, weights).info.usage == usage
    assert open_network("my_net:net", info.classes).info.usage == ""


@pytest.mark.parametrize("named", [None, numbered_classes(CLASSES)])
def test_an_onnx_file_that_we_wrote_says_what_the_checkpoint_before_it_did(
    tmp_path: Path, named: tuple[ClassInfo, ...] | None
) -> None:
    said = {
        "usage": "research",
        "data_licence": "CamVid: research use",
        "trained_on": "camvid trainval",
        "fit": "letterbox",
    }
    info = CheckpointInfo("nano", numbered_classes(CLASSES), **said)  # type: ignore[arg-type]
    save_checkpoint(tmp_path / "a.safetensors", FastSegNet(CLASSES, "nano"), info)
    model = own_onnx(picture="uint8")
    manifest = manifest_of(open_network(tmp_path / "a.safetensors"))
    onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.save(model, tmp_path / "a.onnx")
    found = open_network(tmp_path / "a.onnx", named).info
    assert {key: getattr(found, key) for key in said} == said
    assert open_network(tmp_path / "a.onnx", named, fit="stretch").info.fit == "stretch"


def test_the_data_decide_what_is_known() -> None:
    kinds = ("camvid", "cityscapes", "synthetic", "synthetic-crops", "folder", "coco", "yolo")
    assert [usage_of_data(kind) for kind in kinds] == [
        *["research"] * 2,
        *["commercial"] * 2,
        *[""] * 3,
    ]


@pytest.mark.parametrize("name", pretrained.names())
def test_the_shipped_weights_say_their_use_in_their_own_header(name: str) -> None:
    path = pretrained.find(name)
    assert path is not None
    with safe_open(path, framework="pt") as file:
        table = json.loads(file.metadata()[HEADER_KEY])
    assert table["usage"] == ("commercial" if name == "nano-synthetic" else "research")


def test_a_licence_lies_beside_the_shipped_weights_and_names_each() -> None:
    text = (pretrained.FOLDER / "LICENSE-WEIGHTS").read_text("utf-8")
    for name in pretrained.names():
        assert f"{name}.safetensors" in text


@pytest.mark.slow
def test_the_wheel_states_both_licences_and_carries_their_texts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    assert "License-Expression: MIT AND LicenseRef-fastseg-weights\n" in metadata
    assert "fastseg/weights/LICENSE-WEIGHTS" in names
    for text in ("LICENSE", "fastseg/weights/LICENSE-WEIGHTS"):
        assert f"License-File: {text}\n" in metadata
        assert any(name.endswith(f".dist-info/licenses/{text}") for name in names)
