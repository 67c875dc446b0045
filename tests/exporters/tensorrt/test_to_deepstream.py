"""What is written for DeepStream, fed and read as its nvinfer does it.

nvinfer() below says after NVIDIA's manual of Gst-nvinfer and the sources that DeepStream ships what
becomes of a frame. DeepStream itself is not here.
"""

import configparser
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fastseg_exporters.gate.referees.judge import judge
from fastseg_exporters.gate.referees.referee import REFEREES
from fastseg_exporters.onnx.to_onnx import float_graph, take_bytes
from fastseg_exporters.tensorrt.to_deepstream import (
    Written,
    nvinfer_graph,
    temperature_of,
    write_deepstream,
)
from fastseg_exporters.tensorrt.to_tensorrt import quantize, tensorrt_onnx
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_runtime.bundle.manifest import Artifact, ClassInfo, InputSpec, OutputSpec, palette
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.engines.frame_runner import MOST_BILINEAR
from torch import Tensor, nn

from fastseg import DeployGraph, FastSegNet, open_network
from fastseg.deploy import Confidence
from fastseg.normalization import parse_normalization
from fastseg.outputs import Reading
from tests.doubles.tiny_bundle import CLASSES, empty_plan, noise

WIDTH, HEIGHT = 96, 64
REFEREE = REFEREES["tensorrt-rtx"]
CACHE = cache_folder()  # the user's own, before tests get one of theirs
# Of the table "Gst-nvinfer property group supported keys" of NVIDIA's manual.
DOCUMENTED = {
    *("gpu-id", "gie-unique-id", "process-mode", "network-type", "onnx-file", "model-engine-file"),
    *("network-mode", "batch-size", "infer-dims", "model-color-format", "net-scale-factor"),
    *("offsets", "maintain-aspect-ratio", "symmetric-padding", "scaling-filter"),
    *("num-detected-classes", "labelfile-path", "output-blob-names", "segmentation-threshold"),
    *("segmentation-output-order", "output-tensor-meta"),
}


def groups_of(path: Path) -> dict[str, dict[str, str]]:
    """Read a configuration as GLib's key files are read: no comment behind a value."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    parser.read_string(path.read_text("utf-8"))
    return {name: dict(parser[name]) for name in parser.sections()}


def config_of(path: Path) -> dict[str, str]:
    return groups_of(path)["property"]


def nvinfer(path: Path, *frames_HW3: Array, threshold: float | None = None) -> list[Array]:
    """Return the class map of each frame, int32 (h, w), -1 for no class: one batch."""
    asked = config_of(path)
    session = onnxruntime.InferenceSession(
        path.parent / asked["onnx-file"], providers=["CPUExecutionProvider"]
    )
    fed_N3HW = np.stack([preprocess(asked, frame_HW3) for frame_HW3 in frames_HW3])
    (scores_NKhw,) = session.run([asked["output-blob-names"]], {"image": fed_N3HW})
    above = float(asked["segmentation-threshold"]) if threshold is None else threshold
    return [largest(scores_Khw, above) for scores_Khw in scores_NKhw]


def preprocess(asked: dict[str, str], frame_HW3: Array) -> Array:
    """Scale and pad an RGB frame as gstnvinfer.cpp does, normalise it as libnvds_infer does."""
    channels, height, width = map(int, asked["infer-dims"].split(";"))
    canvas_HW3 = np.zeros((height, width, channels), np.uint8)  # padded in black
    top, left, rows, columns = placed(asked, frame_HW3)
    assert asked["scaling-filter"] == "1", "bilinear"
    scaled_hw3 = cv2.resize(frame_HW3, (columns, rows), interpolation=cv2.INTER_LINEAR)
    canvas_HW3[top : top + rows, left : left + columns] = scaled_hw3
    if asked["model-color-format"] == "1":
        canvas_HW3 = canvas_HW3[..., ::-1]
    offsets = np.array(asked["offsets"].split(";"), np.float32)
    scale = np.float32(asked["net-scale-factor"])
    return np.ascontiguousarray((scale * (canvas_HW3 - offsets)).transpose(2, 0, 1))


def placed(asked: dict[str, str], frame_HW3: Array) -> tuple[int, int, int, int]:
    """Return top, left, rows and columns of a frame in the network's input."""
    _, height, width = map(int, asked["infer-dims"].split(";"))
    if asked["maintain-aspect-ratio"] == "0":
        return 0, 0, height, width
    source_height, source_width = frame_HW3.shape[:2]
    rows, columns = int(width * source_height / source_width), width  # a double becomes an integer
    if rows > height:
        rows, columns = height, int(height * source_width / source_height)
    if asked["symmetric-padding"] == "0":
        return 0, 0, rows, columns
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def to_frame(ids_hw: Array, asked: dict[str, str], frame_HW3: Array) -> Array:
    """Return the id under the centre of each pixel of a frame."""
    top, left, rows, columns = placed(asked, frame_HW3)
    height, width = frame_HW3.shape[:2]
    y_H = top + (2 * np.arange(height) + 1) * rows // (2 * height)
    x_W = left + (2 * np.arange(width) + 1) * columns // (2 * width)
    ids_HW: Array = ids_hw[y_H][:, x_W]
    return ids_HW


