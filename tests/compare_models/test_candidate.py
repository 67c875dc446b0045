import math
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from compare_models import memory
from compare_models.candidate import (
    BORDER_SHARE,
    OwnNetworks,
    border_share,
    feed_for,
    open_candidates,
    open_module,
    read_onnx,
    short_name,
    street_image,
)
from compare_models.speed import export_int8
from compare_models.timing import call_of
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.onnx.to_onnx import to_onnx
from fastseg_targets.target import load_target
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from fastseg import CheckpointError, DeployGraph
from fastseg.outputs import Reading
from tests.doubles.own_onnx import FIRST, HEIGHT, LAST, WIDTH, ending, own_onnx

SIZE = (128, 64)
MAIN = OwnNetworks(output_name="0")


def test_every_candidate_takes_the_same_bytes_and_gives_torchs_class_map(rival: str) -> None:
    candidates = open_candidates(["nano", rival], SIZE, classes=7, own=MAIN)
    assert [candidate.name for candidate in candidates] == ["nano", "tiny"]
    assert [candidate.is_ours for candidate in candidates] == [True, False]
    for candidate in candidates:
        (ids,) = call_of(candidate.model, candidate.feed, threads=1)()
        assert candidate.graph is not None
        expected = candidate.graph(torch.from_numpy(street_image(SIZE))).numpy()
        assert ids.shape == (1, 64, 128) and ids.dtype == np.uint8
        assert (ids == expected).mean() > 0.999


def test_others_get_resize_and_argmax_and_our_class_map_on_request(rival: str) -> None:
    (plain,) = open_candidates([rival], SIZE, classes=7, own=MAIN)
    (fast,) = open_candidates([rival], SIZE, classes=7, fast_tail=True, own=MAIN)
    assert "NonZero" not in operators(plain.model) and "NonZero" in operators(fast.model)
    ids = [call_of(candidate.model, candidate.feed, 1)()[0] for candidate in (plain, fast)]
    assert (ids[0] == ids[1]).mean() > 0.999


def test_an_onnx_file_that_gives_logits_gets_a_class_map(rival: str, tmp_path: Path) -> None:
    network = open_module(rival, SIZE, 7).eval()
    graph = DeployGraph(network, *SIZE, reading=Reading(7, "0"))
    onnx.save(to_onnx(network, torch.zeros(1, 3, 64, 128), graph), tmp_path / "net.onnx")
    from_file, from_torch = open_candidates(
        [str(tmp_path / "net.onnx"), rival], SIZE, classes=7, own=MAIN
    )
    assert from_file.name == "net" and from_file.graph is None
    ids = [call_of(c.model, c.feed, 1)()[0] for c in (from_file, from_torch)]
    assert ids[0].dtype == np.uint8
    assert (ids[0] == ids[1]).mean() > 0.999


def test_an_onnx_file_of_another_size_is_refused(rival: str, tmp_path: Path) -> None:
    network = open_module(rival, SIZE, 7).eval()
    model = to_onnx(
        network, torch.zeros(1, 3, 64, 128), DeployGraph(network, *SIZE, reading=Reading(7, "0"))
    )
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="export it for this size"):
        read_onnx(tmp_path / "net.onnx", (256, 64))


def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"bad\.onnx"):
        read_onnx(tmp_path / "bad.onnx", SIZE)


def test_an_unknown_network_is_refused_with_what_there_is() -> None:
    with pytest.raises(CheckpointError, match="variants are nano"):
        open_candidates(["nanoo"], SIZE, classes=7)


def test_equal_names_are_numbered() -> None:
    names = [c.name for c in open_candidates(["nano", "nano"], SIZE, classes=3)]
    assert names == ["nano", "nano-2"]


def test_an_untrained_network_has_as_many_borders_as_a_trained_one() -> None:
    network = open_module("nano", (256, 128), 19)
    graph = DeployGraph(network, 256, 128).eval()
    image_NHW3 = torch.from_numpy(street_image((256, 128)))
    with torch.inference_mode():
        logits = graph.core(graph.normalise(image_NHW3).permute(0, 3, 1, 2))
    assert border_share(logits) == pytest.approx(BORDER_SHARE, abs=0.03)


def test_names_are_short() -> None:
    assert short_name("rivals.nets:ddrnet") == "ddrnet"
    assert short_name("runs/camvid-small/model.safetensors") == "camvid-small"
    assert short_name("files/net.onnx") == "net"


