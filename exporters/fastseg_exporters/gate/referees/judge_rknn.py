"""Build an ONNX of logits for Rockchip's NPUs, and run it in the simulator of their toolkit.

The NPU takes the normalised image, which the toolkit makes of bytes: what stands before the network
in our graphs is cut off, and its mean and deviation are said to the toolkit instead.
"""

import json
import math
import os
import shutil
import sys
import types
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import onnx
import onnxruntime

CHIPS = ("rk3588", "rk3576", "rk3566")
HALF = "fp16"
INT8 = "int8"
PRECISIONS = (HALF, INT8)
FIRST = "rk3588"  # runs all frames; what comes of it in fp16 is compared with PyTorch
FRAMES_OF_OTHERS = 1  # the simulator computes the same for all three chips
# The first frames give int8 its ranges and are not run: half of them, and no more than these.
MAX_CALIBRATION = 16
MIN_AGREEMENT = {HALF: 0.998, INT8: 0.95}  # of the ids of logits with ONNX Runtime's
CHANNELS = 3
PREPARATION = ("Transpose", "Cast", "DequantizeLinear", "Sub", "Div", "Mul")


def stand_in_for_torch() -> None:
    """Let the toolkit import what it does not use for ONNX: 190 MB, or 3 GB with CUDA from PyPI.

    It decorates and derives when it is imported, for its quantizer by gradient descent. With torch
    2.13 in its place the outputs were the same to the bit, in fp16 and int8.
    """
    names = ("torch", "torch.nn", "torch.nn.functional")
    torch, nn, functional = (types.ModuleType(name) for name in names)
    torch.no_grad = lambda: lambda function: function  # type: ignore[attr-defined]
    torch.nn, nn.functional, nn.Module = nn, functional, object  # type: ignore[attr-defined]
    sys.modules.update(zip(names, (torch, nn, functional), strict=True))