def largest(scores_Khw: Array, threshold: float) -> Array:
    """Return what SegmentPostprocessor::fillSegmentationOutput makes of scores."""
    best_hw = np.full(scores_Khw.shape[1:], -1, np.float32)
    ids_hw = np.full(scores_Khw.shape[1:], -1, np.int32)
    for index, scores_hw in enumerate(scores_Khw):
        wins_hw = (scores_hw > best_hw) & (scores_hw > threshold)
        ids_hw[wins_hw], best_hw[wins_hw] = index, scores_hw[wins_hw]
    return ids_hw


def make_bundle(
    path: Path, graph: DeployGraph, model: onnx.ModelProto, precision: str, **fields: Any
) -> Path:
    """Write a bundle with one artifact, jetson-PRECISION, and scenes of noise."""
    fields = {
        "input": InputSpec(graph.width, graph.height, mean=graph.mean, std=graph.std),
        "output": OutputSpec(graph.output, graph.mask_stride),
        **fields,
    }
    io = {"image": "uint8 NHWC", graph.output: "uint8" if graph.output == "classes" else "float32"}
    if graph.confidence is not None:
        io["confidence"] = "uint8"
    plan = empty_plan(graph.width, graph.height, **fields).with_artifact(
        f"jetson-{precision}",
        model.SerializeToString(),
        precision=precision,
        requires={"backend": "tensorrt"},
        io=io,
    )
    for seed in range(2):
        image_HW3 = noise(graph.height, graph.width, seed)
        plan = plan.with_scene(image_HW3, np.zeros(image_HW3.shape[:2], np.uint8))
    return plan.write(path)


def written(bundle: Path, folder: Path) -> Written:
    with open_bundle(bundle) as opened:
        (one,) = write_deepstream(opened, {a.target for a in opened.manifest.artifacts}, folder)
    return one


def fastsegnet(width: int = WIDTH, height: int = HEIGHT, **options: Any) -> DeployGraph:
    """Return the graph of a network of noise that sees each class in some of a mosaic's pixels."""
    torch.manual_seed(0)
    network = FastSegNet(len(CLASSES), "nano").eval()
    image_13HW = torch.from_numpy(mosaic(64, 96)).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits_1Khw = network.logits((image_13HW.float() - 128) / 64)
        network.head[-1].bias -= logits_1Khw.mean((0, 2, 3))
    return DeployGraph(network, width, height, **options).eval()


def mosaic(height: int, width: int) -> Array:
    """Return soft spots of colour, uint8 RGB."""
    return cv2.resize(noise(8, 12), (width, height))


def with_confidence() -> DeployGraph:
    graph = fastsegnet()
    graph.confidence = Confidence(1.5)
    return graph