def test_the_int8_form_is_the_graph_that_the_exporter_writes(tmp_path: Path) -> None:
    (candidate,) = open_candidates(["nano-synthetic"], SIZE, classes=11)
    assert candidate.graph is not None
    model = export_int8(candidate.graph)
    source = NetworkSource("nano-synthetic", size=SIZE)
    target, out = load_target("cpu-int8"), tmp_path / "nano.fastseg"
    assert export_bundle(Plan(Recipe(source), (target,), out)).failed == {}
    with zipfile.ZipFile(out) as bundle:
        (name,) = (name for name in bundle.namelist() if name.endswith(".onnx"))
        assert operators(model) == operators(onnx.load_from_string(bundle.read(name)))
    (ids,) = call_of(model, candidate.feed, threads=1)()
    assert ids.shape == (1, 64, 128)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_of_a_rivals_two_outputs_none_is_guessed(rival: str) -> None:
    with pytest.raises(CheckpointError, match="say which are, such as --output-name 0"):
        open_candidates([rival], SIZE, classes=7)


def test_a_rival_gets_its_own_normalisation_and_one_logit_its_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one_logit.py").write_text(
        "import torch\ndef one():\n    torch.manual_seed(0)\n    return torch.nn.Conv2d(3, 1, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    bgr_13HW = torch.from_numpy(street_image(SIZE)).permute(0, 3, 1, 2).flip(1) / 255
    with torch.inference_mode():
        probability_1HW = torch.nn.Conv2d(3, 1, 1)(bgr_13HW)[:, 0].sigmoid()
    own = OwnNetworks("unit", "bgr", threshold=float(probability_1HW.median()))
    (candidate,) = open_candidates(["one_logit:one"], SIZE, classes=2, own=own)
    (ids,) = call_of(candidate.model, candidate.feed, threads=1)()
    assert 0.3 < ids.mean() < 0.7
    assert (ids == (probability_1HW > own.threshold).numpy()).mean() > 0.99


@pytest.mark.parametrize("picture", ["float", "uint8"])
@pytest.mark.parametrize(
    ("layout", "output"), [("NCHW", "logits"), ("NCHW", "uint8"), ("NHWC", "uint8")]
)
def test_every_file_takes_a_cameras_bytes_and_normalises_them_inside(
    tmp_path: Path, layout: str, picture: str, output: str
) -> None:
    theirs = own_onnx(layout=layout, picture=picture, output=output)
    onnx.save(theirs, tmp_path / "theirs.onnx")
    graph = read_onnx(tmp_path / "theirs.onnx", (WIDTH, HEIGHT))
    image_1HW3 = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    feed = feed_for(graph, image_1HW3)
    assert [(array.dtype, array.shape) for array in feed.values()] == [(np.uint8, image_1HW3.shape)]
    (ours,) = InferenceSession(graph.SerializeToString()).run(None, feed)
    image = image_1HW3 if layout == "NHWC" else image_1HW3.transpose(0, 3, 1, 2)
    if picture == "float":
        image = (image.astype(np.float32) - 128) / 64
    (expected,) = InferenceSession(theirs.SerializeToString()).run(None, {"image": image})
    if output == "uint8":
        np.testing.assert_array_equal(ours, expected.reshape(ours.shape))
    else:
        assert ours.shape == (1, HEIGHT, WIDTH) and ours.max() < expected.shape[1]


def test_a_mask_of_two_classes_is_taken_as_their_ids(tmp_path: Path) -> None:
    ids_of_two = ("Cast", {"to": TensorProto.BOOL})
    onnx.save(ending(ids_of_two, kind=TensorProto.BOOL, output="uint8"), tmp_path / "theirs.onnx")
    graph = read_onnx(tmp_path / "theirs.onnx", (WIDTH, HEIGHT))
    (ids,) = call_of(graph, feed_for(graph, street_image((WIDTH, HEIGHT))), threads=1)()
    assert ids.dtype == bool and ids.shape == (1, HEIGHT, WIDTH)


@pytest.mark.parametrize("output", ["logits", "one"])
@pytest.mark.parametrize("turns", [(), (FIRST,), (LAST,)])
def test_a_class_map_is_made_over_the_classes_wherever_they_lie(
    turns: tuple[object, ...], output: str, tmp_path: Path
) -> None:
    layout = "NHWC" if FIRST in turns else "NCHW"
    onnx.save(ending(*turns, layout=layout, output=output), tmp_path / "theirs.onnx")
    graph = read_onnx(tmp_path / "theirs.onnx", (WIDTH, HEIGHT))
    image_1HW3 = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    (ids,) = InferenceSession(graph.SerializeToString()).run(None, feed_for(graph, image_1HW3))
    image_13HW = (image_1HW3.transpose(0, 3, 1, 2).astype(np.float32) - 128) / 64
    plain = InferenceSession(own_onnx(output=output).SerializeToString())
    (logits,) = plain.run(None, {"image": image_13HW})
    full = F.interpolate(torch.from_numpy(logits), (HEIGHT, WIDTH), mode="bilinear").numpy()
    expected = full.argmax(1) if output == "logits" else full[:, 0] > 0
    assert ids.dtype == np.uint8 and ids.shape == (1, HEIGHT, WIDTH)
    assert (ids == expected).mean() > 0.999


