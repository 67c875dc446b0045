"""Compile an ONNX file for Qualcomm's NPU (HTP), list what stays out, run it in the x86 simulator.

HTP casts uint8 to float as if bytes were booleans: 0.0 for 0, 1.0 for all others (SDK 2.51, in its
simulator), without a word. Over int32, as the bytes go here, the cast is right.
"""

import collections
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import onnx
import onnxruntime

# Snapdragon 8 Gen 2, 8 Gen 3, 8 Elite and, of laptops, X Elite: SoC and architecture as Qualcomm
# numbers them. Where none is named, float graphs are refused: "Memory allocation related error".
SOCS = {
    "SM8550": ("43", "73"),
    "SM8650": ("57", "75"),
    "SM8750": ("69", "79"),
    "SC8380XP": ("60", "73"),
}
SIMULATED = "SM8650"
MIN_AGREEMENT = 0.98  # of class ids with ONNX Runtime's own for the same file
PROVIDER = "QNNExecutionProvider"
CONTEXT = "EPContext"  # a node that holds a compiled network
# Qnn_DataType_t, as the dumped graph numbers types
WIDTHS = {0x0216: "half", 0x0232: "half", 0x0308: "8 bit", 0x0408: "8 bit", 0x0416: "16 bit"}
CONVOLUTIONS = ("Conv2d", "DepthWiseConv2d", "TransposeConv2d")


def cast_over_int32(source: Path, target: Path) -> bool:
    """Write a copy whose bytes become float over int32; return whether any did."""
    model = onnx.load(str(source))
    graph = model.graph
    images = {value.name for value in graph.input if value.type.tensor_type.elem_type == 2}
    casts = [n for n in graph.node if n.op_type == "Cast" and n.input[0] in images]
    for cast in casts:
        over = onnx.helper.make_node(
            "Cast", [cast.input[0]], [f"{cast.output[0]}_int32"], to=onnx.TensorProto.INT32
        )
        cast.input[0] = over.output[0]
        graph.node.insert(0, over)
    onnx.save(model, str(target))
    return bool(casts)


