from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from fastseg_runtime import shipped
from fastseg_runtime.cli import main
from fastseg_runtime.image_files import encode_rgb

from fastseg import CheckpointInfo, FastSegNet, save_checkpoint
from tests.doubles.tiny_bundle import CLASSES, noise


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder of a workstation's package; empty."""
    spec = ModuleSpec("fastseg", None, origin=str(tmp_path / "fastseg/__init__.py"))
    monkeypatch.setattr(shipped, "find_spec", lambda name: spec)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "fastseg/weights"
    folder.mkdir(parents=True)
    return folder


def test_the_preferred_network_is_taken_unless_one_is_named(weights: Path) -> None:
    for name in ("nano-synthetic", "small-camvid"):
        (weights / f"{name}.safetensors").touch()
    assert shipped.find_shipped().stem == "small-camvid"
    assert shipped.find_shipped("nano-synthetic").stem == "nano-synthetic"


def test_a_device_without_the_package_is_told_what_to_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shipped, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"no bundle named.*fastseg-export"):
        shipped.find_shipped()
    with pytest.raises(FileNotFoundError, match=r"base-camvid: no such file"):
        shipped.find_shipped("base-camvid")


@pytest.mark.parametrize("words", [["a.png"], ["nano-camvid", "a.png"]])
def test_a_picture_alone_is_run_with_a_shipped_network_and_its_licence_is_told(
    words: list[str],
    weights: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    info = CheckpointInfo("nano", CLASSES, 64, 32, trained_on="noise", data_licence="CC0")
    save_checkpoint(weights / "nano-camvid.safetensors", FastSegNet(len(CLASSES), "nano"), info)
    caplog.set_level("INFO")
    Path("a.png").write_bytes(encode_rgb(noise(32, 64)))
    with pytest.raises(SystemExit) as stopped:
        main([*words, "-o", "out"])
    assert not stopped.value.code
    assert Path("out/a.overlay.png").exists()
    said = "no bundle named: taking nano-camvid\n"
    assert (said in capsys.readouterr().err) == (words == ["a.png"])
    assert "weights trained on noise; licence of the data: CC0" in caplog.text
