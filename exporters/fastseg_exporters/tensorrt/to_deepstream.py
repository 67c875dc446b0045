"""DeepStream: what its element nvinfer takes to segment, made of an artifact for TensorRT.

nvinfer feeds float32 (N, 3, H, W): net-scale-factor * (byte - offset). Of the scores (N, K, h, w)
that it is given each pixel takes the first class of the largest, if that is above -1 and above
segmentation-threshold; without one its id is -1. Logits may all be below -1, so the graph ends in
a softmax, of logits upsampled as for the class map. The rest is the artifact's, ranges of int8 too,
which the gate has judged.

Sources: the manual of Gst-nvinfer (docs.nvidia.com/metropolis/deepstream), and the sources of
nvinfer, libnvds_infer and nvsegvisual, which DeepStream ships.
"""

import copy
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fastseg_runtime.arrays.metrics import Array, agreement
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.bundle.manifest import Artifact, InputSpec, Manifest
from fastseg_runtime.bundle.reader import Bundle
from fastseg_runtime.engines.engine import ENGINES, find_precision
from fastseg_runtime.engines.frame_runner import FrameFit
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.utils import Extractor

IMAGE, PROBABILITIES, BATCH = "image", "probabilities", "batch"
LABELS, COLORS, README = "labels.txt", "colors.csv", "README.md"
FP32, INT8, FP16 = 0, 1, 2  # nvinfer's network-mode
# Rounding alone: the artifact's own file runs in the same engine.
LEAST_AGREEMENT = 0.99
CONFIG = """\
# Gst-nvinfer, network $name, target $target. $readme says how to run it.
[property]
gpu-id=0
gie-unique-id=1
process-mode=1
network-type=2
onnx-file=$onnx
model-engine-file=$engine
network-mode=$mode
batch-size=1
infer-dims=3;$height;$width
model-color-format=$color
net-scale-factor=$scale
offsets=$mean;$mean;$mean
maintain-aspect-ratio=$letterbox
symmetric-padding=$letterbox
scaling-filter=1
num-detected-classes=$classes
labelfile-path=$labels
output-blob-names=$output
segmentation-output-order=0
segmentation-threshold=0.0
output-tensor-meta=0
"""
APP = """\
# deepstream-app -c $app; the video and its size are yours.
[application]
enable-perf-measurement=1
perf-measurement-interval-sec=5
[source0]
enable=1
type=3
uri=file://drive.mp4
num-sources=1
[streammux]
batch-size=1
width=1920
height=1080
batched-push-timeout=40000
[primary-gie]
enable=1
batch-size=1
gie-unique-id=1
config-file=$config
[segvisual]
enable=1
batch-size=1
width=$mask_width
height=$mask_height
[sink0]
enable=1
type=2
sync=0
"""


@dataclass(frozen=True)
class Written:
    """A configuration of nvinfer.

    Attributes:
        target: of the artifact that it was made of.
        config: its file.
        agreement: of its class maps with the artifact's, the least of the bundle's scenes; 0 to 1.
        any_batch: the graph takes as many frames at once as batch-size says.
    """

    target: str
    config: Path
    agreement: float
    any_batch: bool


def takes_deepstream(artifact: Artifact) -> bool:
    """Return whether an artifact was made for TensorRT, which is what DeepStream runs on."""
    return artifact.requires.get("backend") == ENGINES["tensorrt"].name