class Own(nn.Module):
    """A network of somebody else's, at 1/4, whose logits are far below nvinfer's first -1."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, classes, 5, stride=4, padding=2)

    def forward(self, image_N3HW: Tensor) -> Tensor:
        logits_NKhw: Tensor = self.conv(image_N3HW) - 60
        return logits_NKhw


class OneLogit(Own):
    """A binary network: one logit, two classes."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, image_N3HW: Tensor) -> Tensor:
        return self.conv(image_N3HW)


class Flat(Own):
    """Its head writes the batch size of its example into the graph."""

    def forward(self, image_N3HW: Tensor) -> Tensor:
        logits_1KL: Tensor = self.conv(image_N3HW).reshape(1, 3, -1)
        logits_1KL = logits_1KL - logits_1KL.mean(dim=2, keepdim=True)
        return logits_1KL.reshape(1, 3, HEIGHT // 4, WIDTH // 4)


def own(network: nn.Module, **options: Any) -> DeployGraph:
    return DeployGraph(network, WIDTH, HEIGHT, **options).eval()


IMAGENET = parse_normalization("imagenet", "bgr")
OURS: dict[str, Callable[[], DeployGraph]] = {
    "a size that the network pads": lambda: fastsegnet(88, 56),
    "a confidence beside it": with_confidence,
}
GRAPHS: dict[str, Callable[[], DeployGraph]] = {
    "masks of stride 2": lambda: own(Own(), mask_stride=2),
    "masks of stride 4": lambda: own(Own(), mask_stride=4),
    "logits below -1": lambda: own(Own()),
    "its own normalisation, in BGR": lambda: own(Own(), normalization=IMAGENET),
    "another scalar pair": lambda: own(Own(), mean=100.0, std=57.0),
    "one logit": lambda: own(OneLogit(), reading=Reading(2, threshold=0.5)),
    "a size of one frame written into it": lambda: own(Flat()),
}


@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(make, id=name) for name, make in GRAPHS.items()),
        *(pytest.param(make, id=name, marks=pytest.mark.slow) for name, make in OURS.items()),
    ],
)
def test_nvinfer_gets_the_runtimes_ids_from_what_is_written(
    tmp_path: Path, make: Callable[[], DeployGraph]
) -> None:
    graph = make()
    classes = CLASSES[: 2 if "OneLogit" in str(graph) else 3]
    bundle = make_bundle(
        tmp_path / "a.fastseg", graph, tensorrt_onnx(graph), "fp16", classes=classes
    )
    one = written(bundle, tmp_path / "ds")
    assert one.agreement > 0.999
    frame_HW3 = mosaic(graph.height, graph.width)
    with RealtimeSegmentation(bundle, "onnxruntime", selftest=False) as session:
        ids_HW = session.infer(frame_HW3)
    (found_hw,) = nvinfer(one.config, frame_HW3)
    assert found_hw.shape == graph.mask_size
    stride = graph.mask_stride
    found_HW = found_hw.repeat(stride, axis=0).repeat(stride, axis=1)
    assert (found_HW == ids_HW).mean() > 0.999
    assert len(np.unique(found_hw)) > 1


def test_the_probabilities_have_the_artifacts_temperature() -> None:
    model, spec = tensorrt_onnx(own(Own())), InputSpec(WIDTH, HEIGHT)
    image = np.random.default_rng(0).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)
    plain, warm = (
        onnxruntime.InferenceSession(nvinfer_graph(model, spec, t).SerializeToString()).run(
            None, {"image": image}
        )[0]
        for t in (1.0, 1.5)
    )
    expected = (torch.from_numpy(plain).log() / 1.5).softmax(1).numpy()
    np.testing.assert_allclose(warm, expected, atol=1e-5)
    kept = Artifact("t", "onnx", "fp16", "m", (), verification={"confidence": {"temperature": 1.5}})
    assert temperature_of(kept) == 1.5
    assert temperature_of(replace(kept, verification=None)) == 1