# Which rows and columns are left depends on the picture, for all that a file says.
UNTOLD = [("Compress", {"axis": axis}, np.ones(side, bool)) for axis, side in ((2, 12), (3, 16))]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ending(("Cast", {"to": TensorProto.DOUBLE}), kind=TensorProto.DOUBLE), "gives DOUBLE"),
        (ending(("Transpose", {"perm": [0, 2, 1, 3]})), r"FLOAT \[1, 12, 4, 16\]"),
        (ending(("Tile", {}, np.array([1, 64, 1, 1]))), "of at most 255 classes"),
        (ending(("Compress", {"axis": 2}, np.ones(12, bool))), r"FLOAT \[1, 4, \?, 16\]"),
        (ending(*UNTOLD), r"FLOAT \[1, 4, \?, \?\] in opset .*; a \? is what"),
    ],
)
def test_scores_that_do_not_lie_over_the_picture_are_refused_with_their_shape(
    model: onnx.ModelProto, said: str, tmp_path: Path
) -> None:
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(ValueError, match=said):
        read_onnx(tmp_path / "theirs.onnx", (WIDTH, HEIGHT))


def test_a_file_whose_classes_can_be_first_or_last_is_refused_with_its_name(tmp_path: Path) -> None:
    onnx.save(own_onnx(layout="NHWC", size=("h", "w")), tmp_path / "theirs.onnx")
    with pytest.raises(
        ValueError, match=r"theirs\.onnx gives \(1, 4, 4, 4\), whose classes can be"
    ):
        read_onnx(tmp_path / "theirs.onnx", (16, 16))


@pytest.mark.parametrize("output", ["logits", "uint8"])
def test_of_a_file_nothing_but_what_its_first_output_needs_is_compared(
    output: str, tmp_path: Path
) -> None:
    theirs = own_onnx(output=output)
    onnx.save(theirs, tmp_path / "theirs.onnx")
    alone = operators(read_onnx(tmp_path / "theirs.onnx", (WIDTH, HEIGHT)))
    theirs.graph.node.append(helper.make_node("Conv", ["a", "w1"], ["other"]))
    theirs.graph.node.append(helper.make_node("Dropout", ["other"], ["auxiliary", ""]))
    theirs.graph.output.append(helper.make_tensor_value_info("auxiliary", TensorProto.FLOAT, None))
    onnx.save(theirs, tmp_path / "theirs.onnx")
    both = read_onnx(tmp_path / "theirs.onnx", (WIDTH, HEIGHT))
    assert len(both.graph.output) == 1 and operators(both) == alone


def test_what_a_branch_takes_from_around_it_is_kept(tmp_path: Path) -> None:
    theirs = own_onnx()
    (main,) = theirs.graph.output
    branch = helper.make_graph(
        [helper.make_node("Neg", [main.name], ["turned"])],
        "branch",
        [],
        [helper.make_tensor_value_info("turned", TensorProto.FLOAT, None)],
    )
    theirs.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    theirs.graph.node.append(
        helper.make_node("If", ["yes"], ["either"], then_branch=branch, else_branch=branch)
    )
    dims = [1, 4, HEIGHT // 4, WIDTH // 4]
    main.CopyFrom(helper.make_tensor_value_info("either", TensorProto.FLOAT, dims))
    onnx.save(theirs, tmp_path / "theirs.onnx")
    onnx.checker.check_model(read_onnx(tmp_path / "theirs.onnx", (WIDTH, HEIGHT)), full_check=True)


def test_memory_is_unknown_where_no_kernel_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Path, "exists", lambda path: False)
    assert math.isnan(memory._status_mb("VmRSS"))
    monkeypatch.setattr(memory, "TIMEOUT_S", 0.01)
    assert math.isnan(memory.peak_memory_mb(own_onnx(), {}, 1))


def test_memory_is_unknown_where_the_process_fails_and_it_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert math.isnan(memory.peak_memory_mb(own_onnx(), {}, 1))  # without a picture
    assert "measuring memory failed: " in capsys.readouterr().err
