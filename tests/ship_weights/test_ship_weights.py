"""The tool that ships weights, on tiny runs and generated data."""

import dataclasses
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from fastseg_training.config import SHIPPED, TrainConfig, dump_config, load_config

from fastseg import (
    CheckpointInfo,
    FastSegNet,
    load_checkpoint,
    open_network,
    pretrained,
    save_checkpoint,
)
from fastseg.data import open_dataset

ROOT = Path(__file__).parents[2]
DATA = "synthetic:size=96x64,test=3"
TRAINING = {
    "seed": 3,
    "epochs": 60.0,
    "torch": "2",
    "init": "",
    "teacher": "",
    "data": "/home/me/x",
}


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, with weights and cards in a folder of the test's own."""
    monkeypatch.syspath_prepend(ROOT / "tools" / "ship_weights")
    module = importlib.import_module("ship_weights")
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(module, "CARDS", tmp_path / "models.md")
    return module


def make_run(folder: Path, **changes: object) -> Path:
    """Write the folder of a run: an untrained nano that says it is finished."""
    run = folder / "run"
    run.mkdir()
    config = TrainConfig(data="synthetic", model="nano", epochs=60, threads=1, seed=3)
    (run / "config.toml").write_text(dump_config(dataclasses.replace(config, **changes)))
    dataset = open_dataset(DATA, "test")
    torch.manual_seed(0)
    model = FastSegNet(len(dataset.classes), "nano")
    info = CheckpointInfo(
        "nano", dataset.classes, 96, 64, trained_on="synthetic train",
        data_licence=dataset.licence, training=TRAINING | {"finished": True},
    )  # fmt: skip
    save_checkpoint(run / "model.safetensors", model, info)
    return run


def test_a_run_ships_in_half_precision_with_its_scores_command_and_card(
    tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run(tmp_path)
    words = ["ship_weights.py", str(run), "--name", "nano-synthetic", "--data", DATA]
    monkeypatch.setattr(sys, "argv", words)
    tool.main()
    shipped = tmp_path / "weights" / "nano-synthetic.safetensors"
    assert shipped.stat().st_size < 0.6 * (run / "model.safetensors").stat().st_size
    _, info = load_checkpoint(shipped)
    assert info.training["command"] == (
        "fastseg-train --config synthetic-nano --data synthetic --seed 3"
    )
    assert info.evaluation["images"] == 3
    assert info.evaluation["miou"] == pytest.approx(info.evaluation["float32_miou"], abs=5e-4)
    assert "/home" not in shipped.read_bytes()[:20000].decode("latin1")
    page = (tmp_path / "models.md").read_text()
    assert "## nano-synthetic" in page and "Not good for: Real pictures" in page
    assert (
        "| `nano-synthetic`, the default | 0.4" in page
        and "`, the default |" in capsys.readouterr().out
    )


def test_a_run_that_no_configuration_reproduces_is_refused(
    tool: ModuleType, tmp_path: Path
) -> None:
    run = make_run(tmp_path, lr=0.123)
    with pytest.raises(tool.NotShippedError, match="so that others can train the same"):
        tool.ship(run, "nano-synthetic", DATA)
    assert pretrained.names() == []


def test_weights_that_lose_by_rounding_are_refused(tool: ModuleType, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    model, info = load_checkpoint(run / "model.safetensors")
    with torch.no_grad():
        model.head[1].bias[:2] = torch.tensor([7e4, 8e4])  # beyond float16: both become infinite
    save_checkpoint(run / "model.safetensors", model, info)
    with pytest.raises(tool.NotShippedError, match="in float32"):
        tool.ship(run, "nano-synthetic", DATA)
    assert list(pretrained.FOLDER.iterdir()) == []


def test_an_unfinished_run_is_refused(tool: ModuleType, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    model, info = load_checkpoint(run / "model.safetensors")
    unfinished = dataclasses.replace(info, training=TRAINING | {"finished": False})
    save_checkpoint(run / "model.safetensors", model, unfinished)
    with pytest.raises(tool.NotShippedError, match="not finished"):
        tool.ship(run, "nano-synthetic", DATA)


def test_the_page_of_models_is_that_of_the_networks_that_ship(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    networks = [tool.open_network(name) for name in pretrained.names()]
    page = (ROOT / "docs" / "models.md").read_text("utf-8")
    assert page == tool.render_page(networks, pretrained.FOLDER)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_whatever_a_configuration_starts_from_is_one_that_ships(
    tool: ModuleType, path: Path
) -> None:
    config = load_config(path, {})
    chain = list(tool.trained_before(config))
    for stem in chain:
        earlier = chain[: chain.index(stem)]
        assert set(tool.trained_before(load_config(SHIPPED / f"{stem}.toml", {}))) <= set(earlier)


def test_a_card_names_all_trainings_that_its_network_is_made_of(tool: ModuleType) -> None:
    network = open_network(ROOT / "fastseg" / "weights" / "lite-camvid.safetensors")
    card = tool.render_card(network)
    for stem in ("camvid-lite-640", "camvid-lite-long --unlabelled FRAMES", "camvid-lite-longer"):
        assert f"`--config {stem}" in card
    training = network.info.training | {"mean_with": ["f00d"]}
    mean = dataclasses.replace(network, info=dataclasses.replace(network.info, training=training))
    assert "the mean with 1 more" in tool.render_card(mean) and "the mean with" not in card


def test_a_network_of_which_nobody_said_on_what_terms_it_stands_is_refused(
    tool: ModuleType, tmp_path: Path
) -> None:
    run = make_run(tmp_path)
    for name, data in (("nano-lanes", "folder:lanes"), ("nano-camvid-cs", DATA)):
        with pytest.raises(tool.NotShippedError, match="TERMS and LIMITS"):
            tool.ship(run, name, data)
    assert not (tmp_path / "weights").exists()