def write_deepstream(bundle: Bundle, targets: Collection[str], folder: Path) -> list[Written]:
    """Write configurations, networks, labels, colours and a README into a folder.

    Raises:
        ValueError: an artifact gives logits, is not as we export it, or its graph for nvinfer gives
            other classes.
        BundleError, OSError: from reading and writing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [a for a in bundle.manifest.artifacts if a.target in targets and takes_deepstream(a)]
    written = [_write(bundle, artifact, folder) for artifact in chosen]
    if written:
        _write_class_files(bundle.manifest, folder)
        _write_readme(bundle.manifest, chosen, written, folder)
    return written


def _write(bundle: Bundle, artifact: Artifact, folder: Path) -> Written:
    manifest, name = bundle.manifest, artifact.target
    model = onnx.load_from_string(bundle.read(artifact.entry))
    try:
        graph = nvinfer_graph(model, manifest.input, temperature_of(artifact))
        images = [_fitted(image_HW3, manifest) for image_HW3, _ in bundle.selftests()]
        share = _agreement(model, graph, images, manifest.input)
        if share < LEAST_AGREEMENT:
            raise ValueError(f"{100 * share:.2f} % of its ids are the artifact's")
    except ValueError as error:
        raise ValueError(f"{name}: no graph for DeepStream can be made of it: {error}") from error
    batched = _with_any_batch(graph, images, manifest.input)
    write_file(folder / f"{name}.onnx", (batched or graph).SerializeToString())
    config = folder / f"config_infer_{name}.txt"
    write_file(config, nvinfer_config(manifest, artifact).encode())
    names = {"app": app_file(name), "config": config.name, **_mask_size(manifest)}
    write_file(folder / names["app"], Template(APP).substitute(names).encode())
    return Written(name, config, share, batched is not None)


def temperature_of(artifact: Artifact) -> float:
    """Return what an artifact with a confidence divides its logits by; 1 for others."""
    found = (artifact.verification or {}).get("confidence") or {}
    return float(found.get("temperature", 1.0))


def nvinfer_graph(model: ModelProto, spec: InputSpec, temperature: float = 1.0) -> ModelProto:
    """Return the graph of an artifact from its normalised image to probabilities.

    Args:
        model: uint8 (1, H, W, 3) in, class ids (1, h, w) out, as the TensorRT exporter writes it.
        spec: what it takes.
        temperature: of the probabilities, which the threshold is compared with.

    Returns:
        float32 (1, 3, H, W) in, float32 (1, K, h, w) out.

    Raises:
        ValueError: it begins or ends in another way.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    image, scores = _normalised_image(inferred.graph), _scores(inferred.graph)
    made = Extractor(inferred).extract_model([image], [scores])
    graph, (result,) = made.graph, made.graph.output
    shape = [dim.dim_value for dim in result.type.tensor_type.shape.dim]
    for node in graph.node:
        node.input[:] = [IMAGE if name == image else name for name in node.input]
    if temperature != 1:
        by = numpy_helper.from_array(np.array(1 / temperature, np.float32), "by_temperature")
        graph.initializer.append(by)
        graph.node.append(helper.make_node("Mul", [scores, by.name], ["calibrated"], "calibrated"))
        scores = "calibrated"
    graph.node.append(helper.make_node("Softmax", [scores], [PROBABILITIES], PROBABILITIES, axis=1))
    for values, name, dims in (
        (graph.input, IMAGE, [1, 3, spec.height, spec.width]),
        (graph.output, PROBABILITIES, shape),
    ):
        del values[:]
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    if spec.resize == "letterbox":
        _colour_bars(graph, spec)
    del made.metadata_props[:]  # they tell of bytes and ids
    del graph.value_info[:]
    onnx.checker.check_model(made)
    return made


def _colour_bars(graph: GraphProto, spec: InputSpec) -> None:
    """Give rows and columns that are black from end to end the colour that the network's mean has.

    nvinfer pads in black; the network was trained with bars of its mean, and the runtime makes
    such. Black bars changed up to 8 % of the pixels of street scenes. A frame that is black all
    over stays so.
    """
    limit = np.float32((0.5 - spec.mean) / spec.std)  # half a byte above black
    for value, name in ((limit, "nearly_black"), (np.float32(0), "mean_colour")):
        graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    for node in graph.node:
        node.input[:] = ["image_with_bars" if name == IMAGE else name for name in node.input]
    brightest = [("row", [1, 3]), ("column", [1, 2]), ("frame", [1, 2, 3])]
    nodes = [
        helper.make_node("ReduceMax", [IMAGE], [f"brightest_of_{name}"], axes=axes)
        for name, axes in brightest
    ]
    for operator, inputs, output in (
        ("Min", ["brightest_of_row", "brightest_of_column"], "brightest_across"),
        ("Less", ["brightest_across", "nearly_black"], "is_black_across"),
        ("Greater", ["brightest_of_frame", "nearly_black"], "is_lit"),
        ("And", ["is_black_across", "is_lit"], "is_bar"),
        ("Where", ["is_bar", "mean_colour", IMAGE], "image_with_bars"),
    ):
        nodes.append(helper.make_node(operator, inputs, [output], output))
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def _normalised_image(graph: GraphProto) -> str:
    """Return the tensor behind the cast, the normalisation and the transposition of the bytes."""
    name: str = graph.input[0].name
    for _ in range(4):
        users = [node for node in graph.node if name in node.input]
        if len(users) != 1:
            break
        name = users[0].output[0]
        if users[0].op_type == "Transpose":
            return name
    raise ValueError("its file does not begin with our normalisation; export it again")


def _scores(graph: GraphProto) -> str:
    """Return what the class map is the largest of."""
    makers: dict[str, NodeProto] = {name: node for node in graph.node for name in node.output}
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type == "Cast":
        node = makers.get(node.input[0])
    if node is None or node.op_type != "ArgMax":
        raise ValueError("it gives no class map; leave --output logits out")
    scores: str = node.input[0]
    return scores


def _fitted(image_HW3: Array, manifest: Manifest) -> Array:
    """Return a picture as the artifact takes it, (1, H, W, 3)."""
    size = _mask_size(manifest)
    mask_size = (size["mask_height"], size["mask_width"])
    fit = FrameFit(image_HW3.shape[:2], manifest.input, mask_size, False)
    return fit.to_input(image_HW3).copy()


def _agreement(
    model: ModelProto, graph: ModelProto, images_1HW3: list[Array], spec: InputSpec
) -> float:
    """Return the least share of pixels whose class is that of the artifact itself."""
    own, ours = _session(model), _session(graph)
    shares = []
    for image_1HW3 in images_1HW3:
        ids_HW = own.run(None, {own.get_inputs()[0].name: image_1HW3})[0][0]
        probabilities_1KHW = ours.run(None, {IMAGE: _fed(image_1HW3, spec)})[0]
        shares.append(agreement(probabilities_1KHW.argmax(axis=1)[0], ids_HW))
    return min(shares, default=1.0)


