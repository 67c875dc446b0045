"""Teachers of other classes, sizes and kinds, and what they teach."""

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fastseg_runtime.arrays.image import encode_rgb
from fastseg_runtime.bundle.manifest import METADATA_KEY, ClassInfo, Manifest, numbered_classes
from fastseg_runtime.bundle.reader import BundleError
from fastseg_runtime.engines.backend_pytorch import manifest_of
from fastseg_runtime.frames.video import VideoWriter
from fastseg_training.batches.augment import Augmentation
from fastseg_training.batches.resident import ResizedDataset
from fastseg_training.build_network import Start
from fastseg_training.build_trainer import build_trainer
from fastseg_training.cli import main
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.distill import DistillationLoss, soft_label_loss
from fastseg_training.header import describe, licence_of, terms_behind
from fastseg_training.lessons import Frames, give_lessons, open_frames
from fastseg_training.losses import LossOptions
from fastseg_training.optimisation import Recipe
from fastseg_training.teacher import Teacher, are_probabilities, open_teacher, usage_of_teacher
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fastseg import CheckpointInfo, FastSegNet, load_checkpoint, open_network, save_checkpoint
from fastseg.checkpoint import CheckpointError
from fastseg.data import Array, Sample, open_dataset
from fastseg.imagenet_weights import LICENCE, terms_in
from fastseg.normalization import parse_normalization
from tests.doubles.own_onnx import ending, own_onnx

IMAGENET = parse_normalization("imagenet")
OURS = tuple(ClassInfo(name, (index, 0, 0)) for index, name in enumerate(("road", "house", "cow")))
MAP = 'teacher = ["wall", "street", "roof", "own car"]\n[classes]\nroad = ["street"]\n'
WHOLE_MAP = MAP + 'house = ["wall", "roof"]\ncow = ["own car"]\n'
CODE = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 1)
    def forward(self, x):
        return self.conv(x[..., ::2, ::2])
def net(num_classes):
    return Net(num_classes)
class Two(Net):
    def forward(self, x):
        return -super().forward(x), super().forward(x)
def two(num_classes):
    return Two(num_classes)
class Tall(Net):
    def forward(self, x):
        return super().forward(x).reshape(1, -1, 16, 16)
def square_only(num_classes):
    return Tall(num_classes)
def sigmoid():
    return nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sigmoid())
def big_sides_only(num_classes):
    return nn.Sequential(nn.Conv2d(3, num_classes, 99))