def session(model: Path, soc: str | None, config: dict[str, str], **options: str) -> Any:
    """Open a model for an SoC, or one that is compiled; raises RuntimeError in Qualcomm's words."""
    import onnxruntime_qnn

    made = onnxruntime.SessionOptions()
    made.log_severity_level = 3
    for key, value in config.items():
        made.add_session_config_entry(key, value)
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == PROVIDER]
    backend = {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
    if soc is not None:
        backend["soc_model"], backend["htp_arch"] = SOCS[soc]
    made.add_provider_for_devices(devices[:1], {**backend, **options})
    return onnxruntime.InferenceSession(str(model), made)


def compiled(model: Path, soc: str, folder: Path) -> dict[str, Any]:
    """Compile for an SoC; return the size of what it loads, or Qualcomm's refusal."""
    context = folder / f"{soc}.onnx"
    config = {
        "ep.context_enable": "1",
        "ep.context_file_path": str(context),
        "ep.context_embed_mode": "1",
    }
    start = time.monotonic()
    try:
        session(model, soc, config)
    except Exception as error:  # onnxruntime's own classes share no base but this
        return {"refused": one_line(error)}
    if not context.is_file():
        return {"refused": "it compiles nothing of the graph"}
    return {"mb": round(context.stat().st_size / 1e6, 1), "s": round(time.monotonic() - start, 1)}


def simulate(
    model: Path, original: Path, frames: list[Path], out: Path, notes: Path
) -> list[float]:
    """Run frames, write what came, and return how alike ONNX Runtime's ids are for each."""
    traced = {
        "enable_framework_op_trace": "1",
        "framework_op_trace_dir": str(notes),
        "dump_json_qnn_graph": "1",
        "json_qnn_graph_dir": str(notes),
    }
    simulator = session(model, SIMULATED, {}, **traced)
    reference = onnxruntime.InferenceSession(str(original), providers=["CPUExecutionProvider"])
    alike = []
    for frame in frames:
        given = {simulator.get_inputs()[0].name: np.load(frame)}
        got, expected = (  # a confidence may come after them
            side.run(None, given)[0] for side in (simulator, reference)
        )
        np.save(out / frame.name, got)
        alike.append(float(np.mean(ids_of(got) == ids_of(expected))))
    return alike


def ids_of(output: Any) -> Any:
    """Return class ids of ids, or of logits (N, K, h, w)."""
    return output.argmax(1) if output.ndim == 4 else output


def noted(notes: Path) -> dict[str, Any]:
    """Return what the provider says of nodes: what it left to the CPU and why, and widths."""
    trace = json.loads((notes / "qnn_op_trace.json").read_text("utf-8"))
    left = collections.Counter(
        f"{node['op_type']}: {node['reason']}" for node in trace["unsupported_nodes"]
    )
    widths: collections.Counter[str] = collections.Counter()
    for path in notes.glob("*.json"):
        graph = json.loads(path.read_text("utf-8")).get("graph", {})
        for node in graph.get("nodes", {}).values():
            if node["type"] in CONVOLUTIONS:
                kind = graph["tensors"][node["input_names"][0]]["data_type"]
                widths[WIDTHS.get(kind, hex(kind))] += 1
    return {"left_to_the_cpu": dict(left), "convolutions": dict(widths)}


def judged(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the answer for a request."""
    original, model = Path(request["folder"]) / request["entry"], folder / "model.onnx"
    if kinds(original)[CONTEXT]:
        return judged_context(request, original)
    facts: dict[str, Any] = {"cast_over_int32": cast_over_int32(original, model)}
    facts["compiled"] = {soc: compiled(model, soc, folder) for soc in SOCS}
    refusals = [f"{s}: {f['refused']}" for s, f in facts["compiled"].items() if "refused" in f]
    if refusals:
        return answer(False, refusals[0], facts)
    says = f"compiles for {', '.join(SOCS)}"
    if request["frames"] is None:
        return answer(True, says, facts)
    notes = folder / "notes"
    notes.mkdir()
    frames = sorted(Path(request["frames"]).glob("*.npy"))
    try:
        alike = simulate(model, original, frames, Path(request["outputs"]), notes)
    except Exception as error:
        return answer(False, f"{says}; in the simulator: {one_line(error)}", facts)
    facts |= {"as_onnxruntime": min(alike), "frames": len(alike), **noted(notes)}
    widths = ", ".join(f"{count} {width}" for width, count in facts["convolutions"].items())
    says += f"; convolutions: {widths}; ids as ONNX Runtime's in {100 * min(alike):.2f} %"
    if left := sum(facts["left_to_the_cpu"].values()):
        says += f"; {left} nodes left to the CPU"
    return answer(min(alike) >= MIN_AGREEMENT, says, facts)


def judged_context(request: dict[str, Any], model: Path) -> dict[str, Any]:
    """Return the answer for a network that is compiled: what is left of it, and how it runs."""
    left = left_of(model)
    facts: dict[str, Any] = {"left_to_the_cpu": left}
    says = f"a compiled network, {sum(left.values())} nodes left to the CPU"
    if request["frames"] is None:
        return answer(True, says, facts)
    try:
        simulator = session(model, None, {})
        for frame in sorted(Path(request["frames"]).glob("*.npy")):
            given = {simulator.get_inputs()[0].name: np.load(frame)}
            np.save(Path(request["outputs"]) / frame.name, simulator.run(None, given)[0])
    except Exception as error:
        return answer(False, f"{says}; in the simulator: {one_line(error)}", facts)
    return answer(True, f"{says}; runs in the simulator", facts)


def kinds(model: Path) -> collections.Counter[str]:
    """Return how many nodes of each kind a file has."""
    return collections.Counter(node.op_type for node in onnx.load(str(model)).graph.node)


def left_of(model: Path) -> dict[str, int]:
    """Return the nodes beside what was compiled."""
    return {kind: count for kind, count in kinds(model).items() if kind != CONTEXT}


def served(order: dict[str, Any]) -> dict[str, Any]:
    """Compile {"model"} for a {"soc"} to {"made"}, all of it in that file.

    A hash of the model's path would be in it: from here, under one name, the bytes are the same.
    """
    shutil.copy(order["model"], "model.onnx")
    found = compiled(Path("model.onnx"), order["soc"], Path())
    if "refused" not in found:
        made = Path(f"{order['soc']}.onnx")
        found = {"version": version(), "left_to_the_cpu": left_of(made)}
        shutil.move(made, order["made"])
    return found


def serve(orders: Iterable[str], answers: TextIO) -> None:
    """Answer an order a line; see toolchain.py."""
    for line in orders:
        try:
            said = served(json.loads(line))
        except Exception as error:
            said = {"refused": one_line(error)}
        print(json.dumps(said), file=answers, flush=True)


def answer(accepted: bool, says: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what fastseg reads; it takes lines of 500 characters."""
    return {"version": version(), "accepted": accepted, "says": says[:500], "facts": facts}


def version() -> str:
    """Return that of the provider, and of Qualcomm's SDK in it."""
    import onnxruntime_qnn

    sdk = onnxruntime_qnn.build_and_package_info.qnn_version
    return f"{onnxruntime_qnn.__version__}, SDK {sdk}"


def one_line(error: Exception) -> str:
    """Return an error's text without line breaks."""
    return " ".join(str(error).split())


if __name__ == "__main__":
    # The toolchain writes to standard output, and at its end too: it gets standard error's.
    own_output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import onnxruntime_qnn

    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    if sys.argv[1:] == ["serve"]:
        serve(sys.stdin, own_output)
    else:
        print(json.dumps(judged(json.load(sys.stdin), Path.cwd())), file=own_output, flush=True)
