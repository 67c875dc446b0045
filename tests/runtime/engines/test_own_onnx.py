"""Files of others in the runtime alone, held against ONNX Runtime's own answer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from fastseg_runtime import BundleError, RealtimeSegmentation
from fastseg_runtime.arrays.image import encode_rgb
from fastseg_runtime.bundle.manifest import METADATA_KEY, Manifest
from fastseg_runtime.cli.main import main
from fastseg_runtime.engines.own_onnx import OwnFile, class_axis
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doubles.own_onnx import (
    CLASSES,
    FIRST,
    FULL,
    HEIGHT,
    IDS,
    INT64,
    LAST,
    WIDTH,
    ending,
    own_answer,
    own_onnx,
    to_size,
)
from tests.doubles.tiny_bundle import argmax_onnx, empty_plan, full_plan, noise

UNIT = OwnFile(normalization="unit")


@settings(max_examples=40)
@given(
    opset=st.sampled_from([11, 13, 17, 22]),
    layout=st.sampled_from(["NCHW", "NHWC"]),
    picture=st.sampled_from(["float", "uint8"]),
    output=st.sampled_from(["logits", "one", "int32", "int64", "uint8"]),
    color=st.sampled_from(["rgb", "bgr"]),
    open_size=st.booleans(),
)
def test_any_file_gives_its_own_answer(
    tmp_path_factory: pytest.TempPathFactory,
    opset: int,
    layout: str,
    picture: str,
    output: str,
    color: str,
    open_size: bool,
) -> None:
    path = tmp_path_factory.mktemp("own") / "net.onnx"
    size: tuple[Any, Any] = ("h", "w") if open_size else (HEIGHT, WIDTH)
    onnx.save(own_onnx(opset, layout, picture, output, size), path)
    said = OwnFile(
        size=f"{WIDTH}x{HEIGHT}" if open_size else None,
        normalization="unit" if picture == "float" else None,
        color=color,
    )
    image_HW3 = noise(HEIGHT, WIDTH)
    with RealtimeSegmentation(path, own_file=said) as session:
        ids = session.infer(image_HW3)
        count = len(session.classes)
    expected = own_answer(path, image_HW3, layout, color, "unit")
    assert (ids == expected).mean() >= 0.999
    assert count == {"logits": CLASSES, "one": 2}.get(output, 255)


@pytest.mark.parametrize(
    ("kind", "said", "message"),
    [
        ({}, OwnFile(), "does not say how they are normalised: --normalization imagenet"),
        ({}, OwnFile(normalization="mars"), "--normalization imagenet, unit, centred, not 'mars'"),
        ({"size": ("h", "w")}, UNIT, "pictures of any size; say which with --size WxH"),
        ({}, OwnFile(size="8x8", normalization="unit"), "takes pictures of 64x48 alone, not 8x8"),
        ({"auxiliary": True}, UNIT, "auxiliary and balanced can all be the scores"),
        ({}, OwnFile(normalization="unit", output_name="x"), "'x' is none of these"),
        ({"output": "one"}, OwnFile(normalization="unit", threshold=1.0), "less than 1"),
        ({"batch": 2}, UNIT, "expected one picture"),
        ({"picture": "uint8"}, UNIT, "takes bytes as they are; leave --normalization out"),
        ({}, OwnFile(normalization="unit", threshold=0.9), "more than one logit; --threshold is"),
    ],
)
def test_what_has_to_be_said_is_asked_in_one_line(
    tmp_path: Path, kind: dict[str, Any], said: OwnFile, message: str
) -> None:
    onnx.save(own_onnx(**kind), tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=message) as caught:
        RealtimeSegmentation(tmp_path / "net.onnx", own_file=said)
    assert "net.onnx" in str(caught.value) and "\n" not in str(caught.value)


def test_an_output_is_taken_by_its_name(tmp_path: Path) -> None:
    onnx.save(own_onnx(auxiliary=True), tmp_path / "two.onnx")
    onnx.save(own_onnx(), tmp_path / "one.onnx")
    frame, maps = noise(HEIGHT, WIDTH), []
    for name, output in (("two", "balanced"), ("one", None)):
        said = OwnFile(normalization="unit", output_name=output)
        with RealtimeSegmentation(tmp_path / f"{name}.onnx", own_file=said) as session:
            maps.append(session.infer(frame))
    assert (maps[0] == maps[1]).all()


def test_a_file_is_given_letterboxed_frames_if_that_is_said(tmp_path: Path) -> None:
    onnx.save(own_onnx(), tmp_path / "net.onnx")
    said = OwnFile(normalization="unit", fit="letterbox")
    tall = noise(2 * HEIGHT, WIDTH // 2)  # half of its rows are left, between bars
    boxed = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    left = (WIDTH - WIDTH // 4) // 2
    boxed[:, left : left + WIDTH // 4] = cv2.resize(tall, (WIDTH // 4, HEIGHT))
    with RealtimeSegmentation(tmp_path / "net.onnx", own_file=said) as session:
        inner = session.infer(boxed)[:, left : left + WIDTH // 4]
        assert (session.infer(tall) == inner.repeat(2, axis=0).repeat(2, axis=1)).all()
    wrong = OwnFile(normalization="unit", fit="crop")
    with pytest.raises(ValueError, match="fit is 'crop'; expected stretch or letterbox"):
        RealtimeSegmentation(tmp_path / "net.onnx", own_file=wrong)


def test_a_bundle_says_itself_how_it_is_used(tmp_path: Path) -> None:
    path = full_plan().write(tmp_path / "b.fastseg")
    with pytest.raises(ValueError, match="leave --size, --normalization"):
        RealtimeSegmentation(path, own_file=UNIT)


def test_the_command_runs_a_file_of_others_on_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(own_onnx(), "net.onnx")
    Path("photo.png").write_bytes(encode_rgb(noise(30, 40)))
    for words, code in (
        (["net.onnx", "photo.png"], 1),
        (
            ["net.onnx", "photo.png", "--normalization", "unit", "--json"],
            0,
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert (ended.value.code or 0) == code
    told = capsys.readouterr()
    assert "--normalization imagenet, unit, centred" in told.err
    (row,) = json.loads(told.out)["inputs"]
    assert (row["width"], row["height"]) == (40, 30) and Path(row["output"]).is_file()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ending(("Sigmoid", {}), output="one"), "one probability for each pixel, as after a sigm"),
        (ending(FULL, IDS, ("Cast", {"to": 1})), "whole numbers as floats, such as class ids"),
        (ending(LAST), r"\(1, 12, 16, 4\); expected logits \(1, K, h, w\)"),
        (ending(FULL, LAST), r"\(1, 48, 64, 4\); expected logits \(1, K, h, w\)"),
        (ending(to_size(32, 32)), "one position for every s x s pixels of 64x48"),
        (ending(("GlobalAveragePool", {})), "one position for every s x s pixels of 64x48"),
        (ending(to_size(96, 128)), "one position for every s x s pixels of 64x48"),
        (ending(to_size(30, 30), IDS, kind=INT64), "one position for every s x s pixels"),
        (ending(FULL, IDS, ("Mul", {}, np.array(100)), kind=INT64), "ids 0 to 300; expected 0 to"),
        (ending(FULL, IDS, ("Sub", {}, np.array(1)), kind=INT64), "ids -1 to 2; expected 0 to 255"),
    ],
)
def test_what_is_no_score_of_each_pixel_is_refused_in_one_line(
    tmp_path: Path, model: onnx.ModelProto, message: str
) -> None:
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=message) as caught:
        RealtimeSegmentation(tmp_path / "net.onnx", own_file=UNIT)
    assert "net.onnx" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(6, 8), (HEIGHT, WIDTH)])
def test_logits_with_their_classes_first_stay_so_behind_a_picture_with_its_channels_last(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    onnx.save(ending(FIRST, to_size(*size), layout="NHWC"), tmp_path / "net.onnx")
    image_HW3 = noise(HEIGHT, WIDTH)
    with RealtimeSegmentation(tmp_path / "net.onnx", own_file=UNIT) as session:
        assert len(session.classes) == CLASSES
        ids = session.infer(image_HW3)
    image_1HW3 = (image_HW3 / np.float32(255))[None]
    path = str(tmp_path / "net.onnx")
    found = onnxruntime.InferenceSession(path).run(None, {"image": image_1HW3})[0]
    full = F.interpolate(torch.from_numpy(found), size=(HEIGHT, WIDTH), mode="bilinear")[0]
    assert (ids == full.argmax(0).numpy()).mean() >= 0.999


def test_ids_may_have_an_axis_behind_them(tmp_path: Path) -> None:
    model = ending(FIRST, FULL, IDS, LAST, kind=INT64, layout="NHWC")
    onnx.save(model, tmp_path / "net.onnx")
    image_HW3 = noise(HEIGHT, WIDTH)
    with RealtimeSegmentation(tmp_path / "net.onnx", own_file=UNIT) as session:
        ids = session.infer(image_HW3)
    assert (ids == own_answer(tmp_path / "net.onnx", image_HW3, "NHWC", normalization="unit")).all()


def test_classes_that_can_be_first_or_last_are_not_guessed() -> None:
    assert class_axis((1, 19, 64, 128), (1024, 512), channels_last=True) == 1
    assert class_axis((1, 64, 128, 19), (1024, 512), channels_last=True) == 3
    assert class_axis((1, 64, 128, 19), (1024, 512), channels_last=False) is None
    assert class_axis((1, 32, 64, 128), (1024, 512), True, num_classes=32) == 1
    with pytest.raises(ValueError, match="classes can be first or last"):
        class_axis((1, 32, 64, 128), (1024, 512), channels_last=True)


def test_255_marks_pixels_of_no_class(tmp_path: Path) -> None:
    onnx.save(ending(FULL, IDS, ("Mul", {}, np.array(85)), kind=INT64), tmp_path / "net.onnx")
    with RealtimeSegmentation(tmp_path / "net.onnx", own_file=UNIT) as session:
        frame = noise(HEIGHT, WIDTH)
        assert set(np.unique(session.infer(frame))) == {0, 85, 170, 255}


@pytest.mark.parametrize("kind", ["net.onnx.data", "net.onnx_data", "other.bin", "a link"])
def test_weights_beside_a_file_are_read_where_they_bear_its_name(tmp_path: Path, kind: str) -> None:
    name = "net.onnx.data" if kind == "a link" else kind
    onnx.save(
        own_onnx(),
        tmp_path / "net.onnx",
        save_as_external_data=True,
        location=name,
        size_threshold=0,
    )
    if kind == "a link":
        (tmp_path / name).rename(tmp_path / "elsewhere")
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    if kind in ("a link", "other.bin"):
        with pytest.raises(BundleError, match="names the file"):
            RealtimeSegmentation(tmp_path / "net.onnx", own_file=UNIT)
        return
    image_HW3 = noise(HEIGHT, WIDTH)
    with RealtimeSegmentation(tmp_path / "net.onnx", own_file=UNIT) as session:
        ids = session.infer(image_HW3)
    expected = own_answer(tmp_path / "net.onnx", image_HW3, normalization="unit")
    assert (ids == expected).mean() >= 0.999


def test_nothing_but_errors_is_printed_of_a_file_with_unused_weights(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx.save(own_onnx(), tmp_path / "net.onnx")  # onnxruntime warns of each
    RealtimeSegmentation(tmp_path / "net.onnx", own_file=UNIT).close()
    assert capfd.readouterr().err == ""


def test_a_file_of_ours_says_itself_how_it_is_used(tmp_path: Path) -> None:
    plan = full_plan()
    (tmp_path / "net.onnx").write_bytes(onnx_with_metadata(plan.manifest))
    with pytest.raises(ValueError, match="leave --size, --normalization"):
        RealtimeSegmentation(tmp_path / "net.onnx", own_file=UNIT)


def onnx_with_metadata(manifest: Manifest) -> bytes:
    model = onnx.load_from_string(argmax_onnx())
    text = replace(manifest, artifacts=()).to_json()
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"size": 7}, "own_file.*size"),
        ({"colour": "rgb"}, "own_file.*colour"),
        ({"normalization": "unit", "size": "32x32"}, "own_file: runs at 32x32"),
    ],
)
def test_a_bundle_that_says_something_odd_of_its_file_is_not_run(
    tmp_path: Path, table: dict[str, Any], message: str
) -> None:
    model = own_onnx(size=("h", "w"))
    plan = empty_plan().with_artifact("cpu", model.SerializeToString())
    (artifact,) = plan.manifest.artifacts
    forged = replace(artifact, extra={**artifact.extra, "own_file": table})
    plan = replace(plan, manifest=replace(plan.manifest, artifacts=(forged,)))
    with pytest.raises(Exception, match=message):
        RealtimeSegmentation(plan.write(tmp_path / "b.fastseg"), selftest=False)
