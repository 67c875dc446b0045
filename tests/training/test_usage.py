"""The use that weights allow is inherited: from data, a start, a teacher; never loosened."""

from pathlib import Path

import pytest
from fastseg_runtime.bundle.manifest import numbered_classes
from fastseg_training.build_network import Start
from fastseg_training.build_trainer import build_trainer
from fastseg_training.config import ConfigError, TrainConfig

from fastseg import CheckpointInfo, FastSegNet, Network, open_network, save_checkpoint

TINY = "synthetic:size=96x64,train=8,val=2"


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, str]:
    """A checkpoint of each usage, "" for no start at all."""
    files = {}
    for usage in ("commercial", "research", "not stated"):
        path = tmp_path / f"{usage}.safetensors"
        stated = usage if usage != "not stated" else ""
        info = CheckpointInfo("nano", numbered_classes(11), usage=stated)
        save_checkpoint(path, FastSegNet(11, "nano"), info)
        files[usage] = str(path)
    return files | {"": ""}


@pytest.mark.parametrize(
    ("kind", "said", "init", "teacher", "usage"),
    [
        ("synthetic", "", "", "", "commercial"),
        ("camvid", "", "", "", "research"),
        ("cityscapes", "commercial", "", "", "research"),
        ("folder", "", "", "", ""),
        ("folder", "commercial", "", "", "commercial"),
        ("folder", "research", "", "", "research"),
        ("synthetic", "research", "", "", "research"),
        ("synthetic", "", "commercial", "commercial", "commercial"),
        ("synthetic", "", "research", "", "research"),
        ("synthetic", "", "", "research", "research"),
        ("synthetic", "commercial", "research", "", "research"),
        ("folder", "commercial", "", "research", "research"),
        ("folder", "commercial", "not stated", "", ""),
        ("synthetic", "commercial", "commercial", "not stated", ""),
        ("camvid", "", "not stated", "commercial", "research"),
    ],
)
@pytest.mark.parametrize("prune", [0.0, 0.5])
def test_the_strictest_of_data_start_and_teacher_wins(
    weights: dict[str, str], kind: str, said: str, init: str, teacher: str, usage: str, prune: float
) -> None:
    config = TrainConfig(
        model="nano", usage=said, init=weights[init], teacher=weights[teacher], prune=prune
    )
    assert Start(config).usage(kind) == usage


@pytest.mark.parametrize(("said", "usage"), [("", ""), ("commercial", "commercial")])
def test_of_a_network_of_ones_own_only_the_user_knows(said: str, usage: str) -> None:
    assert Start(TrainConfig(model="nets:unet", usage=said)).usage("synthetic") == usage


def test_a_file_of_weights_for_a_backbone_states_nothing_unless_it_is_ours(
    weights: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "imagenet.pth").write_bytes(b"whatever")
    for init, usage in ((str(tmp_path / "imagenet.pth"), ""), (weights["research"], "research")):
        config = TrainConfig(model="mobilenetv2", init=init)
        assert Start(config).usage("synthetic") == usage


def test_another_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="usage is 'free'; expected commercial or research"):
        TrainConfig(usage="free")


def test_a_training_says_and_writes_what_its_weights_may_be_used_for(
    weights: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(
        data=TINY, model="nano", crop="64x64", batch=4, init=weights["research"], usage="commercial"
    )
    trainer = build_trainer(config, tmp_path / "run")
    assert trainer.run is not None and trainer.run.info.usage == "research"
    assert "weights of this training: research use only" in capsys.readouterr().err


def test_the_file_that_a_training_starts_from_is_opened_once(
    weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def noted(spec: str) -> Network:
        opened.append(spec)
        return open_network(spec)

    monkeypatch.setattr("fastseg_training.build_network.open_network", noted)
    config = TrainConfig(data=TINY, model="nano", crop="64x64", init=weights["research"], prune=0.1)
    build_trainer(config, tmp_path / "run")
    assert opened == [weights["research"]]
