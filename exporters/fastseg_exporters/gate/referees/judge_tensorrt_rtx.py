"""NVIDIA's own ONNX parser and builder, in TensorRT for RTX, which need no GPU to build.

It builds whatever ONNX files an artifact has for each compute capability on offer, and counts the
layers that its parser made of them by kind and type. An engine cannot be opened without a GPU, so
the network before the build is what tells the types: it is strongly typed, none change later.
"""

import ctypes
import json
import re
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
LIBRARIES = ("libtensorrt_rtx", "libtensorrt_onnxparser_rtx")  # the second needs the first
TYPED = "-typed.onnx"  # how files end that strongly typed releases take, where an artifact has any
MAPS_BYTES = re.compile(r"Total Activation Memory: (\d+) bytes")
HEAVY = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "POOLING", "REDUCE", "RESIZE")


def load_tensorrt() -> Any:
    """Return the bindings; their libraries lie in another distribution's folder."""
    spec = find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    assert spec is not None and spec.submodule_search_locations is not None, "see the .txt"
    folder = Path(spec.submodule_search_locations[0])
    for name in LIBRARIES:
        ctypes.CDLL(str(next(folder.glob(f"{name}.so.*"))), mode=ctypes.RTLD_GLOBAL)
    import tensorrt_rtx_bindings

    return tensorrt_rtx_bindings


def make_logger(trt: Any, errors: list[str], memory: list[int]) -> Any:
    """Return a logger that keeps what went wrong, and what memory builds said engines need."""

    class Kept(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR and "---" not in message:  # a node's frame
                errors.append(" ".join(message.split()))
            elif found := MAPS_BYTES.search(message):
                memory.append(int(found[1]))

    return Kept()


def judge_file(trt: Any, path: Path) -> dict[str, Any]:
    """Parse a file and build it for each capability; see the facts in docs/exporting-formats.md."""
    errors: list[str] = []
    memory: list[int] = []
    logger = make_logger(trt, errors, memory)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(path.read_bytes())
    facts = {"parsed": parsed, "errors": errors, **(count(network) if parsed else {})}
    facts["engine_bytes"] = {
        name: build(trt, builder, network, name) for name in CAPABILITIES if parsed
    }
    facts["errors"] = errors[-3:]
    facts["maps_bytes"] = max(memory, default=None)
    return facts


def build(trt: Any, builder: Any, network: Any, capability: str) -> int | None:
    """Return an engine's size in bytes; None if there is none."""
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    engine = builder.build_serialized_network(network, config)
    return None if engine is None else int(engine.nbytes)


def count(network: Any) -> dict[str, Any]:
    """Count layers by kind and type of their first output, and heavy ones in float32.

    Those were asked for where a cast to float32 stands before them, or before the squares that a
    length sums up; a convolution behind a DEQUANTIZE is int8.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
    }
    kinds: Counter[str] = Counter()
    unasked: Counter[str] = Counter()
    for layer in layers:
        kind, dtype = layer.type.name, layer.get_output(0).dtype.name
        kinds[f"{kind} {dtype}"] += 1
        if kind in HEAVY and dtype == "FLOAT":
            before = _maker(layer, makers)
            if kind == "REDUCE" and before in ("ELEMENTWISE", "UNARY"):
                before = _maker(makers[layer.get_input(0).name], makers)
            asked = before == "CAST" or (before == "DEQUANTIZE" and "CONVOLUTION" in kind)
            unasked[kind] += not asked
    return {
        "layers": network.num_layers,
        "kinds": dict(sorted(kinds.items())),
        "float32_unasked": {kind: found for kind, found in sorted(unasked.items()) if found},
    }


def _maker(layer: Any, makers: dict[str, Any]) -> str:
    """Return the kind of layer that a layer's first input comes from; "" for the network's own."""
    maker = makers.get(layer.get_input(0).name)
    return "" if maker is None else str(maker.type.name)


def verdict(version: str, precision: str, entry: str, files: dict[str, Any]) -> dict[str, Any]:
    """Return the answer: all files build, and typed ones everywhere and in their precision.

    A file beside a typed one is float32 because its releases take precision as a flag. This
    builder has no products of matrices in float32 for Turing, which no Jetson is: that is said.
    """
    faults = [f"{name} is not parsed: {cause(file)}" for name, file in files.items()
              if not file["parsed"]]  # fmt: skip
    typed = [name for name in files if name.endswith(TYPED)] or [entry]
    notes: list[str] = []
    for name, file in files.items():
        missing = [sm for sm, size in file["engine_bytes"].items() if size is None]
        if missing:
            is_fault = name in typed or len(missing) == len(file["engine_bytes"])
            said = f"{name} is not built for {', '.join(missing)}: {cause(file)}"
            (faults if is_fault else notes).append(said)
    for name in typed:
        unasked = files[name].get("float32_unasked", {})
        if precision != "fp32" and unasked:
            told = ", ".join(f"{count} {kind}" for kind, count in unasked.items())
            faults.append(f"{name} has layers in float32 that {precision} did not ask for: {told}")
    counts = ", ".join(f"{name} has {files[name].get('layers')} layers" for name in typed)
    says = f"{counts}; built for {', '.join(CAPABILITIES)}, not Orin's SM87"
    return {
        "version": version,
        "accepted": not faults,
        "says": ("; ".join(faults) or "; ".join([says, *notes]))[:500],
        "facts": files,
    }


def cause(file: dict[str, Any]) -> str:
    """Return what was said of a failure."""
    return " ".join(file["errors"]) or "it does not say why"


def main() -> None:
    """Read the request, print the answer."""
    request = json.load(sys.stdin)
    trt = load_tensorrt()
    paths = sorted(Path(request["folder"]).glob("*.onnx"))
    files = {path.name: judge_file(trt, path) for path in paths}
    print(json.dumps(verdict(trt.__version__, request["precision"], request["entry"], files)))


if __name__ == "__main__":
    main()
