from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from compare_models.candidate import open_module, street_image
from compare_models.onnx_file import feed_for, read_onnx
from compare_models.timing import call_of
from fastseg_exporters.onnx.to_onnx import to_onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from fastseg import DeployGraph
from fastseg.outputs import Reading
from tests.compare_models.conftest import operators
from tests.doubles.own_onnx import FIRST, HEIGHT, LAST, WIDTH, ending, own_onnx

SIZE = (128, 64)


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


@pytest.mark.parametrize(
    ("layout", "kind"), [("NHWC", "DOUBLE"), ("NHWC", "INT8"), ("NCHW", "INT32")]
)
def test_a_file_that_takes_another_kind_of_picture_is_refused_with_it(
    layout: str, kind: str, tmp_path: Path
) -> None:
    theirs = own_onnx(layout=layout, picture="uint8")
    theirs.graph.input[0].type.tensor_type.elem_type = TensorProto.DataType.Value(kind)
    onnx.save(theirs, tmp_path / "theirs.onnx")
    with pytest.raises(ValueError, match=rf"theirs\.onnx takes {kind}; expected an image as FLOAT"):
        read_onnx(tmp_path / "theirs.onnx", (WIDTH, HEIGHT))


def test_a_file_whose_operators_have_no_version_is_refused_with_onnxs_words(tmp_path: Path) -> None:
    theirs = own_onnx()
    del theirs.opset_import[:]
    theirs.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(theirs, tmp_path / "theirs.onnx")
    with pytest.raises(ValueError, match=r"theirs\.onnx is not sound, .* No opset import"):
        read_onnx(tmp_path / "theirs.onnx", (WIDTH, HEIGHT))