"""
DATA = "synthetic:size=96x64,train=6,val=2,test=2"
CITYSCAPES = [*["--teacher", "foreign:net", "--teacher-weights", "foreign.pth"]]
CITYSCAPES += ["--teacher-map", "cityscapes-to-camvid"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with foreign.py, two weight files and a map; a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "foreign", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "foreign.py").write_text(CODE)
    write_onnx(tmp_path / "four.onnx")
    for name, count in (("foreign.pth", 19), ("four.pth", 4)):
        torch.manual_seed(count)
        torch.save({f"conv.{k}": v for k, v in conv(count).state_dict().items()}, tmp_path / name)
    (tmp_path / "map.toml").write_text(MAP + 'house = ["wall", "roof"]\n')
    (tmp_path / "whole.toml").write_text(WHOLE_MAP)
    return tmp_path


def conv(classes: int) -> nn.Conv2d:
    torch.manual_seed(classes)
    return nn.Conv2d(3, classes, 1)


def opened(**options: Any) -> Teacher:
    settings = {"teacher": "foreign:net", "teacher_weights": "four.pth", "teacher_map": "map.toml"}
    teacher = open_teacher(TrainConfig(**{**settings, **options}), OURS, (8, 6))
    assert teacher is not None
    return teacher


def picture(width: int = 8, height: int = 6) -> Array:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)


def expected_probabilities(image_HW3: Array) -> Array:
    """The 1x1 convolution, softmax and sums of MAP by numpy, ImageNet's numbers written out."""
    x_hw3 = image_HW3[::2, ::2].astype(np.float64) / 255
    x_hw3 = (x_hw3 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    layer = conv(4)
    weight = layer.weight.detach().numpy()[..., 0, 0].astype(np.float64)
    assert layer.bias is not None
    scores_hwC = x_hw3 @ weight.T + layer.bias.detach().numpy()
    e_hwC = np.exp(scores_hwC)
    p_hwC = e_hwC / e_hwC.sum(-1, keepdims=True)
    wall, street, roof, _ = np.moveaxis(p_hwC, -1, 0)
    return np.stack([street, wall + roof, np.zeros_like(wall)], -1)


def test_classes_that_fall_together_are_added_up_after_the_softmax(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = opened(teacher_normalization="imagenet")
    p_hwK = teacher.probabilities(picture(), (4, 3))
    np.testing.assert_allclose(p_hwK, expected_probabilities(picture()), atol=1e-5)
    told = capsys.readouterr().err
    assert "the teacher does not know: cow" in told and "not taught: own car" in told
    assert teacher.class_map.partly_taught == (0, 1)


def test_a_coarser_grid_gets_the_mean_of_the_probabilities(folder: Path) -> None:
    teacher = opened(teacher_normalization="imagenet")
    fine_hwK = expected_probabilities(picture(16, 8))
    coarse_hwK = teacher.probabilities(picture(16, 8), (4, 2))
    means_hwK = fine_hwK.reshape(2, 2, 4, 2, 3).mean((1, 3))
    # 8x6 is its size: 16x8 is seen at as many pixels, in steps of 32.
    assert teacher.size_for(16, 8) == (32, 32)
    teacher = opened(teacher_normalization="imagenet", teacher_size="16x8")
    coarse_hwK = teacher.probabilities(picture(16, 8), (4, 2))
    np.testing.assert_allclose(coarse_hwK, means_hwK, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "seen"),
    [((480, 360), (960, 720)), ((960, 720), (960, 720)), ((1280, 720), (1120, 608))],
)
def test_pictures_of_the_teachers_shape_are_seen_at_its_size_others_at_as_many_pixels(
    folder: Path, size: tuple[int, int], seen: tuple[int, int]
) -> None:
    assert opened(teacher_size="960x720").size_for(*size) == seen


def write_onnx(path: Path, softmax: bool = False) -> onnx.ModelProto:
    """Write what an author would export: probabilities, or the logits."""
    layer = conv(4)
    assert layer.bias is not None
    nodes = [helper.make_node("Conv", ["image", "w", "b"], ["scores"], strides=[2, 2])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1))
    output = nodes[-1].output[0]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 6, 8])],
        [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [1, 4, 3, 4])],
        [
            numpy_helper.from_array(layer.weight.detach().numpy(), "w"),
            numpy_helper.from_array(layer.bias.detach().numpy(), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return model


def say_of_itself(path: Path, names: tuple[str, ...], **header: Any) -> Manifest:
    """Write four.onnx as if fastseg-export had made it of a network of these classes."""
    network = open_network("nano-camvid")
    classes = tuple(ClassInfo(name, (0, 0, 0)) for name in names)
    info = dataclasses.replace(network.info, classes=classes, **header)
    manifest = manifest_of(dataclasses.replace(network, info=info))
    model = onnx.load("four.onnx")
    onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.save(model, path)
    return manifest


def test_an_onnx_file_that_names_its_classes_is_held_to_them_in_their_order(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"teacher": "ours.onnx", "teacher_weights": "", "teacher_normalization": "imagenet"}
    say_of_itself(folder / "ours.onnx", ("street", "wall", "roof", "own car"))
    with pytest.raises(ConfigError, match=r"knows street, wall, .*map.toml has wall, street"):
        opened(**chosen)
    with pytest.raises(ConfigError, match=r"knows street, wall, .*the data has road, house, cow"):
        opened(**chosen, teacher_map="")
    say_of_itself(folder / "ours.onnx", tuple(entry.name for entry in numbered_classes(4)))
    assert opened(**chosen).class_map.target_C == (1, 0, 1, -1)  # numbers are no names
    four = tuple(ClassInfo(name, (0, 0, 0)) for name in ("wall", "street", "roof", "own car"))
    say_of_itself(folder / "ours.onnx", tuple(entry.name for entry in four))
    capsys.readouterr()
    assert open_teacher(TrainConfig(**chosen), four, (8, 6)) is not None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("softmax", [False, True])
def test_an_onnx_file_teaches_the_same_whether_softmax_is_in_it_or_not(
    folder: Path, softmax: bool
) -> None:
    write_onnx(folder / "net.onnx", softmax)
    teacher = opened(teacher="net.onnx", teacher_weights="", teacher_normalization="imagenet")
    p_hwK = teacher.probabilities(picture(), (4, 3))
    np.testing.assert_allclose(p_hwK, expected_probabilities(picture()), atol=1e-5)
    assert teacher.size_for(100, 20) == (8, 6)  # the graph takes no other
    with pytest.raises(ConfigError, match="takes pictures of 8x6 alone, not --teacher-size 16x12"):
        opened(teacher="net.onnx", teacher_weights="", teacher_size="16x12")
    with pytest.raises(ConfigError, match="tells 4 classes apart, expected 3; a --teacher-map"):
        opened(teacher="net.onnx", teacher_weights="", teacher_map="")


@pytest.mark.parametrize(
    ("steps", "excess", "are_probabilities"), [(256, 0, True), (0, 0.03, True), (0, 0.06, False)]
)
def test_probabilities_in_few_bits_are_no_logits(
    folder: Path, steps: int, excess: float, are_probabilities: bool
) -> None:
    """As an int8 graph gives them, which ends in a softmax."""
    model = write_onnx(folder / "net.onnx", softmax=True)
    factor = numpy_helper.from_array(np.float32(steps or 1 + excess), "factor")
    model.graph.initializer.append(factor)
    model.graph.node.append(helper.make_node("Mul", ["probabilities", "factor"], ["scaled"]))
    if steps:
        model.graph.node.append(helper.make_node("Round", ["scaled"], ["whole"]))
        model.graph.node.append(helper.make_node("Div", ["whole", "factor"], ["rounded"]))
    model.graph.output[0].name = model.graph.node[-1].output[0]
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    teacher = opened(teacher="net.onnx", teacher_weights="", teacher_normalization="imagenet")
    error_hwK = teacher.probabilities(picture(), (4, 3)) - expected_probabilities(picture())
    assert (np.abs(error_hwK).max() < 0.01) == are_probabilities
    assert ("scores" in teacher.identity) == are_probabilities  # labels of before are made anew


def test_logits_that_end_in_a_relu_are_no_probabilities_though_they_sum_to_1_on_the_whole() -> None:
    torch.manual_seed(0)
    logits_1Chw = torch.randn(1, 4, 8, 8).relu()
    assert not are_probabilities(logits_1Chw / logits_1Chw.sum(1).mean())
    narrow_1Chw = torch.rand(1, 4, 8, 8)  # of which none is above 1
    assert not are_probabilities(narrow_1Chw / narrow_1Chw.sum(1).mean())
    p_1Chw = logits_1Chw.softmax(1)
    p_1Chw[..., 0] = 0  # as where a border is padded after the softmax
    assert are_probabilities(p_1Chw)


def test_whether_a_teacher_gives_probabilities_is_not_asked_of_each_picture(folder: Path) -> None:
    scores_1Chw = torch.tensor([0.2, 0.1, 0.4, 0.1]).reshape(1, 4, 1, 1)  # of 255: much rounded
    given = dataclasses.replace(opened(), scores=lambda image: scores_1Chw)
    logits = given.probabilities(picture(), (1, 1))
    np.testing.assert_allclose(logits[0, 0, 0], scores_1Chw.softmax(1)[0, 1, 0, 0], atol=1e-6)
    rounded = dataclasses.replace(given, gives_probabilities=True).probabilities(picture(), (1, 1))
    np.testing.assert_allclose(rounded[0, 0], [0.125, 0.75, 0], atol=1e-6)


def test_which_of_several_outputs_a_teacher_says_has_to_be_told(folder: Path) -> None:
    for spec, weights, said in (("foreign:two", "four.pth", "0 and 1"), ("two.onnx", "", "1, 0")):
        model = write_onnx(folder / "two.onnx")
        model.graph.output[0].name = model.graph.node[0].output[0] = "1"
        model.graph.node.append(helper.make_node("Neg", ["1"], ["0"]))
        model.graph.output.append(
            helper.make_tensor_value_info("0", onnx.TensorProto.FLOAT, [1, 4, 3, 4])
        )
        (folder / "two.onnx").write_bytes(model.SerializeToString())
        chosen = {"teacher": spec, "teacher_weights": weights, "teacher_normalization": "imagenet"}
        with pytest.raises((ConfigError, CheckpointError), match=f"{said}.*--teacher-output-name"):
            opened(**chosen)
        teacher = opened(**chosen, teacher_output_name="1")
        p_hwK = teacher.probabilities(picture(), (4, 3))
        np.testing.assert_allclose(p_hwK, expected_probabilities(picture()), atol=1e-5)
        other = opened(**chosen, teacher_output_name="0")
        assert other.identity != teacher.identity  # its labels are kept apart


def test_whole_numbers_beside_the_logits_are_no_ids_of_its_classes(folder: Path) -> None:
    model = write_onnx(folder / "net.onnx")
    counts = numpy_helper.from_array(np.full((1, 3, 4), 900, np.int64), "counts")
    model.graph.initializer.append(counts)
    model.graph.node.append(helper.make_node("Identity", ["counts"], ["depth"]))
    model.graph.output.append(
        helper.make_tensor_value_info("depth", onnx.TensorProto.INT64, [1, 3, 4])
    )
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    how = {"teacher": "net.onnx", "teacher_weights": "", "teacher_normalization": "imagenet"}
    p_hwK = opened(**how, teacher_output_name="scores").probabilities(picture(), (4, 3))
    np.testing.assert_allclose(p_hwK, expected_probabilities(picture()), atol=1e-5)


def test_labels_of_a_factory_are_made_anew_where_its_code_was_edited(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened().identity
    assert opened().identity == before
    monkeypatch.delitem(sys.modules, "foreign")
    (folder / "foreign.py").write_text(CODE.replace("::2, ::2", "1::2, 1::2"))
    after = opened().identity
    assert after != before and after | {"code": before["code"]} == before
    # Its layers may be of another file than what puts them together.
    (folder / "layers.py").write_text((folder / "foreign.py").read_text())
    for sign in ("", "-"):
        monkeypatch.delitem(sys.modules, "foreign")
        (folder / "foreign.py").write_text(f"from layers import net\nSIGN = {sign}1.0\n")
        after, before = opened().identity, after
        assert after != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": Recipe(start_share=0.5)}, "start_share mixes in"),
        ({"recipe": Recipe(precision="bf15")}, "precision is 'bf15'"),
        ({"loss": LossOptions(class_weights={"Hay": 2.0})}, "Hay"),
        ({"callback": "foreign:net"}, "foreign:net"),
        ({"augmentation": Augmentation(copy_paste=0.5, rare_share=1e-9)}, "no class has less"),
        ({"unlabelled": "frames", "batch": 1}, "--batch of 2 or more"),
        ({"unlabelled_licence": "MIT"}, "without --unlabelled FOLDER"),
    ],
)
def test_what_is_wrong_with_a_training_is_said_before_its_teacher_works(
    folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=message):
        build_trainer(
            TrainConfig(data=DATA, model="nano", teacher="nano-synthetic", **options),
            folder / "run",
        )
    assert not (folder / "cache" / "soft-labels").exists()


def test_a_file_that_fastseg_wrote_says_itself_what_its_students_may_be_used_for(
    folder: Path,
) -> None:
    manifest = say_of_itself(folder / "ours.onnx", ("wall", "street", "roof", "own car"))
    config = TrainConfig(teacher="ours.onnx", teacher_usage="commercial")
    assert usage_of_teacher(config) == "research"
    taught = opened(teacher="ours.onnx", teacher_weights="")
    assert f"{taught.licence}; {taught.init_licence}" == manifest.model.data_licence
    assert "ImageNet" in taught.init_licence  # which one of its teachers started from
    assert usage_of_teacher(dataclasses.replace(config, teacher="four.onnx")) == "commercial"
    own = open_network("nano-synthetic")
    save_checkpoint(folder / "own.safetensors", own.model, own.info)
    header = TrainConfig(teacher="foreign:net", teacher_weights="own.safetensors")
    assert usage_of_teacher(header) == "commercial"
    assert usage_of_teacher(dataclasses.replace(header, teacher_usage="research")) == "research"


def test_a_teacher_whose_values_are_no_numbers_is_refused(folder: Path) -> None:
    teacher = dataclasses.replace(
        opened(), scores=lambda image: torch.full((1, 4, 3, 4), float("nan"))
    )
    with pytest.raises(ConfigError, match="net gives values that are no numbers"):
        teacher.probabilities(picture(), (4, 3))


def test_a_map_of_one_class_is_refused_since_nothing_is_learnt_of_it(folder: Path) -> None:
    (folder / "one.toml").write_text(MAP)
    with pytest.raises(ConfigError, match=r"one.toml names 1 of the data's classes"):
        opened(teacher_map="one.toml")


def test_frames_that_cannot_be_read_are_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(2):
        (folder / f"{index}.png").write_bytes(encode_rgb(picture(32, 32)))
    teacher = opened(teacher_map="whole.toml", teacher_size="32x32")
    samples = ResizedDataset([Sample(picture(32, 32), np.zeros((32, 32), np.uint8), "a")], None)
    config = TrainConfig(teacher="foreign:net", unlabelled=".")
    every = list(open_frames(".", 10))
    for count, told in ((1, "1 of 2 pictures could be read"), (0, "no picture of . can be read")):
        monkeypatch.setattr(Frames, "__iter__", lambda self, count=count: iter(every[:count]))
        if count:
            give_lessons(config, teacher, samples, (32, 32))
            assert told in capsys.readouterr().err
        else:
            with pytest.raises(ConfigError, match=told):
                give_lessons(config, teacher, samples, (32, 32))


def test_the_header_says_that_the_teacher_came_from_imagenet(folder: Path) -> None:
    info = dataclasses.replace(
        open_network("nano-synthetic").info, training={"init_licence": "ImageNet's"}
    )
    save_checkpoint("teacher.safetensors", open_network("nano-synthetic").model, info)
    dataset = open_dataset(DATA, "train")
    config = TrainConfig(data=DATA, model="nano", teacher="teacher.safetensors")
    teacher = open_teacher(config, dataset.classes, (96, 64))
    told = describe(Start(config), dataset, dataset.classes, (96, 64), teacher)
    assert told.training["init_licence"] == (
        "among its teachers and theirs, teacher has ImageNet's"
    )


@pytest.mark.parametrize("licence", ["CC0", "free; cite us", ""])
def test_terms_do_not_grow_where_each_student_is_exported_to_teach_the_next(
    folder: Path, licence: str
) -> None:
    dataset = dataclasses.replace(open_dataset(DATA, "train"), licence=licence)
    config = TrainConfig(data=DATA, model="nano", teacher="ours.onnx", teacher_map="whole.toml")
    terms = {"data_licence": licence, "training": {"init_licence": LICENCE}}
    for _ in range(3):
        say_of_itself(folder / "ours.onnx", ("wall", "street", "roof", "own car"), **terms)
        teacher = open_teacher(config, OURS, (8, 6))
        told = describe(Start(config), dataset, OURS, (8, 6), teacher)
        terms = {"data_licence": told.data_licence, "training": told.training}
        assert told.training["init_licence"] == f"among its teachers and theirs, ours has {LICENCE}"
        assert not licence or told.data_licence == licence
        assert "ImageNet" not in told.data_licence


def test_a_student_of_a_mean_says_that_its_teacher_started_from_imagenet_not_itself(
    folder: Path,
) -> None:
    other = f"among its teachers and theirs, lite has {LICENCE}"
    for said in (f"{LICENCE}; {other}", f"{other}; {LICENCE}"):
        teacher = dataclasses.replace(opened(), init_licence=said)
        terms = terms_behind(teacher)["init_licence"]
        assert set(terms_in(terms)) == {f"among its teachers and theirs, net has {LICENCE}", other}


def test_pictures_without_labels_are_named_though_data_and_teacher_have_the_same_terms(
    folder: Path,
) -> None:
    dataset = open_dataset(DATA, "train")
    teacher = open_teacher(TrainConfig(teacher="nano-synthetic"), dataset.classes, (96, 64))
    assert teacher is not None
    same = dataclasses.replace(teacher, licence=dataset.licence)
    config = TrainConfig(teacher="nano-synthetic")
    assert "those of" not in licence_of(Start(config), dataset, same, "")
    unnamed = dataclasses.replace(dataset, licence="")
    foreign = dataclasses.replace(teacher, licence="")
    told = licence_of(Start(TrainConfig(teacher="foreign:net")), unnamed, foreign, "research")
    assert "of which no licence is named, on synthetic pictures (no licence named)" in told
    assert licence_of(Start(config), unnamed, foreign, "research") == ""  # ours taught on ours
    for licence, named in (("", "terms not stated"), ("Udacity, MIT", "Udacity, MIT")):
        config = TrainConfig(
            teacher="nano-synthetic", unlabelled="frames", unlabelled_licence=licence
        )
        assert f"those of frames ({named}): " in licence_of(Start(config), dataset, same, "")


def test_an_onnx_file_goes_by_its_ending_however_that_is_written(folder: Path) -> None:
    write_onnx(folder / "NET.ONNX")
    teacher = opened(teacher="NET.ONNX", teacher_weights="", teacher_normalization="imagenet")
    assert teacher.size_for(100, 20) == (8, 6)


def test_an_onnx_file_that_takes_bytes_and_keeps_its_weights_beside_it_teaches(
    folder: Path,
) -> None:
    model = own_onnx(layout="NHWC", picture="uint8")  # four classes, behind the pixels
    onnx.save(model, "b.onnx", save_as_external_data=True, location="b.onnx.data", size_threshold=0)
    image_1HW3 = picture(64, 48)[None]
    teacher = opened(teacher="b.onnx", teacher_weights="")
    (own,) = onnxruntime.InferenceSession("b.onnx").run(None, {"image": image_1HW3})
    np.testing.assert_allclose(teacher.scores(image_1HW3)[0], own[0].transpose(2, 0, 1), atol=1e-4)


def test_a_file_that_takes_bytes_may_want_their_channels_turned_round_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(own_onnx(picture="uint8"), "b.onnx")
    bgr = 'mean = [128, 128, 128]\nstd = [64, 64, 64]\nscale = 255\ncolor = "bgr"\n'
    (folder / "bgr.toml").write_text(bgr)
    image_1HW3 = picture(64, 48)[None]
    chosen = {"teacher": "b.onnx", "teacher_weights": ""}
    capsys.readouterr()
    plain = opened(**chosen)
    assert "--teacher-normalization" not in capsys.readouterr().err  # nothing would come of it
    turned = opened(**chosen, teacher_normalization="bgr.toml")
    torch.testing.assert_close(
        turned.scores(image_1HW3), plain.scores(image_1HW3[..., ::-1].copy())
    )
    with pytest.raises(CheckpointError, match="takes bytes as they are; leave --teacher-normal"):
        opened(**chosen, teacher_normalization="imagenet")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_one_logit_teaches_two_classes(folder: Path, layout: str) -> None:
    onnx.save(own_onnx(output="one", layout=layout), "one.onnx")
    image_HW3 = picture(64, 48)
    x_1HW3 = (image_HW3[None].astype(np.float32) - 128) / 64
    x = x_1HW3 if layout == "NHWC" else x_1HW3.transpose(0, 3, 1, 2)
    (own,) = onnxruntime.InferenceSession("one.onnx").run(None, {"image": x})
    teacher = open_teacher(TrainConfig(teacher="one.onnx"), OURS[:2], (64, 48))
    assert teacher is not None
    p_hwK = teacher.probabilities(image_HW3, (16, 12))
    np.testing.assert_allclose(p_hwK[..., 1], 1 / (1 + np.exp(-own.reshape(12, 16))), atol=1e-5)
    with pytest.raises(ConfigError, match="classes apart, expected 3"):
        opened(teacher="one.onnx", teacher_weights="", teacher_map="")


@pytest.mark.parametrize("spec", ["one.onnx", "foreign:sigmoid"])
def test_one_probability_is_taken_for_no_logit(folder: Path, spec: str) -> None:
    onnx.save(ending(("Sigmoid", {}), output="one"), "one.onnx")
    with pytest.raises(CheckpointError, match="gives probabilities .* leave the sigmoid out"):
        open_teacher(TrainConfig(teacher=spec), OURS[:2], (64, 48))


def test_a_file_that_gives_class_ids_is_told_that_logits_are_wanted(folder: Path) -> None:
    onnx.save(own_onnx(output="int64"), "ids.onnx")
    assert opened(teacher="ids.onnx", teacher_weights="").class_map.taught == (0, 1)  # hard labels
    onnx.save(ending(("Cast", {"to": TensorProto.BOOL}), kind=TensorProto.BOOL), "bool.onnx")
    with pytest.raises(ConfigError, match=r"bool.*fastseg-export --output logits"):
        opened(teacher="bool.onnx", teacher_weights="")


def test_a_file_that_names_files_of_the_machine_opens_none_of_them(folder: Path) -> None:
    model = write_onnx(folder / "net.onnx")
    (folder / "secret").write_bytes(bytes(1000))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"net\.onnx.*secret"):
        opened(teacher="net.onnx", teacher_weights="")