def test_a_graph_takes_several_frames_at_once_where_its_network_does(tmp_path: Path) -> None:
    graph, fixed = own(Own()), own(Flat())
    one = written(
        make_bundle(tmp_path / "a.fastseg", graph, tensorrt_onnx(graph), "fp16"), tmp_path
    )
    assert one.any_batch
    frames = [noise(HEIGHT, WIDTH, seed) for seed in (5, 6, 7)]
    at_once = nvinfer(one.config, *frames)
    for frame_HW3, ids_HW in zip(frames, at_once, strict=True):
        np.testing.assert_array_equal(nvinfer(one.config, frame_HW3)[0], ids_HW)
    bundle = make_bundle(tmp_path / "b.fastseg", fixed, tensorrt_onnx(fixed), "fp32")
    other = written(bundle, tmp_path / "fixed")
    assert not other.any_batch
    assert "| 1 alone |" in (tmp_path / "fixed/README.md").read_text("utf-8")
    nvinfer(other.config, frames[0])


def test_int8_keeps_the_artifacts_ranges_and_asks_for_an_engine_that_nvinfer_cannot_build(
    tmp_path: Path,
) -> None:
    graph = own(Own())
    images = (noise(HEIGHT, WIDTH, seed)[None] for seed in range(4))
    int8 = quantize(tensorrt_onnx(graph), images, graph.mean, graph.std)
    one = written(make_bundle(tmp_path / "a.fastseg", graph, int8, "int8"), tmp_path)
    assert one.agreement > 0.999
    asked = config_of(one.config)
    assert (asked["network-mode"], asked["model-engine-file"]) == ("1", "jetson-int8.engine")
    made = onnx.load(tmp_path / asked["onnx-file"])
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("QuantizeLinear") == [n.op_type for n in int8.graph.node].count(
        "QuantizeLinear"
    )
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert "trtexec --onnx=jetson-int8.onnx --int8" in readme
    assert one.any_batch and f"--maxShapes=image:1x3x{HEIGHT}x{WIDTH}" in readme


@pytest.mark.parametrize(("precision", "mode"), [("fp16", "2"), ("fp32", "0")])
def test_nvinfer_builds_what_was_really_made(tmp_path: Path, precision: str, mode: str) -> None:
    graph = own(Own())
    bundle = make_bundle(tmp_path / "a.fastseg", graph, tensorrt_onnx(graph), precision)
    asked = config_of(written(bundle, tmp_path).config)
    assert asked["network-mode"] == mode
    assert asked["model-engine-file"] == f"jetson-{precision}.onnx_b1_gpu0_{precision}.engine"


def test_each_key_is_in_nvidias_manual_and_each_file_beside_the_configuration(
    tmp_path: Path,
) -> None:
    graph = own(Own())
    fields = {"input": InputSpec(WIDTH, HEIGHT, resize="letterbox")}
    bundle = make_bundle(tmp_path / "a.fastseg", graph, tensorrt_onnx(graph), "fp16", **fields)
    one = written(bundle, tmp_path / "ds")
    asked = config_of(one.config)
    assert set(asked) == DOCUMENTED
    assert (asked["maintain-aspect-ratio"], asked["symmetric-padding"]) == ("1", "1")
    assert asked["infer-dims"] == f"3;{HEIGHT};{WIDTH}"
    made = {file.name for file in (tmp_path / "ds").iterdir()}
    files = {asked["onnx-file"], asked["labelfile-path"], one.config.name}
    assert made == {*files, "deepstream_app_jetson-fp16.txt", "colors.csv", "README.md"}
    assert "$" not in (tmp_path / "ds/README.md").read_text("utf-8")


def test_nvidias_sample_application_shows_a_map_of_its_size(tmp_path: Path) -> None:
    graph = own(Own(), mask_stride=2)
    bundle = make_bundle(tmp_path / "a.fastseg", graph, tensorrt_onnx(graph), "fp16")
    one = written(bundle, tmp_path / "ds")
    app = groups_of(tmp_path / "ds/deepstream_app_jetson-fp16.txt")
    assert (tmp_path / "ds" / app["primary-gie"]["config-file"]) == one.config
    shown = (int(app["segvisual"]["height"]), int(app["segvisual"]["width"]))
    assert shown == graph.mask_size == nvinfer(one.config, mosaic(HEIGHT, WIDTH))[0].shape
    assert all(app[name]["enable"] == "1" for name in ("source0", "primary-gie", "segvisual"))


