"""Measure how well sound and faulty int8 artifacts agree with PyTorch; print a table in Markdown.

    python tools/export_figures/measure_agreement.py camvid:PATH [NETWORK...]

The gate's limit without labels (gate/verify.py) is chosen from it. Each network is
quantized for ONNX Runtime with ranges from the data's training split and from generated scenes,
run on pictures of both, then again with one fault, as a converter or an engine may have it.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnxruntime
from fastseg_exporters.convert.source import Calibration
from fastseg_exporters.gate.reference import reference_logits
from fastseg_exporters.onnx.to_onnx import float_graph, take_bytes
from fastseg_exporters.onnx.to_onnx_int8 import quantize
from fastseg_runtime.arrays.metrics import agreement
from fastseg_runtime.bundle.manifest import InputSpec
from onnx import numpy_helper
from scoring import pictures

from fastseg import Network, open_network

SHIPPED = ["nano-camvid", "small-camvid", "base-camvid"]
PICTURES, CALIBRATED = 8, 32
SOUND, SWAPPED = "sound", "red and blue swapped"


def scale_tensor(model: onnx.ModelProto, of_weights: bool, factor: float, place: float) -> None:
    """Multiply the scale of one quantized tensor, `place` of the way through the graph."""
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    names = [
        node.input[1]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and any(a.name == "axis" for a in node.attribute) == of_weights
        and "image" not in node.input[0]  # its scale is no range
    ]
    scale = scales[names[int(place * (len(names) - 1))]]
    values = numpy_helper.to_array(scale) * np.float32(factor)
    scale.CopyFrom(numpy_helper.from_array(values, scale.name))


FAULTS: dict[str, Callable[[onnx.ModelProto], None]] = {
    SOUND: lambda model: None,
    SWAPPED: lambda model: None,
    "a range halved": lambda model: scale_tensor(model, False, 0.5, 0.5),
    "an early weight doubled": lambda model: scale_tensor(model, True, 2, 0.1),
    "a middle weight doubled": lambda model: scale_tensor(model, True, 2, 0.5),
    "a late weight doubled": lambda model: scale_tensor(model, True, 2, 0.9),
}


def measure(network: Network, data: str, ranges: str | None) -> Iterator[tuple[str, list[float]]]:
    """Yield what the pictures are of, and the mean agreement with PyTorch for each fault."""
    graph = network.graph()
    images = Calibration(ranges, CALIBRATED).images(InputSpec(graph.width, graph.height))
    sound = quantize(float_graph(graph), images, graph.mean, graph.std)
    for spec in (data, "synthetic"):
        seen = pictures(spec, "val", PICTURES, (graph.width, graph.height))
        expected = [reference_logits(network, x).argmax(1)[0].numpy() for x in seen]
        found = []
        for fault, spoil in FAULTS.items():
            faulty = onnx.ModelProto.FromString(sound.SerializeToString())
            spoil(faulty)
            session = onnxruntime.InferenceSession(take_bytes(faulty, graph).SerializeToString())
            given = [np.ascontiguousarray(x[..., ::-1]) if fault == SWAPPED else x for x in seen]
            ids = [session.run(None, {"image": x})[0].reshape(x.shape[1:3]) for x in given]
            agreements = [agreement(a, b) for a, b in zip(ids, expected, strict=True)]
            found.append(float(np.mean(agreements)))
        yield kind_of(spec), found


def kind_of(spec: str | None) -> str:
    """Return what a data set's string names, without its path."""
    return (spec or "synthetic").partition(":")[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a data set with training and validation splits")
    parser.add_argument("networks", nargs="*", default=SHIPPED)
    given = parser.parse_args()
    print(f"| network | ranges | pictures | {' | '.join(FAULTS)} |")
    print(f"|---|---|---|{'--:|' * len(FAULTS)}")
    for network in map(open_network, given.networks):
        for ranges in (given.data, None):
            for shown, found in measure(network, given.data, ranges):
                cells = " | ".join(f"{100 * share:.1f}" for share in found)
                print(f"| {network.name} | {kind_of(ranges)} | {shown} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
