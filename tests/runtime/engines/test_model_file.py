from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from fastseg_runtime.arrays.image import encode_rgb
from fastseg_runtime.cli.main import main
from fastseg_runtime.engines import model_file

from fastseg import CheckpointInfo, FastSegNet, save_checkpoint
from tests.doubles.tiny_bundle import CLASSES, full_plan, noise


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder of a workstation's package; empty."""
    spec = ModuleSpec("fastseg", None, origin=str(tmp_path / "fastseg/__init__.py"))
    monkeypatch.setattr(model_file, "find_spec", lambda name: spec)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "fastseg/weights"
    folder.mkdir(parents=True)
    return folder


def test_the_preferred_network_is_taken_unless_one_is_named(weights: Path) -> None:
    for name in ("nano-synthetic", "small-camvid"):
        (weights / f"{name}.safetensors").touch()
    assert model_file.find_shipped().stem == "small-camvid"
    assert model_file.find_shipped("nano-synthetic").stem == "nano-synthetic"


def test_a_device_without_the_package_is_told_what_to_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_file, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"no bundle named.*fastseg-export"):
        model_file.find_shipped()
    with pytest.raises(FileNotFoundError, match=r"base-camvid: no such file"):
        model_file.find_shipped("base-camvid")


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


@pytest.mark.parametrize(("usage", "code"), [("commercial", 0), ("research", 1), ("", 1)])
def test_weights_that_are_not_for_the_required_use_are_refused_before_anything_runs(
    usage: str, code: int, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = CheckpointInfo("nano", CLASSES, 64, 32, usage=usage)
    save_checkpoint(weights / "nano-camvid.safetensors", FastSegNet(len(CLASSES), "nano"), info)
    Path("a.png").write_bytes(encode_rgb(noise(32, 64)))
    with pytest.raises(SystemExit) as stopped:
        main(["a.png", "-o", "out", "--require-usage", "commercial"])
    assert (stopped.value.code or 0) == code
    assert Path("out").exists() == (code == 0)
    if code:
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("fastseg-run: ") and "--require-usage commercial was given" in last


@pytest.mark.parametrize(
    "command", [["--verify"], ["--extract", "cpu-fp32"], ["--inspect"], ["--doctor"]]
)
def test_a_bundle_is_refused_by_every_command_that_takes_the_requirement(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = full_plan().write(tmp_path / "tiny.fastseg")
    with pytest.raises(SystemExit) as stopped:
        main([str(bundle), *command, "-o", str(tmp_path / "x"), "--require-usage", "commercial"])
    assert stopped.value.code == 1
    assert "tiny.fastseg: use not stated, --require-usage" in capsys.readouterr().err