def test_the_threshold_is_a_probability_below_which_a_pixel_has_no_class(tmp_path: Path) -> None:
    graph = own(Own())
    one = written(
        make_bundle(tmp_path / "a.fastseg", graph, tensorrt_onnx(graph), "fp16"), tmp_path
    )
    frame_HW3 = mosaic(HEIGHT, WIDTH)
    with torch.inference_mode():
        image_13HW = (torch.from_numpy(frame_HW3).permute(2, 0, 1)[None] - 128.0) / 64
        sure_HW = graph.upsample(graph.core(image_13HW)).softmax(dim=1).amax(dim=1)[0].numpy()
    limit = float(np.median(sure_HW))
    (ids_HW,) = nvinfer(one.config, frame_HW3, threshold=limit)
    is_near_HW = np.abs(sure_HW - limit) < 1e-4
    np.testing.assert_array_equal((ids_HW >= 0)[~is_near_HW], (sure_HW > limit)[~is_near_HW])
    assert 0.3 < (ids_HW == -1).mean() < 0.7
    assert (nvinfer(one.config, frame_HW3, threshold=1.0)[0] == -1).all()
    assert (nvinfer(one.config, frame_HW3)[0] >= 0).all()


def test_names_and_colours_stand_in_the_order_of_ids(tmp_path: Path) -> None:
    classes = (ClassInfo("road; wet", (1, 2, 3)), ClassInfo("Bürgersteig", (4, 5, 6)), CLASSES[2])
    graph = own(Own())
    model = tensorrt_onnx(graph)
    written(make_bundle(tmp_path / "a.fastseg", graph, model, "fp16", classes=classes), tmp_path)
    labels = (tmp_path / "labels.txt").read_text("utf-8").splitlines()
    assert labels == ["road, wet", "Bürgersteig", "blue"]  # nvinfer splits at semicolons
    table = np.loadtxt(tmp_path / "colors.csv", np.uint8, delimiter=",", skiprows=1)
    np.testing.assert_array_equal(table[:, 0], range(3))
    np.testing.assert_array_equal(table[:, 1:], palette(classes)[:3])


def test_logits_and_files_of_another_make_are_refused_in_one_line(tmp_path: Path) -> None:
    logits, graph = own(Own(), output="logits"), own(Own())
    bundle = make_bundle(tmp_path / "a.fastseg", logits, tensorrt_onnx(logits), "fp32")
    with pytest.raises(ValueError, match="jetson-fp32: .* leave --output logits out"):
        written(bundle, tmp_path / "ds")
    other = take_bytes(float_graph(graph), graph)  # as a CPU takes it: no ArgMax over all pixels
    bundle = make_bundle(tmp_path / "b.fastseg", graph, other, "fp32")
    with pytest.raises(ValueError, match="jetson-fp32: no graph for DeepStream can be made of it"):
        written(bundle, tmp_path / "ds")


def test_artifacts_for_other_engines_and_targets_that_were_not_asked_for_are_left_out(
    tmp_path: Path,
) -> None:
    graph = own(Own())
    bundle = make_bundle(tmp_path / "a.fastseg", graph, tensorrt_onnx(graph), "fp16")
    with open_bundle(bundle) as opened:
        assert write_deepstream(opened, {"jetson-int8"}, tmp_path / "ds") == []
        (artifact,) = opened.manifest.artifacts
        cpu = replace(artifact, requires={"backend": "onnxruntime"})
        opened.manifest = replace(opened.manifest, artifacts=(cpu,))
        assert write_deepstream(opened, {"jetson-fp16"}, tmp_path / "ds") == []
    assert list((tmp_path / "ds").iterdir()) == []


