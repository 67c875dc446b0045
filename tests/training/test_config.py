import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fastseg_training.config import (
    SHIPPED,
    ConfigError,
    TrainConfig,
    dump_config,
    find_config,
    load_config,
)

CONFIGS = sorted(SHIPPED.glob("*.toml"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_options_go_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", 'model = "nano"\nepochs = 7\n[recipe]\nema_decay = 0.9\n')
    config = load_config(path, {"model": "small"})
    assert (config.model, config.epochs, config.batch) == ("small", 7.0, TrainConfig().batch)
    assert config.recipe.ema_decay == 0.9
    assert config.recipe.decay == "cosine"


def test_a_written_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = dataclasses.replace(TrainConfig(), data="synthetic", lr=0.125, minutes=2.0)
    path = write(tmp_path / "config.toml", dump_config(config))
    assert load_config(path, {}) == config
    for weights in ({"Pole, 1.2 m": 5.0}, [1.0, 2.0]):
        loss = dataclasses.replace(config.loss, class_weights=weights)
        recipe = dataclasses.replace(config.recipe, rates={"stage_8.0": 0.1})
        varied = dataclasses.replace(config, loss=loss, recipe=recipe)
        assert load_config(write(path, dump_config(varied)), {}) == varied


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"unknown keys \['epoch'\]; valid keys are .*'epochs'"),
        ("[recipe]\nmomentum = 0.9", r"unknown keys \['momentum'\]"),
        ('epochs = "ten"', "epochs: expected int or float, got 'ten'"),
        ("batch = 2.5", "batch: expected int, got 2.5"),
        ("batch = true", "batch: expected int, got True"),
        ("batch = 0", "batch is 0; expected more than 0"),
        ('split = "trainval"\nholdout = "b"', "holdout takes from split train"),
        ('crop = "300x300"', "multiples of 32"),
        ('crop = "big"', "write WxH"),
        ('[recipe]\ndecay = "step"', "choose one of .*'cosine'"),
        ("[recipe]\nloss_stride = 3", "choose 1, 2, 4 or 8"),
        ('size = "8x7"', "8x7 is too small; expected 8 pixels or more"),
        ("threshold = 1.0", "threshold is 1.0; expected more than 0, less than 1"),
        ('usage = "free"', "expected commercial or research"),
        ('[loss]\nformula = "tversky"', "cannot read 'tversky'; write a sum of"),
        ('[loss]\nclass_weights = "some"', "choose one of enet"),
        ("[distillation]\ntemperature = 0", "temperature is 0.0; expected more than 0"),
        ("[distillation]\nlogit_weight = -1", "logit_weight is -1.0; expected 0 or more"),
        ("minutes = -1", "minutes is -1.0; expected 0 or more"),
        ("[augmentation]\nscale_min = 0", "scale_min is 0.0, .* expected more than 0"),
        ("[augmentation]\nscale_min = 3", "scale_min is 3.0, scale_max 2.0; .* larger one last"),
        ("[augmentation]\nblur_sigma = 0.29", "blur_sigma is 0.29; expected 0.3 or more"),
        ("[augmentation]\nbrightness = -0.1", "brightness is -0.1; expected 0 or more"),
        ("[recipe]\nclip_norm = 0", "clip_norm is 0.0; expected more than 0"),
        ("[recipe]\nbackbone_factor = -1", "backbone_factor is -1.0; expected more than 0"),
        ('[loss]\nformula = "ce+-1*dice"', "cannot read '-1[*]dice'; .* factors above 0"),
        ("[loss]\nenet_constant = 1.0", "enet_constant is 1.0; expected more than 1"),
        ("[recipe]\nema_decay = 1", "ema_decay is 1.0; expected 0 or more and less than 1"),
        ("[recipe]\nevaluations = -1", "evaluations is -1; expected 0 or more"),
        ("[unlabelled_frames]\nshare = 1.0", "more than 0 and less than 1"),
        ("[unlabelled_frames]\nmost = 0", "expected 1 or more"),
        ("epochs = ", "cannot read the configuration"),
    ],
)
def test_a_configuration_with_a_mistake_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path / "a.toml", text), {})


def test_a_missing_configuration_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        load_config(tmp_path / "nothing.toml", {})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_of_the_repository_loads(path: Path) -> None:
    is_of_no_data = path.stem == "few-pictures"
    assert (load_config(path, {}).data == "") == is_of_no_data


def test_the_command_in_the_header_names_no_folder_of_this_machine() -> None:
    options: dict[str, Any] = {"data": "camvid:/home/me/camvid", "model": "nano", "epochs": 50.0}
    config = dataclasses.replace(TrainConfig(), **options, init="/home/me/a.safetensors")
    assert config.command() == (
        "fastseg-train --data camvid:PATH --model nano --init a.safetensors --epochs 50"
    )


@pytest.mark.parametrize(
    "text", ['holdout = "0006R0"', "[recipe]\nema_decay = 0.9", '[loss]\nformula = "dice"']
)
def test_the_command_names_the_runs_configuration_for_what_no_option_says(
    text: str, tmp_path: Path
) -> None:
    written = write(tmp_path / "a.toml", f'data = "synthetic"\nkeep_best = true\n{text}')
    command = load_config(written, {}).command()
    assert command == "fastseg-train --data synthetic --keep-best --config config.toml"


def test_values_at_the_edge_of_what_is_refused_are_taken(tmp_path: Path) -> None:
    text = (
        'size = "8x8"\nthreshold = 0.99\nminutes = 0\n[unlabelled_frames]\nshare = 0.99\nmost = 1\n'
    )
    text += "[augmentation]\nscale_min = 2\nblur_sigma = 0.3\n[recipe]\nema_decay = 0\n"
    config = load_config(write(tmp_path / "a.toml", text), {"crop": "32x32", "batch": 1})
    assert (config.size, config.unlabelled_frames.most) == ("8x8", 1)


def test_a_configuration_that_ships_goes_by_its_name_and_a_file_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = SHIPPED / "camvid-small.toml"
    for name in ("camvid-small", "camvid-small.toml"):
        assert find_config(Path(name)) == shipped
    with pytest.raises(ConfigError, match="no file camvid-smal, .* there are .*camvid-small, "):
        find_config(Path("camvid-smal"))
    assert find_config(Path("mine/camvid-small")) == Path("mine/camvid-small")  # and is not there
    (tmp_path / "camvid-nano").mkdir()
    assert find_config(Path("camvid-nano")) == SHIPPED / "camvid-nano.toml"
    write(tmp_path / "camvid-small", 'model = "nano"')
    assert load_config(find_config(Path("camvid-small")), {}).model == "nano"