def test_a_teacher_of_ours_teaches_what_it_says_itself(folder: Path) -> None:
    torch.manual_seed(0)
    model = FastSegNet(3, "nano", auxiliary=False).eval()
    save_checkpoint(folder / "t.safetensors", model, CheckpointInfo("nano", OURS, 64, 32))
    teacher = opened(teacher="t.safetensors", teacher_weights="", teacher_map="")
    image_HW3 = picture(64, 32)
    x_13HW = (torch.from_numpy(image_HW3).permute(2, 0, 1)[None].float() - 128) / 64
    with torch.no_grad():
        expected_KHW = model(x_13HW).softmax(1)[0].numpy()
    expected_hwK = expected_KHW.reshape(3, 16, 2, 32, 2).mean((2, 4)).transpose(1, 2, 0)
    np.testing.assert_allclose(teacher.probabilities(image_HW3, (32, 16)), expected_hwK, atol=1e-5)
    assert teacher.size == (64, 32)
    with pytest.raises(ConfigError, match="they have to be the same, or a --teacher-map"):
        open_teacher(TrainConfig(teacher="t.safetensors"), OURS[:2], (8, 6))


def test_weights_with_a_header_say_themselves_what_they_know_take_and_allow(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a network of one's own that fastseg-train fine-tuned on the data."""
    model = nn.Module()
    model.conv = conv(3)
    info = CheckpointInfo(
        "foreign:net", OURS, 48, 32, data_licence="ours", usage="commercial", normalization=IMAGENET
    )
    save_checkpoint(folder / "run.safetensors", model, info)
    chosen = {"teacher_weights": "run.safetensors", "teacher_map": ""}
    teacher = opened(**chosen)
    assert capsys.readouterr().err == ""
    assert teacher.licence == "ours" and "0.485" in teacher.identity["normalization"]
    assert teacher.size == (48, 32)
    assert opened(**chosen, teacher_size="96x64").size == (96, 64)
    assert usage_of_teacher(TrainConfig(teacher="foreign:net", **chosen)) == "commercial"
    with pytest.raises(ConfigError, match="knows road, house, cow, map.toml has wall, street"):
        opened(teacher_weights="run.safetensors")


def test_a_damaged_picture_is_named_and_left_out_and_the_others_are_labelled(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        (folder / f"{name}.png").write_bytes(encode_rgb(picture(32, 32)))
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:1000])
    assert [frame.name for frame in open_frames(".", 10)] == ["a.png", "c.png"]
    assert re.search(r"skipped: b\.png", capsys.readouterr().err)