def before_the_network(model: onnx.ModelProto) -> str:
    """Return the tensor of the normalised image, the last that is made of the image alone."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    constants = (node for node in model.graph.node if node.op_type == "Constant")
    sizes |= {node.output[0]: math.prod(node.attribute[0].t.dims) for node in constants}
    last: str = model.graph.input[0].name
    while True:
        takers = [node for node in model.graph.node if last in node.input]
        users = [node for node in takers if node.op_type != "Shape"]  # it takes no pixel
        if len(users) != 1 or not prepares(users[0], last, sizes):
            return last
        last = users[0].output[0]


def prepares(node: onnx.NodeProto, image: str, sizes: dict[str, int]) -> bool:
    """Return whether a node does what a mean and a deviation of each channel can say.

    Args:
        node: takes the image.
        image: the tensor.
        sizes: how many values each constant has: a mean picture has more than the channels.
    """
    others = list(node.input)
    others.remove(image)  # x * x has it once more
    is_first = node.input[0] == image or node.op_type == "Mul"  # 1 - x has no mean
    return (
        node.op_type in PREPARATION
        and is_first
        and all(sizes.get(name) in (1, CHANNELS) for name in others)
    )


def normalisation(model: onnx.ModelProto, image: str) -> tuple[list[float], list[float]]:
    """Return mean and deviation of each channel, from what black and white become.

    Raises:
        ValueError: the image is not turned to planes before what stands in the network.
    """
    ends = onnx.ModelProto()
    ends.CopyFrom(model)
    del ends.graph.output[:]
    ends.graph.output.append(onnx.helper.make_tensor_value_info(image, 1, None))
    session = onnxruntime.InferenceSession(ends.SerializeToString())
    given = session.get_inputs()[0]
    black, white = (
        session.run(None, {given.name: np.full(given.shape, byte, np.uint8)})[0]
        for byte in (0, 255)
    )
    if black.shape[1] != CHANNELS:
        raise ValueError(
            f"{image} {black.shape} is prepared in another way than by a mean and a deviation of "
            f"each channel; expected (1, {CHANNELS}, H, W) before it"
        )
    black_3, white_3 = black[0, :, 0, 0], white[0, :, 0, 0]
    std_3 = 255 / (white_3 - black_3)
    return [float(x) for x in -black_3 * std_3], [float(x) for x in std_3]


class Build:
    """The network for one chip in one precision, in the toolkit's simulator."""

    def __init__(self, model_file: Path, chip: str, calibration: str | None) -> None:
        """Build; calibration is a list of files for int8.

        Raises:
            Exception: the toolkit refuses, in its own words.
        """
        from rknn.api import RKNN

        model = onnx.load(str(model_file))
        image = before_the_network(model)
        mean_3, std_3 = normalisation(model, image)
        _, height, width, _ = (d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
        self.rknn = RKNN(verbose=False)
        self.rknn.config(mean_values=[mean_3], std_values=[std_3], target_platform=chip)
        size = [1, 3, height, width]
        outputs = [model.graph.output[0].name]
        self._do(
            "load_onnx", str(model_file), inputs=[image], input_size_list=[size], outputs=outputs
        )
        self._do("build", do_quantization=calibration is not None, dataset=calibration)
        self._do("export_rknn", "made.rknn")
        self._do("init_runtime")  # no target: the simulator
        self.bytes = Path("made.rknn").stat().st_size

    def run(self, frame: Path) -> Any:
        """Return logits, float32 (1, K, h, w)."""
        (logits,) = self.rknn.inference(inputs=[np.load(frame)], data_format=["nhwc"])
        return logits

    def _do(self, step: str, *values: Any, **options: Any) -> None:
        if getattr(self.rknn, step)(*values, **options) != 0:
            raise RuntimeError(f"{step} failed")


def judged(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the answer for a request; what comes of each build is in a folder of its name too."""
    stand_in_for_torch()
    model_file, out = Path(request["folder"]) / request["entry"], Path(request["outputs"])
    frames = sorted(
        Path(request["frames"] or folder).glob("*.npy"), key=lambda path: int(path.stem)
    )
    ranges, frames = split(frames)
    calibration = listed(ranges, folder)
    session = onnxruntime.InferenceSession(str(model_file))
    name = session.get_inputs()[0].name
    expected = [session.run(None, {name: np.load(frame)})[0].argmax(1) for frame in frames]
    facts: dict[str, Any] = {"calibrated_on": len(ranges), "frames": len(frames)}
    builds = [(c, p) for c in CHIPS for p in PRECISIONS if p == HALF or ranges]
    for chip, precision in builds:
        key = f"{chip}-{precision}"
        try:
            build = Build(model_file, chip, calibration if precision == INT8 else None)
        except Exception as error:  # the toolkit raises what comes
            return answer(False, f"{key}: {last_line(error)}", facts)
        facts[key] = {"mb": round(build.bytes / 1e6, 2)}
        count = len(frames) if chip == FIRST else FRAMES_OF_OTHERS
        alike = [
            np.mean(run(build, frame, out / key) == ids)
            for frame, ids in zip(frames[:count], expected[:count], strict=True)
        ]
        if alike:
            facts[key]["as_onnxruntime"] = float(np.mean(alike))
    if frames:
        shutil.copytree(out / f"{FIRST}-{HALF}", out, dirs_exist_ok=True)
    return summary(facts)


def split(frames: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return frames to calibrate on, and frames to run."""
    count = min(len(frames) // 2, MAX_CALIBRATION)
    return frames[:count], frames[count:]


def listed(frames: list[Path], folder: Path) -> str:
    """Write frames as the toolkit's quantizer wants them, NCHW, and return the list's file."""
    paths = []
    for frame in frames:
        paths.append(str(folder / f"calibration-{frame.name}"))
        np.save(paths[-1], np.ascontiguousarray(np.load(frame).transpose(0, 3, 1, 2)))
    names = folder / "calibration.txt"
    names.write_text("".join(f"{path}\n" for path in paths), "utf-8")
    return str(names)


def run(build: Build, frame: Path, out: Path) -> Any:
    """Run a frame, keep its logits and return its ids."""
    out.mkdir(exist_ok=True)
    logits = build.run(frame)
    np.save(out / frame.name, logits)
    return logits.argmax(1)


def summary(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the answer where all was built."""
    says, accepted = [f"builds for {', '.join(CHIPS)}"], True
    for precision in PRECISIONS:
        shares = [
            fact["as_onnxruntime"]
            for key, fact in facts.items()
            if key.endswith(precision) and "as_onnxruntime" in fact
        ]
        if shares:
            accepted &= min(shares) >= MIN_AGREEMENT[precision]
            says.append(f"{precision}: ids as ONNX Runtime's in {100 * min(shares):.2f} %")
    return answer(accepted, "; ".join(says), facts)


def answer(accepted: bool, says: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what fastseg reads; it takes lines of 500 characters."""
    return {
        "version": version("rknn-toolkit2"),
        "accepted": accepted,
        "says": says[:500],
        "facts": facts,
    }


def last_line(error: Exception) -> str:
    """Return the last line of what the toolkit says; before it stands a trace of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def served(order: dict[str, Any], before: Build | None) -> tuple[dict[str, str], Build | None]:
    """Return the answer to an order, and the build that the next one is about.

    {"model", "chip", "ranges", "made"} builds, for int8 where there are pictures for ranges;
    {"frame", "output"} simulates.
    """
    if "model" not in order:
        assert before is not None, "build first"
        np.save(order["output"], before.run(Path(order["frame"])))
        return {}, before
    ranges = [Path(name) for name in order["ranges"]]
    calibration = listed(ranges, Path.cwd()) if ranges else None
    build = Build(Path(order["model"]), order["chip"], calibration)
    shutil.copy("made.rknn", order["made"])
    return {"version": version("rknn-toolkit2")}, build


def serve(orders: Iterable[str], answers: TextIO) -> None:
    """Answer an order a line; see toolchain.py."""
    stand_in_for_torch()
    build: Build | None = None
    for line in orders:
        try:
            said, build = served(json.loads(line), build)
        except Exception as error:  # the toolkit raises what comes
            said = {"refused": last_line(error)}
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    # The toolchain writes to standard output, and at its end too: it gets standard error's.
    own_output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.argv[1:] == ["serve"]:
        serve(sys.stdin, own_output)
    else:
        print(json.dumps(judged(json.load(sys.stdin), Path.cwd())), file=own_output, flush=True)
