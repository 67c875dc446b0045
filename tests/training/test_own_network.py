"""A network of one's own in training: what it takes and gives reaches loader and checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastseg_runtime.bundle.manifest import ClassInfo, numbered_classes
from fastseg_training import SegmentationTrainer
from fastseg_training.batches.loader import check_pictures
from fastseg_training.build_trainer import build_trainer
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.evaluate import predict, score_network
from fastseg_training.run_folder import RunFolder
from fastseg_training.supervision import AllHeads

from fastseg import CheckpointError, CheckpointInfo, FastSegNet, open_network, save_checkpoint
from fastseg.checkpoint import read_info
from fastseg.data import open_dataset
from fastseg.normalization import NAMED, Normalization
from fastseg.outputs import Reading

DATA = "synthetic:size=64x64,train=2,val=1,test=1"
CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.aux = (nn.Conv2d(3, num_classes, 3, 2, 1) for _ in "ab")
    def forward(self, x):
        type(self).seen = x
        return self.conv(x)

class Two(Net):
    def forward(self, x):
        type(self).seen = x
        return [self.aux(x), self.conv(x)]

class Softmaxed(Net):
    def forward(self, x):
        return self.conv(x).softmax(1)

class InPlace(Net):
    def forward(self, x):
        y = self.conv(x).relu()
        z = self.aux(x) * y
        y += 1
        return z + y

class Broken(Net):
    def forward(self, x):
        if self.training:
            raise KeyError("features")
        return self.conv(x)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def classes_of() -> tuple[ClassInfo, ...]:
    return open_dataset(DATA, "train").classes


def config(model: str, **options: Any) -> TrainConfig:
    fixed = {"data": DATA, "epochs": 2, "batch": 2, "crop": "64x64", "threads": 1, "device": "cpu"}
    return TrainConfig(model=model, **fixed, **options)


def test_what_the_loader_uses_is_in_the_checkpoint_and_comes_back(project: Path) -> None:
    folder = project / "run"
    folder.mkdir()
    trainer = build_trainer(config("own_nets:Net", normalization="imagenet", color="bgr"), folder)
    trainer.train()
    info = read_info(folder / "model.safetensors")
    assert info is not None and info.normalization is not None
    assert info.normalization.color == "bgr"
    assert info.normalization.mean == (0.406, 0.456, 0.485)
    again = open_network("own_nets:Net", weights=folder / "model.safetensors")
    assert again.info.normalization == info.normalization
    assert again.info.classes == info.classes
    assert 0 <= score_network(again, DATA, "test").miou <= 1
    with pytest.raises(CheckpointError, match="was trained with B .*, not with R"):
        weights = folder / "model.safetensors"
        open_network("own_nets:Net", weights=weights, normalization=NAMED["unit"])


def test_the_chosen_output_and_the_threshold_come_back_with_the_weights(project: Path) -> None:
    model = open_network("own_nets:Two", classes_of(), output_name="1").model
    info = CheckpointInfo("own_nets:Two", classes_of(), output_name="1", threshold=0.3)
    save_checkpoint("two.safetensors", model, info)
    again = open_network("own_nets:Two", weights=Path("two.safetensors"))
    assert (again.output_name, again.threshold) == ("1", 0.3)
    chosen = {"output_name": "0", "threshold": 0.6}
    other = open_network("own_nets:Two", weights=Path("two.safetensors"), **chosen)
    assert (other.output_name, other.threshold) == ("0", 0.6)
    trainer = build_trainer(config("own_nets:Two", output_name="1"), project / "run")
    assert trainer.run is not None and trainer.run.info.output_name == "1"


def test_training_goes_on_with_what_the_weights_were_trained_with(project: Path) -> None:
    model = open_network("own_nets:Net", classes_of()).model
    info = CheckpointInfo("own_nets:Net", classes_of(), normalization=NAMED["unit"])
    save_checkpoint("unit.safetensors", model, info)
    chosen = config("own_nets:Net", init="unit.safetensors")
    trainer = build_trainer(chosen, project / "run")
    assert trainer.run is not None and trainer.run.info.normalization == NAMED["unit"]
    with pytest.raises(ConfigError, match="was trained with"):
        build_trainer(
            config("own_nets:Net", init="unit.safetensors", normalization="imagenet"), project
        )


def test_training_starts_from_a_network_that_ships_by_its_name(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "ours.py").write_text(
        "from fastseg import FastSegNet\n"
        "def nano(num_classes):\n    return FastSegNet(num_classes, 'nano', False)\n"
    )
    trainer = build_trainer(config("ours:nano", init="nano-camvid"), project / "run")
    assert "nano-camvid: " in capsys.readouterr().err
    assert trainer.run is not None and trainer.run.info.usage == "research"
    assert trainer.run.info.training["init"] == "nano-camvid"
    again = open_network("ours:nano", weights=Path("nano-camvid"))
    assert again.info.usage == "research" and len(again.info.classes) == 11
    with pytest.raises(CheckpointError, match="no file pico-camvid; .* nano-camvid"):
        open_network("ours:nano", weights=Path("pico-camvid"))
    with pytest.raises(CheckpointError, match="no file pico-camvid; .* nano-camvid"):
        build_trainer(config("ours:nano", init="pico-camvid"), project / "run")


def test_a_named_output_is_trained_and_the_other_one_helps(project: Path) -> None:
    with pytest.raises(CheckpointError, match="say which are, such as --output-name"):
        build_trainer(config("own_nets:Two"), project / "run")
    (project / "run").mkdir()
    trainer = build_trainer(config("own_nets:Two", output_name="1"), project / "run")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    image_13HW = torch.randn(1, 3, 32, 32)
    expected = trainer.model.eval()(image_13HW)[1].argmax(1)
    with torch.no_grad():
        logits_NKhw = trainer.reading.logits(trainer.model(image_13HW), image_13HW)
    assert torch.equal(logits_NKhw.argmax(1), expected)
    assert predict(trainer.model, image_13HW, reading=trainer.reading).shape == (1, 32, 32)


def test_one_logit_is_trained_as_two_classes() -> None:
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 1, 1)
    image_N3HW = torch.randn(4, 3, 32, 32)
    label_NHW = (image_N3HW[:, 0] > 0).long()
    trainer = SegmentationTrainer(
        model, [(image_N3HW, label_NHW)], [(image_N3HW, label_NHW)], 2, 0.1, 60, device="cpu"
    )
    evaluation = trainer.train()
    assert evaluation is not None and evaluation.miou > 0.9
    probability_NHW = model(image_N3HW).sigmoid()[:, 0]
    assert ((probability_NHW > 0.5) == label_NHW).float().mean() > 0.9


def test_heads_are_the_outputs_with_as_many_classes() -> None:
    class PID(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x[:, :2] + 1, x[:, :2], x[:, :1]]

    image_N3HW = torch.randn(1, 3, 8, 8)
    main, *others = AllHeads(PID(), Reading(2, "1"))(image_N3HW)
    assert torch.equal(main, image_N3HW[:, :2])
    assert len(others) == 1 and torch.equal(others[0], main + 1)


def test_probabilities_are_refused_in_training(project: Path) -> None:
    with pytest.raises(CheckpointError, match="leave the softmax out"):
        build_trainer(config("own_nets:Softmaxed"), project / "run")


def test_an_error_in_the_networks_training_mode_is_one_line_with_its_place(project: Path) -> None:
    trainer = build_trainer(config("own_nets:Broken"), project / "run")
    trainer.run = None
    with pytest.raises(CheckpointError, match=r"KeyError: 'features' \(.*own_nets.py:\d+\)"):
        trainer.train()


def test_a_map_changed_in_place_is_one_line_that_says_what_to_write(project: Path) -> None:
    trainer = build_trainer(config("own_nets:InPlace"), project / "run")
    trainer.run = None
    with pytest.raises(CheckpointError, match=r"in place.* write x = x \+ y.*torch says:"):
        trainer.train()


def test_options_of_ones_own_network_are_refused_for_ours() -> None:
    with pytest.raises(ConfigError, match="for a network of your own; nano takes"):
        build_trainer(config("nano", normalization="imagenet"), Path("run"))


def test_a_teacher_that_takes_other_pictures_is_given_its_own(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(project / "cache"))
    classes = classes_of()
    teacher = FastSegNet(len(classes), "nano")
    save_checkpoint("teacher.safetensors", teacher, CheckpointInfo("nano", classes))
    build_trainer(
        config("own_nets:Net", normalization="imagenet", teacher="teacher.safetensors"),
        project / "run",
    )
    (record,) = (project / "cache").rglob("teacher.json")
    assert "R (x - 128) / 64" in record.read_text()


def pictures(normalization: Normalization) -> torch.Tensor:
    rng = np.random.default_rng(0)
    bytes_NHW3 = torch.from_numpy(rng.integers(0, 256, (2, 64, 64, 3), np.uint8))
    return normalization.normalise(bytes_NHW3)


@pytest.mark.parametrize("name", NAMED)
def test_pictures_that_were_normalised_as_said_are_taken(name: str) -> None:
    check_pictures(pictures(NAMED[name]), NAMED[name])


def test_pictures_that_were_normalised_otherwise_are_refused() -> None:
    with pytest.raises(ValueError, match="they look like imagenet; pass CheckpointInfo"):
        check_pictures(pictures(NAMED["imagenet"]), NAMED["centred"])
    own = Normalization((0.4, 0.41, 0.38), (0.2, 0.21, 0.23), 1)
    with pytest.raises(ValueError, match="which R .* does not give"):
        check_pictures(pictures(own), NAMED["centred"])


def test_of_pictures_that_are_no_bytes_nothing_is_said() -> None:
    check_pictures(torch.randn(2, 3, 64, 64), NAMED["centred"])


def test_a_trainer_with_a_run_folder_looks_at_the_first_batch(tmp_path: Path) -> None:
    batch = (pictures(NAMED["imagenet"]), torch.zeros(2, 64, 64, dtype=torch.long))
    info = CheckpointInfo("own", numbered_classes(2), 64, 64)
    trainer = SegmentationTrainer(
        torch.nn.Conv2d(3, 2, 1), [batch], None, 2, num_epochs=1, device="cpu",
        run=RunFolder(tmp_path, info),
    )  # fmt: skip
    with pytest.raises(ValueError, match="they look like imagenet"):
        trainer.train()