def test_the_range_of_the_labelled_pictures_is_that_of_those_without_labels(folder: Path) -> None:
    dark = np.full((32, 32, 3), 200, np.uint8)
    cv2.imwrite("twelve_bits.png", dark.astype(np.uint16) * 16)
    cv2.imwrite("eight_bits.png", dark)
    seen = {f.name: int(f.image_HW3.max()) for f in open_frames(".", 10, (0, 4080))}
    assert seen == {"twelve_bits.png": 200, "eight_bits.png": 200}
    narrow = {f.name: int(f.image_HW3.max()) for f in open_frames(".", 10, (0, 200))}
    assert narrow == {"twelve_bits.png": 255, "eight_bits.png": 255}


def test_a_teacher_sees_frames_in_the_range_that_is_told(folder: Path) -> None:
    (folder / "more").mkdir()
    cv2.imwrite("more/a.png", np.full((32, 48, 3), 4080, np.uint16))
    config = TrainConfig(
        data=DATA, image_range="0:4080", teacher="foreign:net", teacher_weights="foreign.pth",
        teacher_map="cityscapes-to-camvid", unlabelled="more",
    )  # fmt: skip
    dataset = open_dataset(DATA, "train")
    teacher = open_teacher(config, dataset.classes, (96, 64))
    lessons = give_lessons(config, teacher, ResizedDataset(dataset, None), (96, 64))
    assert lessons.unlabelled[0].image_HW3.min() == 255