@pytest.mark.parametrize("size", [(60, 80), (90, 40), (64, 96), (32, 96), (50, 99)])
def test_letterboxed_frames_have_the_bars_that_the_network_was_trained_with(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    graph = own(Own())
    spec = InputSpec(WIDTH, HEIGHT, resize="letterbox")
    bundle = tmp_path / "a.fastseg"
    one = written(make_bundle(bundle, graph, tensorrt_onnx(graph), "fp16", input=spec), tmp_path)
    asked, frames = config_of(one.config), [mosaic(*size), np.zeros((*size, 3), np.uint8)]
    with RealtimeSegmentation(bundle, "onnxruntime", selftest=False) as session:
        for frame_HW3, found_hw in zip(frames, nvinfer(one.config, *frames), strict=True):
            found_HW = to_frame(found_hw, asked, frame_HW3)
            same_HW = found_HW == session.infer(frame_HW3)
            # The network sees five pixels about its own; a wholly black frame keeps black bars,
            # and a frame's last row may be cut where nvinfer rounds down.
            assert (same_HW[8:-8, 8:-8] if not frame_HW3.any() else same_HW).mean() > 0.99


@pytest.fixture
def real_frames() -> list[Array]:
    """Return pictures of streets, 480x360 and 1280x720, RGB."""
    camvid, clips = os.environ.get("FASTSEG_CAMVID"), os.environ.get("FASTSEG_CLIPS")
    if not camvid or not clips:
        pytest.skip("FASTSEG_CAMVID and FASTSEG_CLIPS are not set: no real frames here")
    files = [*sorted((Path(camvid) / "test").rglob("*.*g"))[:40:10]]
    files += sorted(Path(clips).rglob("*.jpg"))[:4]
    pictures = [cv2.imread(str(file)) for file in files]
    return [picture[..., ::-1].copy() for picture in pictures if picture is not None]


@pytest.mark.slow
def test_of_real_frames_nvinfer_gets_the_runtimes_ids(
    tmp_path: Path, real_frames: list[Array]
) -> None:
    network = open_network("small-camvid", size=(512, 256))
    graph = DeployGraph(network.model, 512, 256).eval()
    model = tensorrt_onnx(graph)
    for fit in ("stretch", "letterbox"):
        fields = {"classes": network.info.classes, "input": InputSpec(512, 256, resize=fit)}
        path = tmp_path / f"{fit}.fastseg"
        one = written(make_bundle(path, graph, model, "fp16", **fields), tmp_path)
        asked = config_of(one.config)
        shares: dict[bool, list[float]] = {False: [], True: []}
        with RealtimeSegmentation(path, "onnxruntime", selftest=False) as session:
            for frame_HW3 in real_frames:
                found_HW = to_frame(nvinfer(one.config, frame_HW3)[0], asked, frame_HW3)
                is_averaged = frame_HW3.shape[1] > MOST_BILINEAR * 512  # by the runtime
                shares[is_averaged].append(float((found_HW == session.infer(frame_HW3)).mean()))
        for averaged, found in shares.items():
            print(
                f"{fit}, {averaged=}: {len(found)} frames, {np.mean(found):.5f}, {min(found):.5f}"
            )
        assert min(shares[False]) >= 0.9999 and min(shares[True]) >= 0.97


@pytest.mark.slow
@pytest.mark.skipif(not REFEREE.is_installed, reason="no referee here: make referees")
def test_nvidias_parser_takes_the_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(CACHE))
    files, work = tmp_path / "files", tmp_path / "work"
    work.mkdir()
    light = own(Own())
    int8 = quantize(tensorrt_onnx(light), [noise(HEIGHT, WIDTH)[None]], light.mean, light.std)
    ours, boxed = fastsegnet(), InputSpec(WIDTH, HEIGHT, resize="letterbox")
    for graph, made, precision, fields in (
        (ours, tensorrt_onnx(ours), "fp16", {"input": boxed}),
        (light, int8, "int8", {}),
    ):
        bundle = make_bundle(tmp_path / "a.fastseg", graph, made, precision, **fields)
        assert written(bundle, files).any_batch
    for file in files.glob("*.onnx"):  # the referee gives builders no range of batches
        model = onnx.load(file)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(model, file)
    artifact = Artifact("jetson-x", "onnx", "fp32", "artifacts/jetson-x/jetson-fp16.onnx", ())
    said = judge(REFEREE, artifact, files, work)
    assert said.outcome == "accepted", said.says
    assert {"jetson-fp16.onnx", "jetson-int8.onnx"} == set(said.facts)