def _with_any_batch(
    graph: ModelProto, images_1HW3: list[Array], spec: InputSpec
) -> ModelProto | None:
    """Return the graph for any number of frames; None where it mixes or loses some."""
    made = copy.deepcopy(graph)
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    fed_N3HW = np.concatenate([_fed(image_1HW3, spec) for image_1HW3 in images_1HW3[:2]])
    single = _session(graph)
    try:
        at_once_NKHW = _session(made).run(None, {IMAGE: fed_N3HW})[0]
    except Exception:  # ONNX Runtime raises kinds of its own where a size is written into the graph
        return None
    each_NKHW = np.concatenate([single.run(None, {IMAGE: x[None]})[0] for x in fed_N3HW])
    same = at_once_NKHW.shape == each_NKHW.shape and np.allclose(at_once_NKHW, each_NKHW, atol=0.01)
    return made if same and len(fed_N3HW) > 1 else None


def _fed(image_1HW3: Array, spec: InputSpec) -> Array:
    scaled = (image_1HW3.astype(np.float32) - np.float32(spec.mean)) * _scale(spec)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _scale(spec: InputSpec) -> np.float32:
    return np.float32(1 / spec.std)


def _session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what a graph lacks is said by what it raises
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def nvinfer_config(manifest: Manifest, artifact: Artifact) -> str:
    """Return the configuration of nvinfer for the graph of an artifact."""
    spec, name = manifest.input, artifact.target
    return Template(CONFIG).substitute(
        name=manifest.name,
        target=name,
        readme=README,
        onnx=f"{name}.onnx",
        engine=engine_file(artifact),
        mode=network_mode(artifact),
        height=spec.height,
        width=spec.width,
        color=0 if spec.color == "rgb" else 1,
        scale=_scale(spec),
        mean=float(spec.mean),
        letterbox=int(spec.resize == "letterbox"),
        classes=len(manifest.classes),
        labels=LABELS,
        output=PROBABILITIES,
    )


def network_mode(artifact: Artifact) -> int:
    """Return the precision that nvinfer builds an engine in."""
    precision = find_precision(artifact.precision)
    if precision.calibrated:
        return INT8
    return FP16 if precision.bytes_per_weight == 2 else FP32


def engine_file(artifact: Artifact) -> str:
    """Return the engine that nvinfer opens: its own from the second start on, trtexec's for int8.

    nvinfer asks TensorRT for int8 only with a table of calibration; this graph has Q/DQ nodes.
    """
    mode = network_mode(artifact)
    if mode == INT8:
        return f"{artifact.target}.engine"
    return f"{artifact.target}.onnx_b1_gpu0_{'fp16' if mode == FP16 else 'fp32'}.engine"


def app_file(target: str) -> str:
    """Return the name of the configuration of NVIDIA's sample application."""
    return f"deepstream_app_{target}.txt"


def _mask_size(manifest: Manifest) -> dict[str, Any]:
    spec, stride = manifest.input, manifest.output.mask_stride
    return {"mask_width": spec.width // stride, "mask_height": spec.height // stride}


def _write_class_files(manifest: Manifest, folder: Path) -> None:
    """Write a name a line, and a colour; nvinfer splits lines at semicolons."""
    names = [entry.name.replace(";", ",") for entry in manifest.classes]
    write_file(folder / LABELS, "".join(f"{name}\n" for name in names).encode())
    rows = [(index, *entry.color) for index, entry in enumerate(manifest.classes)]
    table = ["id,red,green,blue\n", *(",".join(map(str, row)) + "\n" for row in rows)]
    write_file(folder / COLORS, "".join(table).encode())


def _write_readme(
    manifest: Manifest, artifacts: list[Artifact], written: list[Written], folder: Path
) -> None:
    template = Path(__file__).with_name("deepstream_readme.md").read_text("utf-8")
    spec = manifest.input
    int8 = [a.target for a in artifacts if network_mode(a) == INT8]
    rows = [
        f"| {one.config.name} | {100 * one.agreement:.2f} % | "
        f"{'any' if one.any_batch else '1 alone'} |"
        for one in written
    ]
    text = Template(template).substitute(
        name=manifest.name,
        rows="\n".join(rows),
        config=written[0].config.name,
        app=app_file(written[0].target),
        width=spec.width,
        height=spec.height,
        **_mask_size(manifest),
        builds="\n".join(_trtexec(one, spec) for one in written if one.target in int8),
        classes=len(manifest.classes),
    )
    write_file(folder / README, text.encode())


def _trtexec(one: Written, spec: InputSpec) -> str:
    command = f"    trtexec --onnx={one.target}.onnx --int8 --fp16 --saveEngine={one.target}.engine"
    if not one.any_batch:
        return command
    # Without them trtexec builds for a batch of 1, and nvinfer refuses the engine for more.
    frame = f"{IMAGE}:1x3x{spec.height}x{spec.width}"
    return f"{command} --minShapes={frame} --optShapes={frame} --maxShapes={frame}"