@pytest.mark.parametrize(
    ("options", "usage"),
    [({}, "research"), ({"teacher_usage": "commercial"}, "commercial")],
)
def test_what_a_teacher_of_others_allows_is_research_unless_somebody_says_more(
    folder: Path, options: dict[str, str], usage: str
) -> None:
    for spec in ("foreign:net", "net.onnx"):
        assert usage_of_teacher(TrainConfig(teacher=spec, **options)) == usage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_size": "big"}, "cannot read the size 'big'"),
        ({"teacher_map": "nowhere.toml"}, "no teacher map nowhere.toml"),
        ({"teacher_weights": "nowhere.pth"}, "no --teacher-weights nowhere.pth"),
        ({"teacher_weights": "foreign.pth"}, "does not fit foreign:net"),
        ({"teacher_normalization": "mars"}, "no normalisation 'mars'"),
        ({"teacher": "foreign:nothing"}, "foreign:nothing"),
        ({"teacher": "foreign:big_sides_only", "teacher_weights": ""}, "at 8x6"),
        ({"teacher": "nowhere.onnx", "teacher_weights": ""}, "no ONNX file nowhere.onnx"),
        ({"teacher": "foreign.pth", "teacher_weights": ""}, "foreign.pth"),
        ({"teacher": "nano-camvid"}, "--teacher-weights is for a teacher of others"),
        ({"teacher": "four.onnx"}, "leave out --teacher-weights"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_one_clear_line(
    folder: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises((ConfigError, CheckpointError, ValueError, OSError)) as caught:
        opened(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["teacher_weights", "teacher_size", "unlabelled"])
def test_what_is_for_a_teacher_needs_one(option: str) -> None:
    value = "8x8" if option == "teacher_size" else "x"
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} is given without"):
        TrainConfig(**{option: value})


def test_a_pixel_without_mass_teaches_nothing_and_one_of_an_unknown_class_neither() -> None:
    loss, generator = DistillationLoss(), torch.Generator().manual_seed(0)
    student = torch.randn(1, 3, 4, 8, generator=generator, requires_grad=True)
    soft = torch.rand(1, 3, 4, 8, generator=generator).softmax(1)
    soft[..., :2] = 0
    label = torch.zeros(1, 16, 32, dtype=torch.long)
    label[..., 12:16] = 2  # the fourth column of soft labels: a class that nobody taught
    soft_label_loss(loss, student, soft, label, taught=[0, 1]).backward()
    assert student.grad is not None
    silent = student.grad.abs().sum((0, 1, 2)) == 0
    assert silent.tolist() == [True, True, False, True, False, False, False, False]
    assert student.grad[:, 2].abs().sum() == 0  # no word on that class anywhere


def test_imitating_probabilities_perfectly_costs_nothing() -> None:
    logits = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(2, 24, 32, dtype=torch.long)
    for temperature in (1.0, 3.0):
        loss = DistillationLoss(temperature)
        value = soft_label_loss(loss, logits, logits.softmax(1), label, [])
        assert value.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_a_student_of_any_stride_learns_from_soft_labels(stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(1, 3, 32 // stride, 64 // stride, generator=generator)
    student.requires_grad_()
    soft = torch.rand(1, 3, 8, 16, generator=generator).softmax(1)
    label = torch.zeros(1, 32, 64, dtype=torch.long)
    optimizer = torch.optim.SGD([student], 5.0)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(soft_label_loss(DistillationLoss(), student, soft, label, []))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_frames_are_spread_evenly_over_pictures_and_videos(folder: Path) -> None:
    media = folder / "media"
    (media / "inner").mkdir(parents=True)
    for index in range(3):
        (media / f"{index}.png").write_bytes(encode_rgb(np.full((8, 8, 3), index, np.uint8)))
    (media / "notes.txt").write_text("x")
    writer = VideoWriter(str(media / "inner" / "clip.avi"), 10, "rgb")
    for index in range(9):
        writer.write(np.full((64, 64, 3), 25 * index, np.uint8))
    writer.finish()
    every = list(open_frames(str(media), 100))
    assert len(every) == len(open_frames(str(media), 100)) == 12
    some = open_frames(str(media), 4)
    assert len(some) == len(list(some)) == 4
    names = [frame.name.removeprefix(str(media)) for frame in some]
    assert names[0] == "/0.png" and names[-1] == "/inner/clip.avi frame 8"
    last = next(frame for frame in every if frame.name.endswith("frame 8"))
    assert abs(int(last.image_HW3.mean()) - 200) < 8


def test_how_well_a_teacher_knows_the_labels_is_said_before_it_teaches(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Labels drawn by the teacher itself, but where bytes make its two best classes equal; then one
    # of its classes is another in the labels.
    teacher = opened(teacher_map="whole.toml", teacher_size="16x16")
    image_HW3 = np.kron(picture(8, 8), np.ones((2, 2, 1), np.uint8))
    truth_hw = teacher.probabilities(image_HW3, (8, 8)).argmax(-1).astype(np.uint8)
    label_HW = np.kron(truth_hw, np.ones((2, 2), np.uint8))
    wrong_HW = np.where(label_HW == 1, 0, label_HW)
    for labels_HW, said in ((label_HW, "mIoU 0.9"), (wrong_HW, "house 0.00")):
        samples = ResizedDataset([Sample(image_HW3, labels_HW, "a")], None)
        give_lessons(TrainConfig(teacher="foreign:net"), teacher, samples, (16, 16))
        told = capsys.readouterr().err
        assert "net against the labels: mIoU" in told and said in told


def test_what_a_map_leaves_out_is_not_held_against_the_teacher(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = opened(teacher_map="map.toml", teacher_size="16x16")
    image_HW3 = np.kron(picture(8, 8), np.ones((2, 2, 1), np.uint8))
    label_hw = teacher.probabilities(image_HW3, (8, 8)).argmax(-1).astype(np.uint8)
    label_hw[:4] = 2  # a cow, of which this teacher knows nothing
    label_HW = np.kron(label_hw, np.ones((2, 2), np.uint8))
    samples = ResizedDataset([Sample(image_HW3, label_HW, "a")], None)
    give_lessons(TrainConfig(teacher="foreign:net"), teacher, samples, (16, 16))
    told = re.search(r"against the labels: mIoU ([\d.]+)", capsys.readouterr().err)
    assert told is not None and float(told[1]) > 0.9


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_place_without_pictures_is_named(folder: Path, name: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match=name):
        open_frames(name, 10)


def test_pictures_without_labels_are_seen_whole_by_the_teacher_and_small_by_the_student(
    folder: Path,
) -> None:
    (folder / "wide").mkdir()
    for index in range(3):
        (folder / "wide" / f"{index}.png").write_bytes(encode_rgb(picture(40, 10) // (index + 1)))
    config = TrainConfig(
        teacher="foreign:net", teacher_weights="foreign.pth", teacher_map="cityscapes-to-camvid",
        unlabelled="wide", batch=8,
    )  # fmt: skip
    dataset = open_dataset(DATA, "train")
    teacher = open_teacher(config, dataset.classes, (96, 64))
    lessons = give_lessons(config, teacher, ResizedDataset(dataset, None), (96, 64))
    assert (len(lessons.soft), len(lessons.unlabelled), lessons.places) == (9, 3, 2)
    assert {sample.image_HW3.shape for sample in lessons.unlabelled} == {(64, 96, 3)}
    assert all((sample.label_HW == 255).all() for sample in lessons.unlabelled)
    assert lessons.soft[0].shape == (32, 48, 11)
    assert lessons.soft[8].shape == (5, 20, 11)  # half of what there is to see


def test_a_frame_that_the_teacher_cannot_see_is_named_before_it_labels_the_samples(
    folder: Path,
) -> None:
    (folder / "wide.png").write_bytes(encode_rgb(picture(320, 32)))
    teacher = opened(teacher="foreign:square_only", teacher_map="whole.toml", teacher_size="32x32")
    labels_HW = np.zeros((32, 32), np.uint8)
    samples = ResizedDataset([Sample(picture(32, 32), labels_HW, "a")], None)
    config = TrainConfig(teacher="foreign:square_only", unlabelled="wide.png")
    with pytest.raises(ConfigError, match=r"wide\.png, of those without labels.*12"):
        give_lessons(config, teacher, samples, (32, 32))
    assert not list((folder / "cache").rglob("*.npz"))


def test_the_terms_of_a_teacher_reach_the_students_of_its_student_and_what_starts_from_it(
    folder: Path,
) -> None:
    dataset = open_dataset(DATA, "train")
    foreign = TrainConfig(
        teacher="foreign:net", teacher_weights="foreign.pth", teacher_map="cityscapes-to-camvid"
    )
    seen = (dataset.classes, (96, 64))
    teacher = open_teacher(foreign, *seen)
    first = licence_of(Start(foreign), dataset, teacher, "research")
    assert first.startswith("Taught by net, of which no licence is named, on synthetic pictures (")
    assert first.endswith("): non-commercial research only; descendants inherit this")

    student = CheckpointInfo("nano", dataset.classes, 96, 64, data_licence=first)
    model = FastSegNet(len(dataset.classes), "nano", auxiliary=False)
    save_checkpoint(folder / "student.safetensors", model, student)
    taught = TrainConfig(teacher="student.safetensors")
    teacher = open_teacher(taught, *seen)
    assert licence_of(Start(taught), dataset, teacher, "research") == f"Taught by student, {first}"
    started = TrainConfig(init="student.safetensors", model="nano")
    assert first in licence_of(Start(started), dataset, None, "research")
    assert licence_of(Start(TrainConfig()), dataset, None, "commercial") == dataset.licence
    # Terms that begin like others are not the same, and both are said.
    free = CheckpointInfo("nano", dataset.classes, 96, 64, data_licence="CC BY-NC")
    save_checkpoint(folder / "free.safetensors", model, free)
    strict = Start(TrainConfig(init="free.safetensors", model="nano"))
    ours = Mock(licence="CC BY")
    assert licence_of(strict, ours, None, "") == "CC BY; started from free: CC BY-NC"
    short = Mock(licence="CC BY-NC-SA")  # which holds the start's as a word
    assert licence_of(strict, short, None, "") == "CC BY-NC-SA; started from free: CC BY-NC"
    # Trainings that follow each other on the same terms say them once.
    assert licence_of(Start(started), dataset, open_teacher(foreign, *seen), "research") == first


@pytest.fixture
def cli(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["fastseg-train", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), " ".join(capsys.readouterr().err.split())

    return run


TINY = ["--data", DATA, "--model", "nano", "--crop", "64x64", "--batch", "4"]


@pytest.mark.slow
def test_a_student_of_a_foreign_teacher_says_who_taught_it(
    folder: Path, cli: Callable[..., tuple[int, str]]
) -> None:
    (folder / "frames").mkdir()
    for index in range(3):
        (folder / "frames" / f"{index}.png").write_bytes(encode_rgb(picture(32 + index, 32)))
    licence = "trained on Cityscapes (non-commercial), weights Apache-2.0"
    taught = [*TINY, *CITYSCAPES, "--teacher-licence", licence, "--unlabelled", "frames"]
    code, err = cli(*taught, "--epochs", "1", "--name", "whole")
    assert code == 0, err
    assert "the training split: 6 soft labels (6 new)" in err
    assert "frames: 3 soft labels (3 new)" in err
    _, info = load_checkpoint("runs/whole/model.safetensors")
    assert info.data_licence.startswith(f"Taught by net, {licence}, on synthetic pictures")
    assert "frames (terms not stated): non-commercial research only" in info.data_licence
    assert "descendants inherit this" in info.data_licence
    assert f"--teacher-licence '{licence}'" in info.training["command"]
    assert len(info.training["teacher_sha256"]) == 64

    code, err = cli(*taught, "--epochs", "1", "--name", "again")
    assert code == 0 and "6 soft labels (0 new)" in err and "3 soft labels (0 new)" in err


def test_soft_labels_stopped_by_ctrl_c_leave_no_run_and_say_how_to_go_on(
    folder: Path, cli: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Teacher, "probabilities", stop)
    code, err = cli(*TINY, *CITYSCAPES)
    assert code == 130 and "the same command goes on" in err
    assert not Path("runs").exists()


@pytest.mark.parametrize(("weight", "counts"), [(0.5, True), (0.49, False)])
def test_where_a_teacher_knows_less_than_half_the_place_of_classes_is_not_taught(
    weight: float, counts: bool
) -> None:
    loss = DistillationLoss(channel_weight=1, logit_weight=0)
    student = torch.zeros(1, 2, 2, 2, requires_grad=True)
    teacher = torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    weight_Nhw = torch.ones(1, 2, 2)
    weight_Nhw[0, 0, 0] = weight
    loss(student, teacher, weight_Nhw).backward()
    assert student.grad is not None
    assert bool(student.grad[..., 0, 0].abs().sum() > 0) == counts
